from pathlib import Path

import pytest

from pipelines.wsi.cohort.csv_table import read_table, refuse
from vision_core.errors import DataError


def _table(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_read_table__separators_and_line_ends(separator: str, end: str, tmp_path: Path) -> None:
    lines = [separator.join(cells) for cells in (["slide", "label"], ["a", "x"], ["b, really", "y"])]
    if separator == ",":
        lines[2] = '"b, really",y'
    table = read_table(_table(tmp_path, end.join(lines) + end))
    assert [(row.number, row.value("slide"), row.value("label")) for row in table.rows] == [
        (2, "a", "x"),
        (3, "b, really", "y"),
    ]
    assert not table.problems


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_read_table__byte_order_marks(encoding: str, tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "slide\tlabel\nÄrzte-1\tgut\n".encode(encoding)))
    assert table.rows[0].cells == {"slide": "Ärzte-1", "label": "gut"}


def test_read_table__excel_says_its_separator(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "sep=;\nslide;label\na;x\n"))
    assert [(row.number, row.value("slide")) for row in table.rows] == [(3, "a")]


def test_read_table__rows_are_counted_as_a_spreadsheet_does(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, 'slide,label\n\na,"two\nlines"\n,\nb,x\n'))
    assert [(row.number, row.value("slide")) for row in table.rows] == [(3, "a"), (5, "b")]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("ID,Label,Split", ("slide", "label", "split")),
        ("case_id,slide_id,label", ("patient", "slide", "label")),
        ("Case,ID,Label,Split", ("patient", "slide", "label", "split")),
        ("Slide ID,LABEL,Patient-ID", ("slide", "label", "patient")),
    ],
)
def test_read_table__columns_of_others(header: str, columns: tuple[str, ...], tmp_path: Path) -> None:
    assert read_table(_table(tmp_path, f"{header}\n{','.join('1' * len(columns))}\n")).columns == columns


def test_read_table__without_header(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "tumor_020,1\nnormal_052,0\n"))
    assert table.columns == ("slide", "label")
    assert [(row.number, row.value("slide")) for row in table.rows] == [(1, "tumor_020"), (2, "normal_052")]


def test_read_table__blank_columns_behind_the_last_are_none(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "slide,label,,\na,x,,\nb,y\nc,x,,note\n"))
    assert table.columns == ("slide", "label")
    assert [row.value("slide") for row in table.rows] == ["a", "b"]
    assert table.problems == ("row 4 has '4' cells, the first row '2'. Complete it.",)


def test_read_table__a_column_without_a_name(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, ",slide,label\n0,a,x\n"))
    assert table.problems == ("row 1: column 1 has no name. Name or remove it.",)


def test_read_table__problems_of_the_header_and_of_rows_together(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "slide,slide_id,lable,age\na,b,c,4\na,b\n"))
    assert [problem.partition(".")[0] for problem in table.problems] == [
        "row 1: columns 'slide, slide_id' are all 'slide'",
        "row 1: column 'lable' is not known; did you mean 'label'? Rename it",
        "row 1: column 'age' is not known; there are slide, label, patient, split, fold, mpp",
        "row 3 has '2' cells, the first row '4'",
    ]


def test_read_table__other_columns_on_request(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "slide,age,label\na,4,x\n"), others=True)
    assert not table.problems
    assert table.rows[0].cells == {"slide": "a", "label": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"sl\xefde,label\n", "is not text in UTF-8: byte '2' of 12"),
        (b"PK\x03\x04\x00\x00", "has null characters"),
        (b'slide,label\n"a,b\n', "is not a CSV"),
    ],
)
def test_read_table__not_a_table(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_table(_table(tmp_path, content))


def test_read_table__header_alone_is_a_problem(tmp_path: Path) -> None:
    assert read_table(_table(tmp_path, "slide,label\n")).problems == (
        "has a header and no row. Add one row per slide.",
    )


def test_read_table__no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)


def test_value__what_stands_for_nothing_is_nothing(tmp_path: Path) -> None:
    rows = read_table(_table(tmp_path, "slide,label\na,NaN\nb,N/A\nc,none\nd,x\n")).rows
    assert [row.value("label") for row in rows] == ["", "", "", "x"]


def test_read_table__the_apostrophe_before_a_formula_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert read_table(_table(tmp_path, "slide,label\n'-7,x\n")).rows[0].value("slide") == "-7"


def test_refuse__many_problems_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        refuse(Path("l.csv"), [f"row {number}: bad" for number in range(60)])
    assert len(caught.value.problems) == 51
    assert caught.value.problems[0] == "'l.csv': row 0: bad"
    assert caught.value.problems[-1] == "'l.csv' has '60' problems in all."
