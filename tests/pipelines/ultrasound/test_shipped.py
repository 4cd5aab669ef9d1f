"""The pair that is shipped with the demo: sound, small, calibrated, and silent on what is no frame of its phantom."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from benchmarks.repack_demos import CHECKPOINTS
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.phantom.examples import FRAMES, SWEEP, make_examples
from pipelines.ultrasound.phantom.study import Phantom
from pipelines.ultrasound.predict import UltrasoundPredictor
from vision_core.assets import photographs, radiology_files
from vision_core.bundles import bundle
from vision_core.bundles.card import WEIGHTS_FILE
from vision_core.results import OUTSIDE

PAIR = CHECKPOINTS / "ultrasound-demo"


@pytest.fixture(scope="module")
def gate() -> UltrasoundPredictor:
    return UltrasoundPredictor.from_checkpoint(PAIR / "screen", "cpu", UltrasoundConfig(segment=PAIR / "segment"))


@pytest.mark.parametrize("name", ["screen", "segment"])
def test_bundle__is_small_and_says_what_it_is(name: str) -> None:
    folder = PAIR / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10_000_000
    card = bundle.read_card(folder)
    assert (card.storage, card.class_titles) == ("fp16", {"organ": "phantom organ"})
    assert card.trained_on.synthetic and "no patient" in card.trained_on.description
    assert card.scope and card.scope["threshold"] > 0
    assert not Path(card.config["data"]["root"]).is_absolute()
    bundle.check_golden(bundle.load(folder), UltrasoundPredictor.from_checkpoint(folder, "cpu").answer)


def test_screen__is_calibrated_with_the_segmenter_beside_it() -> None:
    calibration = bundle.read_card(PAIR / "screen").calibration
    segment = bundle.read_card(PAIR / "segment")
    assert calibration and calibration["segment"] == segment.identity()
    assert segment.hashes[WEIGHTS_FILE][:12] in calibration["segment"]
    best = min(calibration["curve"], key=lambda each: each["false_positive"] + each["false_negative"])
    chosen = next(each for each in calibration["curve"] if each["threshold"] == calibration["threshold"])
    assert chosen["false_positive"] + chosen["false_negative"] == best["false_positive"] + best["false_negative"]
    assert (calibration["chosen_on"]["subjects"], calibration["risk"]["num_subjects"]) == (12, 10)


def test_guard__real_files_and_photographs_are_outside(gate: UltrasoundPredictor) -> None:
    named = [get_testdata_file(f"examples_{name}.dcm") for name in ("rgb_color", "palette", "jpeg2k")]
    paths = [*map(Path, filter(None, map(str, named))), *radiology_files().values(), *photographs().values()]
    assert len(paths) >= 9
    assert {path.name: gate(path).category for path in paths} == dict.fromkeys([path.name for path in paths], OUTSIDE)


def test_guard__most_frames_of_other_subjects_of_the_phantom_are_inside(gate: UltrasoundPredictor) -> None:
    frames = [each.image for subject in (500, 501, 502, 503) for each in Phantom(subject).cine(6)]
    found = gate._part(frames, [str(number) for number in range(len(frames))])
    assert found.outside.mean() <= 0.1


@pytest.mark.slow
def test_examples__the_first_shows_frames_that_the_gate_alone_keeps_clean(
    gate: UltrasoundPredictor, tmp_path: Path
) -> None:
    examples = make_examples(tmp_path)
    assert [each.get("is_own", True) for each in examples] == [True, True, False]
    alone = UltrasoundPredictor.from_checkpoint(PAIR / "segment", "cpu")
    path = examples[0]["path"]
    gated, plain = gate(path), alone(path)
    truth = np.array([each.masks.any(axis=(1, 2)).sum() >= 2 for each in Phantom(SWEEP).cine(FRAMES)])
    removed = plain.present & ~gated.present
    assert (removed & ~truth).sum() >= 2
    assert (gated.present & truth).sum() >= 0.7 * truth.sum()
    still = gate(examples[1]["path"])
    assert (len(still), still.category) == (1, "organ")
    assert still.spacing_mm is not None
    assert gate(examples[2]["path"]).category == OUTSIDE
