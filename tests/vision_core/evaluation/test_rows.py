"""Scores as people read them."""

from vision_core.evaluation.rows import NUMBERS, Row, details_table, table
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


def test_details_table__models_beside_each_other_fractions_in_percent_and_numbers_as_they_are() -> None:
    details: dict[str, dict[str, float | None]] = {
        "AP by size": {"small": 0.125, "large": None},
        f"errors {NUMBERS}": {"missed": 3.0},
    }
    rows = [
        Row(model=model, split="night", counts={"boxes": 2}, metrics={}, details=details)
        for model in ("source", "lpld")
    ]
    first, second = details_table(rows).split("\n\n")
    assert first.splitlines()[0] == "AP by size, night"
    assert [line.split() for line in first.splitlines()[1:]] == [
        ["small", "large"],
        ["source", "12.5", "n/a"],
        ["lpld", "12.5", "n/a"],
    ]
    assert second.splitlines()[-1].split() == ["lpld", "3"]
    assert details_table([Row(model="a", split="b", counts={}, metrics={})]) == ""
