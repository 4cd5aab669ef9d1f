import csv
from pathlib import Path

import pytest

from vision_core.batch.ledger import Output, Record
from vision_core.batch.tables import write_tables
from vision_core.csv_tables import Cell, safe_cell, to_csv


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+49", "'+49"),
        ("-x", "'-x"),
        ("@sum", "'@sum"),
        ("\t=1", "'\t=1"),
        ("a=1", "a=1"),
        (-3, -3),
        (-0.5, -0.5),
        (None, None),
        ("", ""),
    ],
)
def test_safe_cell__formulas_are_quoted_and_numbers_stay_numbers(cell: Cell, expected: Cell) -> None:
    assert safe_cell(cell) == expected


def test_to_csv__quotes_what_csv_needs() -> None:
    assert to_csv(["a", "b"], [['x,"y"', -1.5], ["ü\n", None]]) == 'a,b\n"x,""y""",-1.5\n"ü\n",\n'


def test_write_tables__done_and_failed_with_their_columns(tmp_path: Path) -> None:
    made = Output(file="outputs/a b.json", size=2, sha256="0")
    shared = {"seconds": 1.0, "version": "1", "fingerprint": "f"}
    done = Record(input="a b.png", name="a b", status="done", outputs=(made,), values={"objects": 3}, **shared)
    failed = Record(input="<b>.png", name="b", status="failed", reason="=bad & worse", **shared)
    write_tables(tmp_path, [done, failed], 3)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["input", "objects", "outputs"], ["a b.png", "3", "outputs/a b.json"]]
    assert (tmp_path / "failures.csv").read_text(encoding="utf-8") == "input,reason\n<b>.png,'=bad & worse\n"
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "1 of 3 inputs done, 1 failed, 1 not tried" in page
    assert "&lt;b&gt;.png" in page
    assert "<b>" not in page
    assert 'href="outputs/a%20b.json"' in page
    assert "http" not in page
