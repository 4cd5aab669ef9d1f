from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.files import open_file
from pipelines.ultrasound.data.formats.cines import CineFrames
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.evaluation.rows import Models, gate_row, score_list, screen_row, segment_row
from pipelines.ultrasound.segment import FolderMasks, mask_names
from pipelines.ultrasound.weights.bundles import Frames
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.published import found
from tests.pipelines.ultrasound.tiny import FRAMES, frame, make_h5
from vision_core.errors import InputError
from vision_core.images.untrusted import UntrustedImages


def test_score_list__masks_against_the_consensus(tmp_path: Path) -> None:
    """The third observer's smaller disc, moved in one frame to where nothing is."""
    root, masks = make_h5(tmp_path / "data"), tmp_path / "masks"
    masks.mkdir()
    for subject in (9, 10):
        for number in range(FRAMES):
            mask = frame(subject, number)[1][2].astype(np.uint8)
            if (subject, number) == (10, 2):
                mask[:4, :4] = 1
            Image.fromarray(mask).save(masks / f"frame_{subject:04d}_{number:03d}.png")
    frames = read_lists(UltrasoundData(root=root), ["test"])["test"]
    scored = score_list(frames, "observer_majority", Models(masking=FolderMasks(masks)), "test")
    assert scored.present.tolist() == [False, True] * 4
    assert scored.areas[6] == 16
    assert scored.dice[[0, 6]].tolist() == [1, 0]
    inner, outer = (float(frame(9, 1)[1][each].sum()) for each in (2, 0))
    assert scored.dice[1] == pytest.approx(2 * inner / (inner + outer))
    assert (scored.precision[1], scored.recall[1]) == (1, pytest.approx(inner / outer))
    assert 1 < scored.surface[1] < scored.hausdorff_95[1] < 4
    assert not np.isfinite(scored.surface[[0, 6]]).any()
    row = segment_row("trained", scored)
    assert row.counts == {"subjects": 2, "frames": 8}
    assert row.metrics["dice"] == pytest.approx(scored.dice.mean())
    assert row.metrics["frame_specificity"] == 0.75
    assert "on 4 frames where both are there" in row.notes[0]
    assert scored.true_areas is not None
    assert scored.true_areas[1] == outer
    # Two observers have the same disc, and the third a smaller one: its contour lies inside, theirs at the band's edge.
    assert scored.bands is not None
    assert scored.bands.observers_coverage[1] == pytest.approx(2 / 3, abs=0.1)
    assert np.isnan(scored.bands.observers_coverage[0])
    assert row.metrics["observers_band_coverage"] == pytest.approx(np.nanmean(scored.bands.observers_coverage))
    assert row.metrics["band_coverage"] is None  # masks of another tool have no probabilities
    assert "observers_band_coverage: of the band between the other observers, " in row.notes[1]
    low, high = row.intervals["dice"]
    assert low <= scored.dice.mean() <= high


def test_score_list__frames_that_predict_turns_away_are_told(tmp_path: Path) -> None:
    """Those of a single value, of a frozen cine, and with colours over grey; not the copies of another rate."""
    masks = frame(1, 1, (64, 64))[1]
    for number in range(22):
        image = np.repeat(frame(1, min(number, 3), (64, 64))[0][..., None], 3, axis=2)
        if number == 1:
            image[:] = 7
        if number == 2:
            image[20:40, 20:40] = (220, 60, 0)
        path = tmp_path / "test" / "p" / f"f{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        Image.fromarray(masks[0].astype(np.uint8)).save(path.with_stem(f"f{number}_obs00"))
    frames = read_lists(UltrasoundData(root=tmp_path), ["test"])["test"]
    scored = score_list(frames, "observer_majority", Models(), "test")
    assert scored.unjudged is not None and scored.coloured is not None
    # The last ones repeat frame 3 for the 16th time and more.
    assert np.flatnonzero(scored.unjudged).tolist() == [1, 19, 20, 21]
    assert np.flatnonzero(scored.coloured).tolist() == [2]
    assert np.flatnonzero(scored.turned_away).tolist() == [1, 2, 19, 20, 21]
    notes = segment_row("m", scored).notes
    told = "predict does not segment them; they are scored here."
    assert f"4 of 22 frames hold a single value or are of a frozen cine: {told}" in notes
    assert f"1 of 22 frames have colours over grey, as Doppler: {told}" in notes
    judged = scored.judged()
    assert (len(judged.present), len(judged.subjects or ())) == (17, 17)
    assert not judged.turned_away.any()


