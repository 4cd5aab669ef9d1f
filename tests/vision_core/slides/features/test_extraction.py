import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.vision_core.slides.features.extraction import Colours, by_hand, damaged, encoder, grid, slide_in
from tests.vision_core.slides.tiffs import overwrite
from vision_core.errors import InputError
from vision_core.files import stamp
from vision_core.slides.features.extraction import (
    ExtractionSettings,
    expected_attributes,
    extract_features,
    summarise_times,
)
from vision_core.slides.features.files import read_features, reason_not_reusable
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.settings import ReadSettings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return slide_in(tmp_path)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 100])
def test_extract_features__rows_in_the_order_of_the_grid(path: Path, threads: int, batch_size: int) -> None:
    settings = ExtractionSettings(read=ReadSettings(threads=threads), batch_size=batch_size, storage="fp32")
    with open_slide(path) as slide:
        found = extract_features(slide, grid(), encoder(), settings)
        expected = by_hand(slide, grid(), encoder())
    np.testing.assert_allclose(found.features[:], expected, atol=1e-4)
    assert found.coords is not None and found.features.dtype == np.float32
    np.testing.assert_array_equal(found.coords, grid().corners)
    assert np.unique(expected, axis=0).shape == expected.shape  # tiles differ, so order is seen


def test_extract_features__the_file_says_what_it_is(path: Path) -> None:
    settings = ExtractionSettings(path=path.with_suffix(".h5"), fingerprint="f")
    with open_slide(path) as slide:
        made = extract_features(slide, grid(), encoder(), settings)
    found = read_features(path.with_suffix(".h5"))
    assert dict(found.attributes) == dict(made.attributes)
    now = stamp(path)
    expected = {
        "mpp": 0.5,
        "tile_px": 64,
        "tile_side": 64,
        "slide_mpp": 0.5,
        "slide": "a.tif",
        "slide_size": now.size,
        "slide_ends": now.ends,
        "storage": "fp16",
        "fingerprint": "f",
        "left_out": [],
        "encoder": encoder().identity,
    }
    assert {name: found.attributes[name] for name in expected} == expected
    assert found.features.dtype == np.float16 and str(found.attributes["software"]).startswith("domainsight ")
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.h5", "a.tif"]


def test_expected_attributes__fit_until_something_changes(path: Path) -> None:
    file = path.with_suffix(".h5")
    settings = ExtractionSettings(path=file, fingerprint="f")
    assert reason_not_reusable(file, expected_attributes(path, encoder(), settings)) == "there is no file yet"
    with open_slide(path) as slide:
        extract_features(slide, grid(), encoder(), settings)
    assert reason_not_reusable(file, expected_attributes(path, encoder(), settings)) == ""
    assert "fingerprint" in reason_not_reusable(
        file, expected_attributes(path, encoder(), replace(settings, fingerprint="g"))
    )
    assert "input_px" in reason_not_reusable(file, expected_attributes(path, encoder(input_px=32), settings))
    assert "storage" in reason_not_reusable(
        file, expected_attributes(path, encoder(), replace(settings, storage="fp32"))
    )
    path.touch()
    assert reason_not_reusable(file, expected_attributes(path, encoder(), settings)) == ""
    overwrite(path, 100, b"\xff")
    assert "slide has changed" in reason_not_reusable(file, expected_attributes(path, encoder(), settings))


def test_extract_features__a_coarser_tile_is_reduced_by_area(path: Path) -> None:
    with open_slide(path) as slide:
        found = extract_features(slide, grid(4, read_px=128), encoder(), ExtractionSettings(storage="fp32"))
        pixels = np.stack([slide.read(0, int(x), int(y), 128, 128) for x, y in grid(4).corners])
    halved = pixels.reshape(4, 64, 2, 64, 2, 3).mean((2, 4)).round().astype(np.uint8)
    np.testing.assert_allclose(found.features[:], encoder().encode(halved).numpy(), atol=0.01)
    assert found.attributes["tile_side"] == 128 and found.attributes["mpp"] == 1.0


def test_extract_features__without_tissue_there_are_no_rows(path: Path) -> None:
    with open_slide(path) as slide:
        found = extract_features(slide, grid(0), encoder(), ExtractionSettings(path=path.with_suffix(".h5")))
    assert found.features.shape == (0, 12) and len(read_features(path.with_suffix(".h5"))) == 0
    assert "0 tiles" in summarise_times(found.facts)


