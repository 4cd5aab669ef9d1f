from pathlib import Path

import pytest

from pipelines.pretrain.data.formats.csv_lists import labels_of_parts, read_table, spelled
from tests.bad_inputs import labelled_images as museum
from vision_core.errors import DataError, Findings


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("CT\\abd\\a.png", "CT/abd/a.png"),
        ("C:\\data\\a.png", "/data/a.png"),
        ("\\\\server\\share\\a.png", "/server/share/a.png"),
        ("./a//b.png ", "a/b.png"),
        ('"a b.png"', "a b.png"),
    ],
)
def test_spelled(text: str, path: str) -> None:
    assert spelled(text) == path


def test_read_table__columns_of_a_list(tmp_path: Path) -> None:
    found, missing = read_table(museum.table(tmp_path), "val", "", Findings())
    assert not missing
    assert found[1] == ("scans/val1.png", "liver", "CT", "val-1")


def test_read_table__a_file_per_list_is_taken_first(tmp_path: Path) -> None:
    root = museum.table(tmp_path)
    museum.rows([{"filename": "scans/test0.png", "label": "x"}], root / "val.csv")
    found, _ = read_table(root, "val", "", Findings())
    assert [entry.label for entry in found] == ["x"]
    found, _ = read_table(root, "val", "{split}.csv", Findings())
    assert [entry.label for entry in found] == ["x"]
    found, _ = read_table(root, "val", "labels.csv", Findings())
    assert len(found) == 3


def test_read_table__marks_capitals_and_column_order_do_not_matter(tmp_path: Path) -> None:
    museum.picture(tmp_path / "a.png", ())
    (tmp_path / "train.csv").write_text("\ufeffLabel, Filename\nlung,a.png\n", encoding="utf-8")
    found, _ = read_table(tmp_path, "train", "", Findings())
    assert found[0][:2] == ("a.png", "lung")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_read_table__marks_of_other_countries(mark: str, tmp_path: Path) -> None:
    museum.picture(tmp_path / "a,b.png", ())
    (tmp_path / "train.csv").write_text(f"filename{mark}label\na,b.png{mark}lung\n")
    found, _ = read_table(tmp_path, "train", "", Findings())
    assert found[0][:2] == ("a,b.png", "lung")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_read_table__unicode_text_of_a_spreadsheet(encoding: str, tmp_path: Path) -> None:
    museum.picture(tmp_path / "ä.png", ())
    (tmp_path / "train.csv").write_bytes("filename\tlabel\r\n\r\nä.png\tlung\r\n".encode(encoding))
    found, _ = read_table(tmp_path, "train", "", Findings())
    assert found[0][:2] == ("ä.png", "lung")


def test_read_table__a_quote_that_does_not_end(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('filename,label\n"a.png,lung\nb.png,liver\n')
    with pytest.raises(DataError, match="is not a CSV: unexpected end of data"):
        read_table(tmp_path, "train", "", Findings())


def test_read_table__one_file_for_all_lists_is_told(tmp_path: Path) -> None:
    museum.picture(tmp_path / "a.png", ())
    museum.rows([{"filename": "a.png", "label": "lung"}], tmp_path / "labels.csv")
    findings = Findings()
    read_table(tmp_path, "val", "", findings)
    assert findings.notes == ("'labels.csv' has no column 'split': every list read from it is all of it",)


def test_read_table__contradictions_are_problems_and_repeats_are_noted(tmp_path: Path) -> None:
    root = museum.table(tmp_path)
    lines = museum.read_rows(root / "labels.csv")
    museum.rows([*lines, lines[0], {**lines[1], "label": "lung"}, {**lines[2], "label": ""}], root / "labels.csv")
    findings = Findings()
    found, _ = read_table(root, "train", "", findings)
    assert len(found) == 3
    assert findings.notes == ("files listed more than once, used once: 1 (scans/train0.png)",)
    assert "'scans/train1.png' is listed as 'liver' and as 'lung'" in findings.problems[0]
    assert "'scans/train2.png' has no label" in findings.problems[1]


def test_read_table__no_way_out_of_the_root(tmp_path: Path) -> None:
    museum.picture(tmp_path / "outside.png", ())
    (tmp_path / "set").mkdir()
    museum.rows([{"filename": "../outside.png", "label": "a"}], tmp_path / "set" / "train.csv")
    found, missing = read_table(tmp_path / "set", "train", "", Findings())
    assert (found, missing) == ([], ["../outside.png"])


def test_read_table__lacks_a_column(tmp_path: Path) -> None:
    museum.rows([{"file": "a.png", "class": "a"}], tmp_path / "train.csv")
    with pytest.raises(DataError, match="lacks the column 'filename, label'; it has 'file, class'"):
        read_table(tmp_path, "train", "", Findings())


def test_read_table__no_text(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"\x89PNG\x00\x81filename")
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_table(tmp_path, "train", "", Findings())


def test_read_table__nothing_of_the_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lists no image of 'validation'"):
        read_table(museum.table(tmp_path), "validation", "", Findings())


def test_labels_of_parts(tmp_path: Path) -> None:
    assert labels_of_parts(museum.table(tmp_path), "train", "", ("val", "other")) == {
        "train": {"lung", "liver"},
        "val": {"lung", "liver"},
    }


def test_read_table__rows_of_no_list_are_noted(tmp_path: Path) -> None:
    root = museum.table(tmp_path)
    lines = museum.read_rows(root / "labels.csv")
    splits = ("train", "Train", "", *(line["split"] for line in lines[3:]))
    museum.rows([{**line, "split": split} for line, split in zip(lines, splits, strict=True)], root / "labels.csv")
    findings = Findings()
    found, _ = read_table(root, "train", "", findings)
    assert len(found) == 1
    assert findings.notes == ("rows of lists other than train, val, test: 2 (Train, no list)",)
