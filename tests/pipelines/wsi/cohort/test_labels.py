from pathlib import Path

import pytest

from pipelines.wsi.cohort.labels import read_labels, tcga_case
from tests.pipelines.wsi.lists import labelled, write_list
from vision_core.errors import ConfigError, DataError


def test_read_labels__ours(tmp_path: Path) -> None:
    labels = labelled(
        tmp_path, ["slide,label,patient,split,fold,mpp", "a.svs,tumor,p,Train,0,0.25", "b,normal,q,test,1.0,"]
    )
    first, second = labels.slides
    assert (first.slide, first.patient, first.label, first.split, first.fold, first.mpp) == (
        "a",
        "p",
        1,
        "train",
        0,
        0.25,
    )
    assert (second.row, second.slide, second.label, second.fold, second.mpp) == (3, "b", 0, 1, None)
    assert labels.classes == ("normal", "tumor")
    assert "classes and their numbers of slides: 0 is 'normal' (1), 1 is 'tumor' (1)" in labels.notes


def test_read_labels__first_code_generation(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["tumor_020,1", "normal_052,0"], ("normal", "tumor"))
    assert [(slide.slide, slide.label, slide.patient) for slide in labels.slides] == [
        ("tumor_020", 1, "tumor_020"),
        ("normal_052", 0, "normal_052"),
    ]
    assert "labels and the classes they name: 0 is 'normal', 1 is 'tumor'" in labels.notes


def test_read_labels__second_code_generation(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["ID,Label,Split", "TCGA-05-4244,LUSC,Train", "TCGA-18-3406,LUAD,Val"])
    assert labels.classes == ("LUAD", "LUSC")
    assert [slide.split for slide in labels.slides] == ["train", "val"]
    assert "no column 'patient': the TCGA case of each slide is its patient" in labels.notes


@pytest.mark.parametrize(
    ("found", "classes"),
    [
        (("macro", "Normal", "micro"), ("Normal", "macro", "micro")),
        (("ILC", "DCIS", "IDC"), ("IDC", "DCIS", "ILC")),
        (("10", "2", "1"), ("1", "2", "10")),
        (("1.0", "0"), ("0", "1")),
        (("01", "1", "00"), ("0", "1")),
        (("b", "a"), ("a", "b")),
    ],
)
def test_read_labels__order_of_classes(found: tuple[str, ...], classes: tuple[str, ...], tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", *(f"s{place},{label}" for place, label in enumerate(found))])
    assert labels.classes == classes


def test_read_labels__given_classes_win(tmp_path: Path) -> None:
    rows = ["slide,label", "a,normal", "b,tumor"]
    assert [slide.label for slide in labelled(tmp_path, rows, ("tumor", "normal", "other")).slides] == [1, 0]
    with pytest.raises(DataError, match=r"row 3: label 'tumor' is none of the classes 'normal, cancer'"):
        labelled(tmp_path, rows, ("normal", "cancer"))


def test_read_labels__numbers_beyond_the_given_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3: label '2' is none of the classes"):
        labelled(tmp_path, ["slide,label", "a,0", "b,2"], ("normal", "tumor"))


def test_read_labels__one_class_is_enough_where_classes_are_given(tmp_path: Path) -> None:
    rows = ["slide,label", "a,tumor"]
    assert labelled(tmp_path, rows, ("normal", "tumor")).slides[0].label == 1
    with pytest.raises(DataError, match="every label is 'tumor'"):
        labelled(tmp_path, rows)


def test_read_labels__all_problems_at_once_with_their_rows(tmp_path: Path) -> None:
    rows = ["slide,label,patient,fold,mpp", "a,x,p,0,0", ",y,p,0,", "c,nan,p,0,", "d,x,,one,", "a,x,p,0,", "e/f,y,p,0,"]
    with pytest.raises(DataError) as caught:
        labelled(tmp_path, rows)
    told = [problem.split("': ", 1)[1] for problem in caught.value.problems]
    assert [each.partition(".")[0] for each in told] == [
        "row 2: mpp '0' is not between 0",
        "row 3 names no slide",
        "row 4: slide 'c' has no label (found 'nan')",
        "row 5: slide 'd' has no patient",
        "row 5: fold 'one' is not a number from 0 on",
        "row 6: slide 'a' stands in row 2 already",
    ]


def test_read_labels__numbers_among_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 4: label '1' among labels such as 'tumor'"):
        labelled(tmp_path, ["slide,label", "a,tumor", "b,normal", "c,1"])


def test_read_labels__same_class_in_two_spellings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3: label 'Tumor' differs from 'tumor' in case, blanks or hyphens alone"):
        labelled(tmp_path, ["slide,label", "a,tumor", "b,Tumor", "c,normal"])


def test_read_labels__a_measurement_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3: label '0\.37' is no class"):
        labelled(tmp_path, ["slide,label", "a,1", "b,0.37"])


def test_read_labels__names_keep_their_zeros(tmp_path: Path) -> None:
    assert [slide.slide for slide in labelled(tmp_path, ["slide,label", "007,a", "7,b"]).slides] == ["007", "7"]


def test_read_labels__decimal_comma(tmp_path: Path) -> None:
    assert labelled(tmp_path, ["slide;label;mpp", "s;a;0,25", "t;b;"]).slides[0].mpp == 0.25


def test_read_labels__no_label_column(tmp_path: Path) -> None:
    path = write_list(tmp_path, ["Study,ID,Event,Status,WSI", "x,y,3,1,z"])
    with pytest.raises(DataError, match="no column 'label'"):
        read_labels(path)


@pytest.mark.parametrize("classes", [("tumor",), ("a", "b", "a")])
def test_read_labels__classes_that_cannot_be(classes: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes"):
        labelled(tmp_path, ["slide,label", "a,a"], classes)


def test_tcga_case__twelve_characters_of_a_barcode_alone() -> None:
    assert tcga_case("TCGA-05-4244-01Z-00-DX1") == "TCGA-05-4244"
    assert tcga_case("TCGA-05-4244") == "TCGA-05-4244"
    assert tcga_case("TCGA-05-42445") is None
    assert tcga_case("slide-TCGA-05-4244") is None