def test_extract_features__without_a_path_nothing_is_left(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with open_slide(path) as slide:
        found = extract_features(slide, grid(), encoder())
    assert list(folder.iterdir()) == [] and [each.name for each in path.parent.iterdir()] == ["a.tif"]
    assert np.isfinite(found.features[np.array([79, 0])]).all()


def test_extract_features__tells_progress_and_where_time_went(path: Path) -> None:
    told: list[tuple[int, int]] = []
    settings = ExtractionSettings(batch_size=32, on_tiles=lambda done, total: told.append((done, total)))
    with open_slide(path) as slide:
        facts = extract_features(slide, grid(), encoder(), settings).facts
    assert told == [(32, 80), (64, 80), (80, 80)]
    parts = facts["waiting_seconds"] + facts["encoding_seconds"] + facts["writing_seconds"]
    assert facts["tiles"] == 80 and 0 < parts <= facts["seconds"] and facts["reading_seconds"] > 0
    slow = {"tiles": 80.0, "seconds": 8.0, "tiles_per_second": 10.0, "waiting_seconds": 6.0, "encoding_seconds": 1.0}
    assert summarise_times(slow | {"writing_seconds": 0.5}) == (
        "80 tiles in 8.0 s (10 a second): 6.0 s waiting for tiles, 1.0 s encoding, 0.5 s writing; "
        "reading bounds the speed."
    )


def test_extract_features__notes_a_scale_that_the_encoder_does_not_know(path: Path) -> None:
    with open_slide(path) as slide:
        for mpp, count in ((0.5, 0), (1.0, 1)):
            assert len(extract_features(slide, grid(2), encoder(mpp=mpp)).notes) == count


# Bad tiles


def test_bad_tile__fails_the_slide_and_names_the_place(path: Path) -> None:
    damaged(path, 13)
    settings = ExtractionSettings(path=path.with_suffix(".h5"), batch_size=8)
    with open_slide(path) as slide, pytest.raises(InputError, match=r"a\.tif.*level 0 .*x 192, y 64"):
        extract_features(slide, grid(), encoder(), settings)
    assert [each.name for each in path.parent.iterdir()] == ["a.tif"]


def test_bad_tile__left_out_and_listed_where_allowed(path: Path) -> None:
    with open_slide(path) as slide:
        expected = by_hand(slide, grid(), encoder())
    damaged(path, 13, 14)
    settings = ExtractionSettings(read=ReadSettings(max_bad_tiles=2), batch_size=8, storage="fp32")
    with open_slide(path) as slide:
        found = extract_features(slide, grid(), encoder(), settings)
        with pytest.raises(
            InputError, match=r"2 tiles cannot be read, read.max_bad_tiles allows 1\. .*x (192|256), y 64"
        ):
            extract_features(slide, grid(), encoder(), replace(settings, max_bad_tiles=1))
    assert found.coords is not None and found.attributes["left_out"] == [[192, 64], [256, 64]]
    np.testing.assert_array_equal(found.coords, np.delete(grid().corners, [13, 14], axis=0))
    np.testing.assert_allclose(found.features[:], np.delete(expected, [13, 14], axis=0), atol=1e-4)
    assert found.notes == ("2 of 80 tiles cannot be read and are left out.",) and found.facts["left_out"] == 2


def test_bad_tile__all_of_them(path: Path) -> None:
    damaged(path, *range(80))
    with open_slide(path) as slide:
        found = extract_features(slide, grid(), encoder(), ExtractionSettings(max_bad_tiles=80, batch_size=9))
    assert found.features.shape == (0, 12) and len(found.attributes["left_out"]) == 80


# What an encoder may do


class Failing(Colours):
    """Raises for batches above a size, or answers with a number."""

    def __init__(self, most: int = 1000, answer: float | None = None) -> None:
        super().__init__()
        self.most, self.answer = most, answer
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        rows = super().forward(images)
        if self.answer is not None and (images.amax() > 0):
            rows[-1, 0] = self.answer
        return rows


def test_out_of_memory__the_batch_is_halved_once(path: Path) -> None:
    network = Failing(most=8)
    with open_slide(path) as slide:
        found = extract_features(slide, grid(), encoder(network), ExtractionSettings(batch_size=16, storage="fp32"))
        expected = by_hand(slide, grid(), encoder())
    np.testing.assert_allclose(found.features[:], expected, atol=1e-4)
    assert network.sizes == [1, 16, *[8] * 10]  # the first finds out how many features there are
    assert found.notes == ("The memory was not enough for 16 tiles at once; 8 are encoded at once.",)


def test_out_of_memory__half_a_batch_fails_the_slide(path: Path) -> None:
    with open_slide(path) as slide, pytest.raises(InputError, match=r"a\.tif.*encode 8 tiles.*encoder.batch_size to 4"):
        extract_features(slide, grid(), encoder(Failing(most=7)), ExtractionSettings(batch_size=16))


@pytest.mark.parametrize(("answer", "reason"), [(float("nan"), "NaN or infinity"), (1e6, "set encoder.storage=fp32")])
def test_encoder__gives_what_cannot_be_stored(path: Path, answer: float, reason: str) -> None:
    settings = ExtractionSettings(batch_size=16, path=path.with_suffix(".h5"))
    with open_slide(path) as slide, pytest.raises(InputError, match=f"'colours' gives for x 320, y 64 .*{reason}"):
        extract_features(slide, grid(), encoder(Failing(answer=answer)), settings)
    assert [each.name for each in path.parent.iterdir()] == ["a.tif"]


# Memory

_MEMORY = """
import sys
from dataclasses import replace
from tests.vision_core.slides.features.extraction import *
from vision_core.slides.features.extraction import extract_features
from vision_core.slides.reading.slide import open_slide
class Wide(nn.Module):
    def forward(self, images):
        return images.mean((2, 3)).repeat(1, 400)
def peak():  # unlike ru_maxrss, without the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
path = Path(sys.argv[1])
with open_slide(path) as slide:
    extract_features(slide, grid(200), encoder(Wide()))
    before = peak()
    extract_features(slide, replace(grid(40_000), tile_px=4, read_px=4), encoder(Wide(), 4))
print(peak() - before)
"""


@pytest.mark.slow
def test_memory__does_not_grow_with_the_slide(path: Path) -> None:
    words = [sys.executable, "-c", _MEMORY, str(path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, timeout=200, cwd=Path.cwd(), env=env, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 30  # MiB; the rows are 92 in fp16, 183 in fp32
