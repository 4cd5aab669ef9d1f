from pathlib import Path

import pytest

from vision_core.csv_tables import read_csv, unquoted
from vision_core.errors import DataError


def _path(folder: Path, content: bytes) -> Path:
    (folder / "table.csv").write_bytes(content)
    return folder / "table.csv"


def _is_column(cell: str) -> bool:
    return cell.strip() in {"name", "value"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_read_csv__encodings_and_separators(separator: str, encoding: str, tmp_path: Path) -> None:
    content = f"name{separator} value\r\n\r\nä{separator}1.5\r\n".encode(encoding)
    table = read_csv(_path(tmp_path, content), _is_column)
    assert table.separator == separator
    assert list(table.numbered) == [(1, ["name", "value"]), (3, ["ä", "1.5"])]


def test_read_csv__known_columns_outweigh_the_number_of_cells(tmp_path: Path) -> None:
    table = read_csv(_path(tmp_path, b"name;value, mean, in m\na;1\n"), lambda cell: cell == "name")
    assert table.separator == ";"


def test_read_csv__a_declared_separator_is_no_row(tmp_path: Path) -> None:
    table = read_csv(_path(tmp_path, b"sep=;\nname;value\n"), _is_column)
    assert list(table.numbered) == [(2, ["name", "value"])]


def test_read_csv__no_row_at_all(tmp_path: Path) -> None:
    assert not list(read_csv(_path(tmp_path, b"\n , \n"), _is_column).numbered)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"na\xefme,value\n", "is not text in UTF-8: byte '2' of 12"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"PK\x03\x04\x00\x00", "has null characters"),
        (b'name,value\n"a,b\n', "is not a CSV: unexpected end of data"),
    ],
)
def test_read_csv__not_a_table(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(read_csv(_path(tmp_path, content), _is_column).numbered)


def test_unquoted__takes_off_what_guards_against_formulas_and_nothing_else() -> None:
    assert unquoted("'=1+1") == "=1+1"
    assert unquoted("'quoted'") == "'quoted'"
