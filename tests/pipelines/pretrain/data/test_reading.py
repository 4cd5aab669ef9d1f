from pathlib import Path

import numpy as np
import pytest

from pipelines.pretrain.data.checks.duplicates import content_hash
from pipelines.pretrain.data.reading import prepare_images, read_classes, read_images, write_classes
from pipelines.pretrain.data.splits import manifest
from pipelines.pretrain.data_settings import PretrainData
from tests.bad_inputs import labelled_images as museum
from tests.bad_inputs.dicoms import ramp, still
from vision_core.errors import ConfigError, DataError


def _data(root: Path | None, **changes: object) -> PretrainData:
    return PretrainData.model_validate({"root": root, "cache": None, **changes})


def test_read_images__native_and_training_layout_of_radimagenet_have_the_same_classes(tmp_path: Path) -> None:
    native = read_images(_data(museum.radimagenet(tmp_path / "native"), format="radimagenet"), "train")
    training = read_images(_data(museum.folders(tmp_path / "training")), "train")
    assert native.classes == training.classes == museum.CLASSES
    assert native.labels.tolist() == training.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert native.modalities.tolist() == training.modalities.tolist()
    assert "3 classes; the whole RadImageNet has 165" in native.notes
    assert native.read(0).shape == (20, 24, 3)


def test_read_images__one_record_tells_all(tmp_path: Path) -> None:
    images = read_images(_data(museum.table(tmp_path), format="csv"), "val")
    assert images.classes == ("liver", "lung")
    record = images[1]
    assert (record.name, record.label, record.modality) == ("scans/val1.png", 0, "CT")
    assert record.path.is_file()
    assert record.patient != images[0].patient
    assert images.class_counts.tolist() == [1, 2]


def test_read_images__labels_that_are_numbers(tmp_path: Path) -> None:
    root = museum.table(tmp_path)
    lines = museum.read_rows(root / "labels.csv")
    numbers = {"lung": "10", "liver": "9"}
    museum.rows([{**line, "label": numbers[line["label"]]} for line in lines], root / "labels.csv")
    assert read_images(_data(root, format="csv"), "train").classes == ("9", "10")
    numbers = {"lung": "1", "liver": "0"}
    museum.rows([{**line, "label": numbers[line["label"]]} for line in lines], root / "labels.csv")
    named = read_images(_data(root, format="csv", classes=("liver", "lung")), "train")
    assert named.classes == ("liver", "lung")
    assert named.labels.tolist() == [1, 0, 1]


def test_read_images__dicom_tells_modality_and_patient(tmp_path: Path) -> None:
    for part, patient in (("train", "P1"), ("val", "P1"), ("val", "P2")):
        folder = tmp_path / part / "liver"
        folder.mkdir(parents=True, exist_ok=True)
        still(folder / f"{patient}.dcm", PatientID=patient)
    train, val = (read_images(_data(tmp_path, format="dicom"), part) for part in ("train", "val"))
    assert train[0].modality == "CT"
    assert train[0].patient == val[0].patient != val[1].patient


def test_read_images__a_cine_gives_its_first_frame_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train" / "liver").mkdir(parents=True)
    still(tmp_path / "train" / "liver" / "cine.dcm", np.stack([ramp(), 255 - ramp()]), NumberOfFrames=2)
    images = prepare_images(_data(tmp_path, format="dicom"), "train")
    np.testing.assert_array_equal(images.read(0)[..., 0], ramp())
    assert "files with several frames, of which the first is used: 1 (train/liver/cine.dcm)" in images.notes
    assert not caplog.text


def test_read_images__dicom_files_of_a_list(tmp_path: Path) -> None:
    for number in range(2):
        still(tmp_path / f"{number}.dcm", PatientID=str(number))
    lines = [{"filename": f"{number}.dcm", "label": f"class{number}", "modality": "MR"} for number in range(2)]
    museum.rows(lines, tmp_path / "list.csv")
    images = prepare_images(_data(tmp_path, format="dicom", labels="list.csv"), "train")
    assert images.labels.tolist() == [0, 1]
    assert images.modalities.tolist() == ["MR", "MR"]  # the list has it before the header
    assert images[0].patient != images[1].patient


def test_classes__frozen_order_wins_and_is_held(tmp_path: Path) -> None:
    root = museum.folders(tmp_path / "set")
    frozen = tmp_path / "classes.json"
    write_classes(frozen, museum.CLASSES[::-1])
    assert read_classes(frozen) == museum.CLASSES[::-1]
    images = read_images(_data(root, class_list=frozen), "train")
    assert images.classes == museum.CLASSES[::-1]
    assert images.labels.tolist() == [2, 2, 1, 1, 0, 0]
    write_classes(frozen, [*museum.CLASSES, "US__other"])
    with pytest.raises(DataError, match="'train' lacks '1' of 4 classes: US__other"):
        read_images(_data(root, class_list=frozen), "train")
    write_classes(frozen, museum.CLASSES[:2])
    with pytest.raises(DataError, match="'train' has '1' classes that are not among the 2 given: US__thyroid"):
        read_images(_data(root, class_list=frozen), "train")
    with pytest.raises(ConfigError, match="differ"):
        read_images(_data(root, class_list=frozen, classes=museum.CLASSES), "train")


