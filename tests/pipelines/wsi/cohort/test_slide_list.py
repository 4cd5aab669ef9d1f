"""A CSV of slides to be classified."""

from pathlib import Path

import pytest

from pipelines.wsi.cohort.slide_list import read_slide_list, stated_mpps
from vision_core.errors import DataError
from vision_core.slides.identity import identity


def _folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _list(root: Path, *lines: str) -> Path:
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root / "list.csv"


def test_listed_slides__paths_and_names_in_the_order_of_the_list(tmp_path: Path) -> None:
    _folder(tmp_path, "b.svs", "deep/a.tif", "other/c.svs")
    path = _list(tmp_path, "slide,comment", "a,first", "other/c.svs,", f"{tmp_path / 'b.svs'},", "a.tif,again")
    assert read_slide_list(path).slides == (tmp_path / "deep/a.tif", tmp_path / "other/c.svs", tmp_path / "b.svs")


def test_listed_slides__a_missing_file_stays_and_will_fail(tmp_path: Path) -> None:
    found = read_slide_list(_list(_folder(tmp_path, "a.svs"), "slide;mpp", "a;0,5", "gone.svs;"))
    assert found.slides == (tmp_path / "a.svs", tmp_path / "gone.svs")


def test_listed_slides__every_problem_with_its_row(tmp_path: Path) -> None:
    _folder(tmp_path, "x/a.svs", "y/a.svs", "b.svs")
    with pytest.raises(DataError) as caught:
        read_slide_list(_list(tmp_path, "slide,mpp", "a,", "b,25400", ",0.5"))
    told = "\n".join(caught.value.problems)
    assert "row 2: slide 'a' fits 2 files" in told
    assert "row 3: mpp '25400' is not between" in told
    assert "row 4 names no slide" in told


def test_stated_mpps__by_identity_and_none_without_a_list(tmp_path: Path) -> None:
    _folder(tmp_path, "deep/a.svs", "a.svs")
    path = _list(tmp_path, "slide,mpp,label", "deep/a.svs,0.25,x", "b,,y", "./a.svs,0.5,x")
    assert stated_mpps(path) == {identity(tmp_path / "deep/a.svs"): 0.25, identity(tmp_path / "a.svs"): 0.5}
    assert stated_mpps(tmp_path / "none.csv") == {}
    assert stated_mpps(None) == {}
    (tmp_path / "strange.csv").write_bytes(b"\0\1")
    assert stated_mpps(tmp_path / "strange.csv") == {}
