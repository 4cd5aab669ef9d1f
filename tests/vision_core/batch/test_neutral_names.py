"""Neutral names: what the map keeps, and what a reader finds beside a link."""

import csv
from pathlib import Path

import pytest

from tests.bad_inputs import dicoms
from vision_core.batch.neutral_names import neutral_inputs
from vision_core.errors import UsageError


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "Quill" / name for name in ("Zaphod.png", "=Ada,\n1815.nii.gz", "Émile.svs")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_text(path.name)
    return paths


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "apart" / "map.csv"


def rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.reader(text))


def test_neutral_inputs__links_have_numbers_and_the_map_is_for_its_owner(inputs: list[Path], file: Path) -> None:
    with neutral_inputs(inputs, file, file.parent / "out") as links:
        assert [link.name for link in links] == ["case-0001.png", "case-0002.nii.gz", "case-0003.svs"]
        assert [link.read_text() for link in links] == [path.name for path in inputs]
        assert "Quill" not in str(links[0].relative_to(file.parent))
        assert links[0].parent.stat().st_mode & 0o777 == 0o700
    assert not links[0].parent.parent.exists() and all(path.exists() for path in inputs)
    assert file.stat().st_mode & 0o777 == 0o600
    assert rows(file) == [["case", "input"], *([f"case-000{n}", str(path)] for n, path in enumerate(inputs, start=1))]


def test_neutral_inputs__known_inputs_keep_their_numbers(inputs: list[Path], file: Path, tmp_path: Path) -> None:
    with neutral_inputs(inputs[1:], file, tmp_path / "out") as before:
        pass
    before_rows = rows(file)
    with neutral_inputs(inputs, file, tmp_path / "out") as links:
        assert links[1:] == before
        assert links[0].name == "case-0003.png"
    assert rows(file)[:3] == before_rows


def test_neutral_inputs__what_lies_beside_an_input_lies_beside_its_link(tmp_path: Path, file: Path) -> None:
    folder = tmp_path / "Quill"
    (folder / "Zaphod").mkdir(parents=True)
    (folder / "Zaphod" / "Slidedat.ini").write_text("parts")
    (folder / "Zaphod.mrxs").touch()
    (folder / "_Ada_").mkdir()
    (folder / "Ada.vsi").touch()
    dicoms.still(folder / "Mueller.Hans")
    (folder / "instance-2.dcm").touch()
    given = [folder / "Zaphod.mrxs", folder / "Ada.vsi", folder / "Mueller.Hans"]
    with neutral_inputs(given, file, tmp_path / "out") as links:
        beside = {path.name for path in links[0].parent.iterdir()}
        assert [link.name for link in links] == ["case-0001.mrxs", "case-0002.vsi", "case-0003.dcm"]
        assert beside == {*(link.name for link in links), "case-0001", "_case-0002_", "instance-2.dcm"}
        assert (links[0].with_suffix("") / "Slidedat.ini").read_text() == "parts"


@pytest.mark.parametrize(
    "content", ["", "a,b\n", "case,input\ncase-1,/a\n", "case,input\ncase-0001,/a\ncase-0001,/b\n"]
)
def test_neutral_inputs__a_file_that_is_no_map_is_not_replaced(content: str, inputs: list[Path], file: Path) -> None:
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(UsageError, match="it is not replaced"), neutral_inputs(inputs, file, file.parent / "out"):
        pass
    assert file.read_text() == content


def test_neutral_inputs__the_map_lies_apart_and_is_used_by_one_batch(inputs: list[Path], file: Path) -> None:
    with pytest.raises(UsageError, match="keep apart"), neutral_inputs(inputs, file, file.parent):
        pass
    with neutral_inputs(inputs, file, file.parent / "out") as links:
        with pytest.raises(UsageError, match="Another process"), neutral_inputs(inputs, file, file.parent / "out"):
            pass
        assert links[0].exists()


def test_neutral_inputs__links_of_a_killed_process_are_replaced_and_nothing_else_is_removed(
    inputs: list[Path], file: Path
) -> None:
    old = file.parent / ".map.csv.links" / "1"
    old.mkdir(parents=True)
    (old / "case-0001.png").symlink_to(inputs[2])
    with neutral_inputs(inputs, file, file.parent / "out") as links:
        assert links[0].read_text() == "Zaphod.png"
        (own := links[0].parent / "own.txt").write_text("kept")
    assert own.read_text() == "kept"
