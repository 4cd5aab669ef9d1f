import pytest

from vision_core.evaluation.overlaps import Kind, note_overlap


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("TRAINED ON", "TRAINED ON: 2 of the 5 slides of data.eval_split are also trained on (first 'a'). Scores"),
        ("TRANSDUCTIVE", "TRANSDUCTIVE: 2 of the 5 slides of data.eval_split are also adapted to (first 'a'). Say so"),
        ("CALIBRATED ON", "CALIBRATED ON: 2 of the 5 slides of data.eval_split are also what its epoch or thresholds"),
    ],
)
def test_note_overlap__says_how_many_and_the_first(kind: Kind, told: str) -> None:
    [note] = note_overlap(kind, ["a", "b"], 5, "slides")
    assert note.startswith(told)
    assert note.endswith("evaluate on other slides.")
    assert note_overlap(kind, [], 5, "slides") == ()
