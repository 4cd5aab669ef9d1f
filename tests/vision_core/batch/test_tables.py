import csv
import os
from pathlib import Path

import pytest

from vision_core.batch.ledger import Output, Record
from vision_core.batch.tables import GrowingTables, write_tables
from vision_core.csv_tables import Cell, safe_cell, to_csv
from vision_core.errors import EnvironmentFault


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


def record(name: str, **values: Cell) -> Record:
    return Record(
        input=name, name=name, status="done", outputs=(), values=values, seconds=1.0, version="1", fingerprint="f"
    )


def failure(name: str) -> Record:
    return record(name).model_copy(update={"status": "failed", "reason": f"'{name}' is bad,\nbadly."})


def in_ledger(folder: Path, *records: Record) -> Path:
    (folder / "ledger").mkdir(exist_ok=True)
    (folder / "ledger" / "0.jsonl").write_text("".join(each.model_dump_json() + "\n" for each in records))
    return folder


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_growing_tables__a_line_is_on_disk_before_the_next_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = GrowingTables(in_ledger(tmp_path, record("a", n=1)))
    tables.begin(["b", "c"])
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    for made in (record("b", n=2), failure("c")):
        tables.add(made)
    assert len(flushed) == 2  # appended, not written anew
    assert read(tmp_path / "results.csv") == [["input", "n", "outputs"], ["a", "1", ""], ["b", "2", ""]]
    assert read(tmp_path / "failures.csv") == [["input", "reason"], ["c", "'c' is bad,\nbadly."]]


def test_growing_tables__an_input_that_is_done_again_has_one_line(tmp_path: Path) -> None:
    tables = GrowingTables(in_ledger(tmp_path, record("a", n=1), failure("b")))
    tables.begin(["a", "b"])
    assert read(tmp_path / "results.csv") == [["input", "outputs"]]
    in_ledger(tmp_path, record("a", n=7), record("b", n=8))
    tables.add(record("a", n=7))
    tables.add(record("b", n=8))
    assert read(tmp_path / "results.csv") == [["input", "n", "outputs"], ["a", "7", ""], ["b", "8", ""]]
    assert read(tmp_path / "failures.csv") == [["input", "reason"]]


def test_growing_tables__new_columns_do_not_shift_the_lines_before(tmp_path: Path) -> None:
    tables = GrowingTables(in_ledger(tmp_path))
    tables.begin(["a", "b", "c"])
    made = [record("a", n=1), record("b", m="x", n=2), record("c", n=3)]
    for number, each in enumerate(made, start=1):
        in_ledger(tmp_path, *made[:number])
        tables.add(each)
    rows = read(tmp_path / "results.csv")
    assert rows[0] == ["input", "n", "m", "outputs"]
    assert rows[1:] == [["a", "1", "", ""], ["b", "2", "x", ""], ["c", "3", "", ""]]


def test_growing_tables__of_another_process_with_other_columns_are_written_anew(tmp_path: Path) -> None:
    tables = GrowingTables(in_ledger(tmp_path, record("a", n=1)))
    tables.begin(["b"])
    in_ledger(tmp_path, record("a", n=1), record("z", m=9), record("b", n=2))
    (tmp_path / "results.csv").write_text("input,m,outputs\nz,9,\n")
    tables.add(record("b", n=2))
    assert read(tmp_path / "results.csv") == [
        ["input", "n", "m", "outputs"],
        ["a", "1", "", ""],
        ["z", "", "9", ""],
        ["b", "2", "", ""],
    ]


def test_growing_tables__a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = GrowingTables(in_ledger(tmp_path, record("a", n=1)))
    tables.begin(["b"])
    before = (tmp_path / "results.csv").read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match=r"results\.csv"):
        tables.add(record("b", n=2))
    assert (tmp_path / "results.csv").read_bytes() == before


def test_write_tables__results_of_an_earlier_version_are_decided_as_now(tmp_path: Path) -> None:
    before: dict[str, Cell] = {"category": "normal", "tiles": 9, "abstains": 1.0, "outside": 0.0, "notes": "Doubt."}
    glass: dict[str, Cell] = {"category": "no tissue", "tiles": 0, "notes": "No tissue was found on this slide."}
    sure = before | {"abstains": 0.0}
    write_tables(tmp_path, [record("a", **before), record("b", **glass), record("c", **sure)], 3)
    rows = {row[0]: row for row in read(tmp_path / "results.csv")}
    assert rows["input"][1:4] == ["category", "verdict", "notice"] and "notes" not in rows["input"]
    assert rows["a"][1] == "undecided" and rows["a"][3].startswith("Doubt. Made by an earlier version")
    assert (rows["b"][1], rows["c"][1], rows["c"][3]) == ("no tissue", "normal", "Doubt.")
    write_tables(tmp_path, [record("a", called="x; y", **{"best class": "x"})], 1)
    assert read(tmp_path / "results.csv")[1][:3] == ["a", "x; y", "x; y"]