def test_rows__published_decisions_of_screen_segmenter_and_gate() -> None:
    alone, screen = segment_row("m", found()).metrics, screen_row("m", found(), 0.2).metrics
    gate = gate_row("m", found(), 0.31)
    assert [alone["frame_precision"], alone["frame_recall"]] == [0.6, 0.75]
    assert alone["frame_f1"] == pytest.approx(2 / 3)
    assert screen["frame_precision"] == pytest.approx(2 / 3)
    assert screen["frame_recall"] == 1
    assert gate.metrics["alone_dice"] == pytest.approx(0.55)
    assert gate.metrics["dice_end_to_end"] == pytest.approx(0.5875)
    assert gate.metrics["dice_gain"] == pytest.approx(0.0375)
    assert gate.metrics["alone_frame_precision"] == 0.6
    assert "Threshold 0.31" in gate.notes[0]


def test_rows__without_subjects_means_are_over_frames_without_an_interval() -> None:
    row = segment_row("m", found(subjects=None))
    assert row.counts == {"frames": 8}
    assert row.metrics["dice"] == pytest.approx(0.55)
    assert not row.intervals
    assert row.notes[0] == "Means over frames: the data names no subjects."
    assert row.metrics["pixel_precision"] is None


def test_mask_names__of_a_frame_in_every_layout() -> None:
    names = ["frame_0001_002", "0001/f.3.png", "a/cine.dcm#3", "IM0001#12", "f0.png", "a/cine.nii.gz#3", "1.2.840.5#3"]
    assert [mask_names(each) for each in names] == [
        ["frame_0001_002.png"],
        ["0001/f.3.png"],
        ["a/cine_003.png"],
        ["IM0001_012.png"],
        ["f0.png"],
        ["a/cine_003.png"],
        ["1.2.840.5_003.png"],
    ]


def test_folder_masks__are_named_as_those_of_a_training(tmp_path: Path) -> None:
    """But for the observer; prediction names a still by its file alone, a list with the number of its frame."""
    for name in ("IM1", "still.dcm"):
        still(tmp_path / name)
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 2), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")  # type: ignore[no-untyped-call]
    trained = {"IM1_obs00.png": 16, "still_000_obs00.png": 16, "a_001_obs00.png": 4}
    (tmp_path / "other").mkdir()
    for name, side in trained.items():
        for path in (tmp_path / name, tmp_path / "other" / name.replace("_obs00", "")):
            Image.fromarray(np.ones((side, side), np.uint8)).save(path)
    masks = FolderMasks(tmp_path / "other")
    listed = CineFrames(tmp_path)
    with UntrustedImages() as reader:
        texts = [text for name in ("IM1", "still.dcm", "a.nii.gz") for text in open_file(tmp_path / name, reader).texts]
    texts.remove("a.nii.gz#0")  # which has no mask
    for text in [*(name.text for name in listed.names), *texts]:
        side = 4 if text.startswith("a.") else 16
        image = np.zeros((side, side), np.uint8)
        assert masks(Frames(images=[image], white=[255.0]), [text]).masks.all()
    Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / "other" / "still.png")
    with pytest.raises(InputError, match=r"has 'still\.png' and 'still_000\.png' of 'still\.dcm'. Keep one"):
        masks(Frames(images=[np.zeros((16, 16), np.uint8)], white=[255.0]), ["still.dcm"])