@pytest.mark.parametrize("content", ["", "{}", "[]", '["a", 3]', '["a", "a"]', "[" * 100])
def test_read_classes__refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"classes\.json"):
        read_classes(path)


def test_read_images__no_root() -> None:
    with pytest.raises(ConfigError, match=r"data\.root is empty"):
        read_images(_data(None), "train")


def test_read_images__many_problems_are_told_in_short(tmp_path: Path) -> None:
    root = museum.folders(tmp_path, {"train": dict.fromkeys(map(str, range(9)), 0)})
    with pytest.raises(DataError) as caught:
        read_images(_data(root), "train")
    assert len(caught.value.problems) == 6
    assert "'9' problems in all" in caught.value.problems[-1]


def test_keep__all_columns_move_together(tmp_path: Path) -> None:
    images = read_images(_data(museum.table(tmp_path), format="csv"), "train")
    kept = images.keep([2, 1], "a note")
    assert [kept[index] for index in range(2)] == [images[2], images[1]]
    assert kept.notes[-1] == "a note"


def test_manifest__is_of_names_labels_and_order_wherever_they_lie(tmp_path: Path) -> None:
    first, second = (read_images(_data(museum.folders(tmp_path / name / "set")), "train") for name in "ab")
    assert manifest(first) == manifest(second)
    assert len({manifest(each) for each in (first, first.keep([1, 0, 2, 3, 4, 5]), first.keep([0, 1, 2, 3, 4]))}) == 3
    path = museum.medmnist(tmp_path / "set.npz")
    array = read_images(_data(path, format="medmnist"), "train")
    assert len({manifest(array), manifest(array.keep([0, 1])), manifest(array.keep([0, 3]))}) == 3


def test_prepare_images__the_same_list_with_and_without_memory(tmp_path: Path) -> None:
    root = museum.g13_corrupt(tmp_path / "set")
    cached = _data(root, on_corrupt="skip", cache=tmp_path / "cache")
    lists = [prepare_images(data, "train") for data in (cached, cached, _data(root, on_corrupt="skip"))]
    assert len({manifest(images) for images in lists}) == 1
    assert len(lists[0]) == 4


def test_prepare_images__a_long_check_shows_that_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _data(museum.folders(tmp_path))
    prepare_images(data, "train")
    assert not capsys.readouterr().err
    monkeypatch.setattr("pipelines.pretrain.data.reading._LONG_CHECK", 6)
    prepare_images(data, "train")
    assert "check images: 6/6 image" in capsys.readouterr().err


def test_read_images__a_medmnist_class_without_an_image(tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz")
    with pytest.raises(DataError, match="lacks '1' of 4 classes: d"):
        read_images(_data(path, format="medmnist", classes=("a", "b", "c", "d")), "train")
    images = read_images(_data(path, format="medmnist", on_missing_class="note"), "train")
    assert len(prepare_images(_data(path, format="medmnist"), "train")) == len(images) == 9


def test_read_images__folders_are_numbered_by_their_sorted_names(tmp_path: Path) -> None:
    root = museum.folders(tmp_path, {"train": dict.fromkeys(("1", "2", "10"), 1)})
    assert read_images(_data(root), "train").classes == ("1", "10", "2")


def test_read_images__a_class_that_leave_out_empties_is_noticed(tmp_path: Path) -> None:
    root = museum.folders(tmp_path / "set")
    images = read_images(_data(root), "train")
    lines = [f"{content_hash(images.read(index))}  {images[index].name}\n" for index in (2, 3)]
    (tmp_path / "list.txt").write_text("".join(lines))
    with pytest.raises(DataError, match=f"'set:train' lacks '1' of 3 classes: {museum.CLASSES[1]}"):
        read_images(_data(root, leave_out=tmp_path / "list.txt"), "train")
    noted = read_images(_data(root, leave_out=tmp_path / "list.txt", on_missing_class="note"), "train")
    assert noted.class_counts.tolist() == [2, 0, 2]
    assert f"'set:train' lacks '1' of 3 classes: {museum.CLASSES[1]}" in noted.notes


def test_prepare_images__a_class_whose_files_are_all_corrupt_is_noticed(tmp_path: Path) -> None:
    root = museum.folders(tmp_path / "set")
    for path in (root / "train" / museum.CLASSES[1]).iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=f"'set:train' lacks '1' of 3 classes: {museum.CLASSES[1]}"):
        prepare_images(_data(root, on_corrupt="skip"), "train")
    noted = prepare_images(_data(root, on_corrupt="skip", on_missing_class="note"), "train")
    assert noted.class_counts.tolist() == [2, 0, 2]
