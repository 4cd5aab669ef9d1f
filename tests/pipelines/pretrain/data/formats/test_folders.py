from pathlib import Path

import pytest

from pipelines.pretrain.data.formats.folders import classes_of_parts, read_folders
from pipelines.pretrain.data.formats.radimagenet import radimagenet_classes, read_radimagenet
from pipelines.pretrain.data.index import modality_of
from tests.bad_inputs import labelled_images as museum
from tests.bad_inputs.dicoms import still
from vision_core.errors import DataError, Findings


def test_read_folders__sorted_by_class_and_file_with_modalities(tmp_path: Path) -> None:
    findings = Findings()
    found = read_folders(museum.folders(tmp_path), "val", findings)
    assert [entry.name for entry in found[:3]] == [
        "val/CT__abd__normal/0.png",
        "val/CT__abd__normal/1.png",
        "val/MR__knee__tear/0.png",
    ]
    assert [entry.modality for entry in found] == ["CT", "CT", "MR", "MR", "US", "US"]
    assert not findings.notes
    assert not findings.problems


def test_read_folders__other_and_hidden_files_are_not_used(tmp_path: Path) -> None:
    root = museum.folders(tmp_path)
    for name in ("train/README.md", f"train/{museum.CLASSES[0]}/notes.txt", f"train/{museum.CLASSES[0]}/.hidden.png"):
        (root / name).touch()
    findings = Findings()
    assert len(read_folders(root, "train", findings)) == 6
    assert findings.notes == (
        "files .txt, no images, not used: 1 (notes.txt)",
        "files beside the class folders, not used: 1 (train/README.md)",
    )


def test_read_folders__dicom_series_at_any_depth_without_suffix(tmp_path: Path) -> None:
    for name in ("train/liver/study/series/IM0001", "train/liver/a.dcm", "train/lung/DICOMDIR", "train/lung/x/IM1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        still(tmp_path / name)
    found = read_folders(tmp_path, "train", Findings(), at_any_depth=True)
    assert [entry.name for entry in found] == [
        "train/liver/a.dcm",
        "train/liver/study/series/IM0001",
        "train/lung/x/IM1",
    ]


def test_read_folders__a_class_of_dicom_files_names_the_format(tmp_path: Path) -> None:
    (tmp_path / "train" / "liver").mkdir(parents=True)
    still(tmp_path / "train" / "liver" / "a.DCM")
    findings = Findings()
    read_folders(tmp_path, "train", findings)
    assert findings.problems == ("class folder 'liver' holds no image but files .dcm. Use data.format=dicom.",)


def test_classes_of_parts(tmp_path: Path) -> None:
    root = museum.folders(tmp_path, {"train": {"a": 1, "b": 1}, "test": {"b": 1}})
    assert classes_of_parts(root, "train") == {"train": {"a", "b"}, "test": {"b"}}


@pytest.mark.parametrize("root_is_inner", [False, True])
def test_read_radimagenet__native_layout_becomes_training_classes(root_is_inner: bool, tmp_path: Path) -> None:
    root = museum.radimagenet(tmp_path / "radiology_ai")
    if not root_is_inner:  # lists and folders side by side, the folders under the name that the lists give
        for path in root.glob("*.csv"):
            path.rename(tmp_path / path.name)
        root = tmp_path
    found = read_radimagenet(root, "train", Findings(), skip_missing=False)
    assert {entry.label for entry in found} == set(museum.CLASSES)
    assert [entry.modality for entry in found] == ["CT", "CT", "MR", "MR", "US", "US"]
    assert all((root / entry.name).is_file() for entry in found)
    assert set(radimagenet_classes(root, "train")) == {"train", "val", "test"}


def test_read_radimagenet__paths_that_are_none_of_its(tmp_path: Path) -> None:
    root = museum.radimagenet(tmp_path)
    names = ["radiology_ai/CT/normal.png", "radiology_ai/XR/abd/normal/a.png", "radiology_ai/CT/../CT/abd/n/a.png"]
    museum.rows([{"filename": name} for name in names], root / "RadiologyAI_train.csv")
    findings = Findings()
    assert read_radimagenet(root, "train", findings, skip_missing=False) == []
    assert len(findings.problems) == 3


def test_read_radimagenet__an_ultrasound_file_is_not_known_by_a_substring(tmp_path: Path) -> None:
    museum.picture(tmp_path / "CT" / "abd" / "US-like" / "US1.png", ())
    museum.rows([{"filename": "x\\CT\\abd\\US-like\\US1.png"}], tmp_path / "RadiologyAI_train.csv")
    (found,) = read_radimagenet(tmp_path, "train", Findings(), skip_missing=False)
    assert (found.label, found.modality) == ("CT__abd__US-like", "CT")


def test_read_folders__no_such_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds 'test/', 'train/', 'val/'\. Correct data\.root or data\.split"):
        read_folders(museum.folders(tmp_path), "validation", Findings())


def test_modality_of() -> None:
    assert [modality_of(name) for name in ("CT__abd__x", "US__thyroid", "CT", "XR__hand")] == ["CT", "US", "", ""]


def test_read_radimagenet__a_file_that_is_listed_twice_is_used_once(tmp_path: Path) -> None:
    root = museum.radimagenet(tmp_path)
    lines = museum.read_rows(root / "RadiologyAI_train.csv")
    museum.rows([*lines, lines[0]], root / "RadiologyAI_train.csv")
    findings = Findings()
    found = read_radimagenet(root, "train", findings, skip_missing=False)
    assert len({entry.name for entry in found}) == len(found) == 6
    assert findings.notes == ("files listed more than once, used once: 1 (CT/abd/normal/train0.png)",)


@pytest.mark.parametrize("above", ["us", "ct", "MR"])
def test_read_radimagenet__folders_above_may_have_the_name_of_a_modality(above: str, tmp_path: Path) -> None:
    root = museum.radimagenet(tmp_path / above / "radiology_ai")
    lines = museum.read_rows(root / "RadiologyAI_train.csv")
    absolute = [{"filename": str(tmp_path / above / line["filename"])} for line in lines]
    museum.rows(absolute, root / "RadiologyAI_train.csv")
    findings = Findings()
    found = read_radimagenet(root, "train", findings, skip_missing=False)
    assert {entry.label for entry in found} == set(museum.CLASSES)
    assert not findings.problems
