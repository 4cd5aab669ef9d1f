import numpy as np

from pipelines.ultrasound.evaluation.gate_report import gate_in_words
from pipelines.ultrasound.evaluation.rows import ListScores, gate_row

PRESENT = np.array([True, True, True, False, False, False])


def scores() -> ListScores:
    """Two subjects; the segmenter finds two of three, and leaves a mask on all frames without the organ."""
    nothing = np.full(6, np.nan)
    return ListScores(
        name="test",
        subjects=("a", "a", "b", "a", "b", "b"),
        present=PRESENT,
        has_consensus=PRESENT,
        scores=np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.6], np.float32),
        dice=np.array([0.8, 0.6, 0.0, 0.0, 0.0, 0.0]),
        precision=nothing,
        recall=nothing,
        areas=np.array([50.0, 40.0, 0.0, 30.0, 8.0, 45.0]),
        confidence=np.array([0.9, 0.9, np.nan, 0.9, 0.9, 0.9]),
        hausdorff_95=nothing,
        surface=nothing,
    )


def test_gate_in_words__counts_and_dice_with_and_without() -> None:
    found = scores()
    calibration = {"threshold": 0.5, "presence_rule": {"least_area": 10.0, "least_probability": 0.5}}
    title, false, right, dice = gate_in_words(found, gate_row("trained", found, 0.5), calibration, synthetic=True)
    assert title == "\nWhat the gate does on 'test', which is synthetic:"
    assert false.endswith("a mask on: 3 alone, 2 with a tuned rule on its masks, 1 behind the gate.")
    assert right.endswith("it finds: 2 alone, 2 with a tuned rule on its masks, 2 behind the gate.")
    # By subject, alone: a (.8 + .6 + 0) / 3, b 0; behind the gate: a (.8 + .6 + 1) / 3, b (0 + 1 + 0) / 3.
    assert "Dice over all frames: 23.3 alone, 56.7 behind the gate (gain +33.3, 95 % interval" in dice


def test_gate_in_words__masks_of_another_tool_have_no_rule() -> None:
    found = scores()
    lines = gate_in_words(found, gate_row("trained", found, 0.5), {"threshold": 0.5, "presence_rule": None})
    assert lines[0] == "\nWhat the gate does on 'test':"
    assert lines[1].endswith("a mask on: 3 alone, 1 behind the gate.")
