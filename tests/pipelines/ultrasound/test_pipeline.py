"""The gate by the command line: trained, calibrated, evaluated, predicted; and what runs refuse."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.screening.threshold import GRID
from tests.pipelines.ultrasound.tiny import FRAMES, SUBJECTS, Pair, frame, make_h5, make_pictures, train
from vision_core.bundles.bundle import amend, read_card

NUM_TEST = SUBJECTS["test"] * FRAMES


def scores(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def masks_of(folder: Path, subjects: Sequence[int]) -> Path:
    """Masks of another tool: what the first observer sees, named as the frames."""
    folder.mkdir()
    for subject in subjects:
        for number in range(FRAMES):
            values = frame(subject, number)[1][0].astype(np.uint8) * 255
            Image.fromarray(values).save(folder / f"frame_{subject:04d}_{number:03d}.png")
    return folder


def test_train__a_pair_of_one_command_is_calibrated_and_reported(pair: Pair) -> None:
    calibration = read_card(pair.screen).calibration
    assert calibration is not None
    assert calibration["threshold"] in GRID.tolist()
    assert [each["threshold"] for each in calibration["curve"]] == GRID.tolist()
    assert calibration["chosen_on"] == {"list": "val", "subjects": 2, "frames": 8}
    assert calibration["segment"] == read_card(pair.segment).identity()
    alone, gate = scores(pair.out / "screen" / "evaluation.json")
    assert (alone["split"], gate["split"]) == ("test", "test (gate)")
    assert gate["metrics"]["frame_precision"] >= gate["metrics"]["alone_frame_precision"]
    assert gate["metrics"]["dice_gain"] == pytest.approx(
        gate["metrics"]["dice_end_to_end"] - gate["metrics"]["alone_dice"]
    )
    report = (pair.out / "report.html").read_text(encoding="utf-8")
    assert "The gate on validation frames" in report
    assert "Dice of all frames" in report  # of the gate
    assert "Dice of frames that show the organ" in report  # of the segmenter
    [segment] = scores(pair.out / "segment" / "evaluation.json")
    assert 0 <= segment["metrics"]["band_coverage"] <= 1
    assert 0 < segment["metrics"]["observers_band_coverage"] < 1
    for run in ("segment", "screen"):
        assert len(table(pair.out / run / "pictures" / "frames.csv")) == NUM_TEST
    assert "dice_end_to_end" in report


def test_train__the_lists_of_the_run_are_recorded(pair: Pair) -> None:
    recorded = json.loads((pair.out / "segment" / "splits.json").read_text())
    assert recorded["subjects"] == json.loads((pair.data / "splits.json").read_text())["subjects"]


def test_evaluate__the_gate_has_the_figures_of_the_report(pair: Pair, tmp_path: Path) -> None:
    words = ["evaluate", "--checkpoint", str(pair.screen), f"segment={pair.segment}", "--out", str(tmp_path)]
    assert main(words) == 0
    [row] = scores(tmp_path / "evaluation.json")
    assert row["metrics"] == scores(pair.out / "screen" / "evaluation.json")[1]["metrics"]
    assert row["counts"] == {"subjects": SUBJECTS["test"], "frames": NUM_TEST}
    assert "dice_end_to_end" in row["intervals"]


def test_predict__rejected_frames_have_no_mask_and_accepted_ones_that_of_the_segmenter(
    pair: Pair, tmp_path: Path
) -> None:
    def predict(out: str, bundle: Path, *words: str) -> list[dict[str, str]]:
        command = ["predict", "--checkpoint", str(bundle), "--input", str(pair.data / "frames.h5")]
        assert main([*command, "--out", str(tmp_path / out), *words]) == 0
        return table(tmp_path / out / "outputs" / "frames.frames.csv")

    alone = predict("alone", pair.segment)
    scored = sorted(float(row["score"]) for row in predict("screen", pair.screen))
    below = len(scored) // 4
    threshold = (scored[below] + scored[below + 1]) / 2  # the table rounds: a score itself may lie on either side
    gate = predict("gate", pair.screen, f"segment={pair.segment}", f"gate.threshold={threshold}")
    assert len(alone) == len(gate) == sum(SUBJECTS.values()) * FRAMES
    for mine, other in zip(gate, alone, strict=True):
        is_accepted = float(mine["score"]) > threshold and mine["outside"] == "0"
        assert mine["accepted"] == str(int(is_accepted))
        if other["outside"] == "0" or not is_accepted:  # the segmenter alone has a guard of its own
            assert mine["area_px"] == (other["area_px"] if is_accepted else "")
    assert {row["accepted"] for row in gate} == {"0", "1"}
    assert {row["area_mm2"] for row in gate} <= {"", "spacing unknown"}


def test_predict__masks_of_another_tool_behind_the_gate(pair: Pair, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 2)
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(frame(90, 1)[1][0].astype(np.uint8)).save(masks / "f1.png")
    words = ["predict", "--checkpoint", str(pair.screen), "--input", str(tmp_path / "in"), f"segment={masks}"]
    assert main([*words, "--out", str(tmp_path / "a"), "gate.threshold=0"]) == 4  # one frame has no mask
    [row] = table(tmp_path / "a" / "outputs" / "f1.frames.csv")
    assert float(row["area_px"]) == frame(90, 1)[1][0].sum()
    assert row["confidence"] == ""
    assert "has no 'f0.png', the mask of 'f0.png'" in (tmp_path / "a" / "failures.csv").read_text()


def test_calibrate__masks_of_another_tool_and_missed_frames_under_control(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = shutil.copytree(pair.screen, tmp_path / "model")
    amend(screen, scope=None)  # the guard of so small a screen leaves frames out, which choose nothing
    masks = masks_of(tmp_path / "masks", range(4, 6))  # of the validation subjects alone: no other is asked for
    words = ["calibrate", "--checkpoint", str(screen), f"segment={masks}"]
    control = ["data.calibration_split=calibration", "calibrate.alpha=0.3"]
    assert main([*words, *control]) == 0
    calibration = read_card(screen).calibration
    assert calibration is not None
    assert calibration["segment"] == "masks in 'masks'"
    assert calibration["presence_rule"] is None
    assert calibration["risk"]["num_subjects"] == 3
    assert main(["verify", str(screen)]) == 0
    assert "at most 30% of a subject's frames are missed" in capsys.readouterr().out
    assert main([*words, control[0]]) == 2
    assert "'3' calibration subjects have frames with the organ; a share of 0.1 needs 9" in capsys.readouterr().err
    assert main([*words, control[1], "data.calibration_split=val"]) == 2
    assert "have chosen the model or its threshold already" in capsys.readouterr().err
    assert read_card(screen).calibration == calibration


def test_predict__a_threshold_chosen_with_another_segmenter_is_told(pair: Pair, tmp_path: Path) -> None:
    masks = masks_of(tmp_path / "masks", range(11))
    words = ["predict", "--checkpoint", str(pair.screen), "--input", str(pair.data / "frames.h5")]
    assert main([*words, "--out", str(tmp_path / "out"), f"segment={masks}"]) == 0
    [row] = table(tmp_path / "out" / "results.csv")
    assert "was chosen with 'ultrasound/segment/" in row["notice"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["calibrate", "--checkpoint={screen}"], "segment is missing: give segment=BUNDLE"),
        (["calibrate", "--checkpoint={segment}", "segment={screen}"], "holds a 'segmenter', no screen"),
        (["calibrate", "--checkpoint={screen}", "segment={screen}"], "holds a 'screen', no segmenter"),
        (["calibrate", "--checkpoint={screen}", "segment={data}"], "has no 'frame_0004_000.png'"),
        (["evaluate", "--checkpoint={screen}", "segment={absent}"], "absent' does not exist"),
        (["predict", "--checkpoint={segment}", "segment={segment}"], "and --checkpoint is a segmenter"),
        (["evaluate", "--checkpoint={segment}", "segment={segment}"], "and --checkpoint is a segmenter"),
        (["predict", "--checkpoint={screen}", "gate.by=risk"], "missed frames were not controlled"),
        (["predict", "--checkpoint={screen}", "labels.sampling=vote"], "is a setting of training"),
        (["train", "method=screen", "segment={segment}"], "segment is for predict, evaluate and calibrate"),
    ],
)
def test_gate__what_does_not_fit_is_refused(
    words: list[str], told: str, pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"screen": pair.screen, "segment": pair.segment, "data": pair.data, "absent": tmp_path / "absent"}
    more = {
        "predict": ["--input", str(pair.data / "pictures"), "--out", str(tmp_path / "out")],
        "train": ["--out", str(tmp_path / "run"), f"data.root={pair.data}"],
    }
    assert main([*(word.format(**places) for word in words), *more.get(words[0], [])]) == 2
    assert told in capsys.readouterr().err


def test_train__frames_of_several_sizes_or_too_small_ones_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_h5(tmp_path / "data")
    assert train(tmp_path / "run", data, "segmenter.layers=6") == 2
    assert "needs frames of 64 pixels a side, found '32 x 36'. Set data.size_px" in capsys.readouterr().err
    with h5py.File(data / "frames.h5", "a") as file:
        file["frame_0000_009"] = np.arange(40 * 36, dtype=np.uint16).reshape(40, 36)
        file["label_0000_009_00"] = np.ones((40, 36), np.uint8)
    assert train(tmp_path / "run", data) == 2
    assert "The frames have '2' sizes (32 x 36, 40 x 36), and a step needs one" in capsys.readouterr().err
    assert train(tmp_path / "run", data, "train.max_steps=1", "data.size_px=[32,32]") == 0


def test_train__a_last_step_of_one_frame_is_refused_where_it_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_h5(tmp_path / "data")
    assert train(tmp_path / "run", data, "train.batch_size=5", "train.drop_last=false") == 2
    assert "would have '1' of 16 frames" in capsys.readouterr().err


def test_train__a_screen_needs_frames_of_both_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_h5(tmp_path / "data")
    assert train(tmp_path / "run", data, "method=screen", "data.only_present=true") == 2
    assert "shows the organ on '8' of 16 frames; a screen needs frames of both kinds" in capsys.readouterr().err


def test_train__frame_aware_loss_has_a_term_of_its_own(tmp_path: Path) -> None:
    data = make_h5(tmp_path / "data")
    words = ("method=segment_frame_aware", "train.max_steps=1", "data.eval_split=null", "data.only_present=true")
    assert train(tmp_path / "run", data, *words) == 0
    [line] = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[:1]
    assert json.loads(line)["loss_presence"] > 0


def test_evaluate__scores_on_the_list_of_the_training_say_so(pair: Pair, tmp_path: Path) -> None:
    words = ["evaluate", "--checkpoint", str(pair.segment), "--out", str(tmp_path)]
    assert main([*words, "data.eval_split=train"]) == 0
    [row] = scores(tmp_path / "evaluation.json")
    assert row["notes"][0].startswith("TRAINED ON: 'train' is the list of the training")
