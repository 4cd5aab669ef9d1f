from pathlib import Path

import pytest

from pipelines.wsi.cohort.file_matching import list_features, match_all, match_files
from tests.pipelines.wsi.lists import labelled
from vision_core.errors import DataError

UUID = "d4ff32cd-38cf-40ea-8213-45c2b100ac01"


def _files(*names: str) -> list[Path]:
    return [Path("features", name) for name in names]


def test_match_files__by_full_names_only(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label,mpp", "tumor_1,t,0.25", "tumor_11,n,"])
    records = match_files(labels, _files("tumor_11.h5", "tumor_1.h5"), "refuse").records
    assert [(each.slide, each.path.name, each.label, each.mpp, each.place) for each in records] == [
        ("tumor_1", "tumor_1.h5", 1, 0.25, 0),
        ("tumor_11", "tumor_11.h5", 0, None, 1),
    ]


def test_match_files__a_case_stands_for_all_of_its_slides(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["TCGA-05-4244,LUAD", "TCGA-18-3406,LUSC"], ("LUAD", "LUSC"))
    names = (f"TCGA-05-4244-01Z-00-DX1.{UUID}", "TCGA-05-4244-01Z-00-DX2.x", "TCGA-18-3406-01Z-00-DX1.x")
    records = match_files(labels, _files(*(f"{name}.pt" for name in names)), "refuse").records
    assert [(each.slide, each.patient, each.label, each.place) for each in records] == [
        (names[0], "TCGA-05-4244", 0, 0),
        (names[1], "TCGA-05-4244", 0, 0),
        (names[2], "TCGA-18-3406", 1, 1),
    ]


def test_match_files__a_barcode_may_leave_out_what_follows_its_dot(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "TCGA-05-4244-01Z-00-DX1,a", "TCGA-18-3406-01Z-00-DX1,b"])
    one = _files(f"TCGA-05-4244-01Z-00-DX1.{UUID}.svs", "TCGA-18-3406-01Z-00-DX1.x.svs")
    assert len(match_files(labels, one, "refuse").records) == 2
    with pytest.raises(DataError, match=r"row 2: slide 'TCGA-05-4244-01Z-00-DX1' fits '2' files"):
        match_files(labels, [*one, *_files("TCGA-05-4244-01Z-00-DX1.other.svs")], "refuse")


def test_match_files__a_case_is_not_a_part_of_another_name(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "TCGA-05-4244,a", "other,b"])
    with pytest.raises(DataError, match="slide 'TCGA-05-4244' has no file"):
        match_files(labels, _files("copy-of-TCGA-05-4244.h5", "TCGA-05-42441-01.h5", "other.h5"), "refuse")


def test_match_files__two_rows_for_one_file(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "TCGA-05-4244,a", "TCGA-05-4244-01Z-00-DX1,b"])
    with pytest.raises(DataError, match="rows 2 and 3 both stand for the file of 'TCGA-05-4244-01Z-00-DX1'"):
        match_files(labels, _files("TCGA-05-4244-01Z-00-DX1.h5"), "refuse")


def test_match_files__same_slide_in_two_folders(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "a,x", "b,y"])
    paths = [Path("one/a.h5"), Path("two/a.h5"), Path("one/b.h5")]
    for on_missing in ("refuse", "drop"):
        with pytest.raises(DataError, match=r"row 2: slide 'a' is there more than once: 'one/a\.h5', 'two/a\.h5'"):
            match_files(labels, paths, on_missing)


def test_match_files__rows_and_files_that_are_alone_are_all_told(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "a,x", "b,y", "7,x"])
    with pytest.raises(DataError) as caught:
        match_files(labels, _files("a.h5", "c.h5", "007.h5"), "refuse")
    told = [problem.split("': ", 1)[1] for problem in caught.value.problems]
    assert told == [
        "row 3: slide 'b' has no file. Remove the row, or set data.on_missing=drop.",
        "row 4: slide '7' has no file; did you mean '007' (spreadsheets drop leading zeros)? Correct it, or set "
        "data.on_missing=drop.",
        "'2' files have no row: 007, c. Add rows for them, or set data.on_missing=drop to leave them out.",
    ]


def test_match_files__only_the_first_of_many_rows_are_searched_for_a_name_like_theirs(tmp_path: Path) -> None:
    rows = ["slide,label", "there,a", *(f"slide-{number:03d},{'ab'[number % 2]}" for number in range(60))]
    files = _files("there.h5", *(f"slide_{number:03d}.h5" for number in range(60)))
    _, problems = match_all(labelled(tmp_path, rows), files, "refuse")
    of_rows = [problem for problem in problems if "has no file" in problem]
    assert ["did you mean 'slide_" in problem for problem in of_rows] == [True] * 50 + [False] * 10


def test_match_files__dropped_on_request_and_told(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "a,x", "b,y"])
    matched = match_files(labels, _files("b.h5", "c.h5"), "drop")
    assert [(each.slide, each.place) for each in matched.records] == [("b", 1)]
    assert matched.notes == (
        "labelled slides without a file, left out: 1 (a)",
        "files without a label, left out: 1 (c)",
    )


def test_match_files__nothing_fits(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "a,x", "b,y"])
    for on_missing in ("refuse", "drop"):
        with pytest.raises(DataError, match=r"none of its '2' slides \(a, b\) has a file; there are '1' files, of 'c'"):
            match_files(labels, _files("c.h5"), on_missing)


def test_list_features__all_kinds_below_and_nothing_hidden(tmp_path: Path) -> None:
    names = ["a.h5", "deep/b.pt", "c.NPY", "d.adopted.json", "deep/readme.txt", ".partial-1.h5", ".trash/e.h5"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in list_features(tmp_path)] == sorted(names[:4])


def test_list_features__none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        list_features(tmp_path / "none")
    (tmp_path / "a.svs").touch()
    with pytest.raises(DataError, match=r"holds no feature files .*; it holds \.svs"):
        list_features(tmp_path)


def test_match_files__ends_of_paths_tell_slides_of_one_name_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/x.tif", "b/x.tif", "b/y.svs", "b/y.tif")]
    labels = labelled(tmp_path, ["slide,label", "a/x,u", "b\\x.tif,v", "y.svs,u", f"{tmp_path}/b/y.tif,v"])
    found = match_files(labels, paths, "refuse").records
    assert [(record.slide, record.path) for record in found] == [
        ("a/x", paths[0]), ("b/x", paths[1]), ("y", paths[2]), (f"{tmp_path}/b/y", paths[3])
    ]  # fmt: skip
    with pytest.raises(DataError, match="row 2: slide 'x' is there more than once"):
        match_files(labelled(tmp_path, ["slide,label", "x,u", "b/y.svs,v"]), paths[:3], "refuse")


def test_match_files__features_may_keep_the_suffix_of_their_slide(tmp_path: Path) -> None:
    paths = [tmp_path / "x.svs.h5", tmp_path / "y.h5"]
    found = match_files(labelled(tmp_path, ["slide,label", "x,u", "y.tif,v"]), paths, "refuse").records
    assert [(record.slide, record.path) for record in found] == [("x", paths[0]), ("y", paths[1])]
