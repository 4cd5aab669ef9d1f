from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from pipelines.ultrasound.data.frames import grey_of
from pipelines.ultrasound.data.sector.find import MOST_HIDDEN, Sector, decide, misfit, motion_of, sampled
from tests.pipelines.ultrasound.data.sector.pictures import SIZE, cine, fan, words
from vision_core.dicom.reader import open_cine


def found(frames: np.ndarray) -> Sector:
    decision = decide(motion_of(list(frames), 255), "X")
    assert decision.reason == ""
    assert decision.sector is not None
    return decision.sector


@pytest.mark.parametrize("size", [SIZE, (480, 640), (600, 400)])
def test_decide__words_scale_and_trace_are_masked_and_the_sector_is_kept(size: tuple[int, int]) -> None:
    frames = cine(size=size)
    sector = found(frames)
    inside = fan(size)
    assert (inside & ~sector.inside).sum() == 0
    assert sector.inside.mean() < 1.35 * inside.mean()
    shown = sector.shown(frames[0])
    assert np.array_equal(shown[inside], frames[0][inside])
    beside = ~inside & (words(size) > 0)
    assert (shown[beside] > 0).sum() <= 0.02 * beside.sum()


def test_decide__frames_of_16_bits_alike() -> None:
    deep = cine().astype(np.uint16) * 257
    decision = decide(motion_of(list(deep), 65535), "X")
    assert decision.sector == found(cine())
    assert decision.sector.shown(deep[0]).dtype == np.uint16


def test_decide__where_nothing_lies_beside_the_sector_nothing_is_masked_or_told() -> None:
    decision = decide(motion_of(list(cine(text=False, trace=False)), 255), "X")
    assert (decision.sector, decision.reason) == (None, "")
    whole = np.random.default_rng(0).integers(0, 255, (4, 58, 52)).astype(np.uint8)  # a frame that is cut already
    assert decide(motion_of(list(whole), 255), "X").sector is None


def test_decide__what_does_not_fit_is_told_and_not_masked() -> None:
    frozen = np.repeat(cine(1), 4, axis=0)
    assert "too few to find the sector" in decide(motion_of(list(frozen), 255), "X").reason
    two = cine()  # a second live picture beside the first
    small = cine(size=(120, 160), seed=1, text=False, trace=False)
    two[:, :] = 0
    two[:, 60:180, :160], two[:, 60:180, 160:] = small, small[::-1]
    assert "would hide" in decide(motion_of(list(two), 255), "X").reason
    two[:, 60:180, 160:] = small[0]  # frozen, beside a live one
    assert "another picture lies beside the sector" in decide(motion_of(list(two), 255), "X").reason


def test_decide__a_single_frame() -> None:
    with_words, without = (motion_of(list(cine(1, text=text, trace=text)), 255) for text in (True, False))
    assert "a single frame does not tell text" in decide(with_words, "X").reason
    assert decide(without, "X").reason == ""
    known = found(cine())
    assert decide(with_words, "X", known).sector == known


def test_decide__a_known_sector_is_taken_where_it_fits() -> None:
    known = found(cine())
    assert decide(motion_of(list(cine(seed=5)), 255), "X", known).sector is known
    wider = np.roll(cine(seed=5), 60, axis=2)
    assert misfit(motion_of(list(wider), 255), known).startswith("the sector found would hide")
    other = decide(motion_of(list(wider), 255), "X", known).sector
    assert other not in (None, known)
    assert MOST_HIDDEN == 0.05


def test_record__comes_back_and_damage_is_refused() -> None:
    sector = found(cine())
    assert Sector.from_record(sector.to_record()) == sector
    for damage in (
        {},
        {"machine": "X", "size": [4], "corners": []},
        {"machine": "X", "size": [4, 4], "corners": [[1, 2]]},
    ):
        with pytest.raises(ValueError):
            Sector.from_record(damage)


def test_sampled__frames_of_the_beginning_without_one_twice() -> None:
    assert sampled(1) == [0]
    assert sampled(3) == [0, 1, 2]
    assert (len(sampled(10_000)), max(sampled(10_000))) == (8, 56)


def test_decide__a_real_cine_loses_words_scale_and_buttons_and_no_tissue() -> None:
    path = get_testdata_file("examples_ybr_color.dcm")
    with open_cine(Path(str(path))) as cine_file:
        images = [grey_of(cine_file.read_full(number)) for number in sampled(cine_file.num_frames)]
    motion = motion_of(images, 255)
    sector = decide(motion, "SonoSite, Inc. Turbo").sector
    assert sector is not None
    assert (motion.moving & ~sector.inside).sum() <= 0.001 * motion.moving.sum()
    shown = sector.shown(images[0])
    for words_at in (np.s_[:30, :40], np.s_[:, 290:], np.s_[225:, :]):
        assert images[0][words_at].max() > 60
        assert shown[words_at].max() == 0
