"""Scores as people read them."""

from vision_core.evaluation.rows import Row, table
from vision_core.results import RESEARCH_NOTICE


def test_table__interval_behind_its_value_and_nothing_for_the_undefined() -> None:
    row = Row(
        model="trained",
        split="test",
        counts={"patients": 8, "slides": 12},
        metrics={"auc": 0.8125, "f1": None},
        intervals={"auc": (0.701, 0.9)},
    )
    head, line, notice = table([row]).splitlines()
    assert head.split() == ["model", "split", "patients", "slides", "auc", "f1"]
    assert line.split() == ["trained", "test", "8", "12", "81.2", "[70.1,", "90.0]", "n/a"]
    assert notice == RESEARCH_NOTICE
