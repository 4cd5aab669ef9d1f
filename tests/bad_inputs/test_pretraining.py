import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.pretrain.data.checks import duplicates
from pipelines.pretrain.data.checks.validation import check_lists
from pipelines.pretrain.data.reading import prepare_images, read_images
from pipelines.pretrain.data.splits import content_manifest, overlaps
from pipelines.pretrain.data_settings import Format, PretrainData
from tests.bad_inputs import labelled_images as museum
from tests.bad_inputs.dicoms import f06_crashing, still
from tests.pipelines.pretrain import tiny
from vision_core.errors import DataError, UserError
from vision_core.images.untrusted import UntrustedImages

Make = Callable[[Path], Path]

REFUSED: list[tuple[Make, Format, str]] = [
    (museum.g01_empty_class, "folders", "class folder 'MR__knee__tear' holds no image"),
    (museum.g01_nested, "folders", r"train/CT' should hold the images of one class, but holds 2 folders.*=radimagenet"),
    (museum.g01_nested_once_more, "folders", r"normal' should hold the images of one class, but holds 1 folders: more"),
    (museum.g01_class_missing_in_train, "folders", "'train' lacks '1' of 165 classes: CT__abd__164"),
    (museum.g01_class_missing_in_val, "folders", "'val' lacks '1' of 3 classes: US__thyroid"),
    (museum.g02_missing, "csv", r"'2' of 3 listed files are not there: scans/train0.png, scans/train1.png"),
    (museum.g16_pickled, "medmnist", "holds pickled objects, which are not opened"),
    (museum.g16_truncated, "medmnist", "is no readable .npz file"),
    (museum.g16_lying_labels, "medmnist", "'train_labels' should take '1000000000000' bytes"),
    (museum.g16_lying_header, "medmnist", "'train_images' should take '783999999216' bytes"),
]


def _data(root: Path, kind: Format, **changes: object) -> PretrainData:
    return PretrainData.model_validate({"root": root, "format": kind, "cache": None, **changes})


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_read_images__refused(make: Make, kind: Format, message: str, tmp_path: Path) -> None:
    root = make(tmp_path / ("set.npz" if kind == "medmnist" else "set"))
    with pytest.raises(DataError, match=message):
        read_images(_data(root, kind), "train")


@pytest.mark.parametrize("part", ["train", "val"])
def test_read_images__a_missing_class_can_be_noted(part: str, tmp_path: Path) -> None:
    root = museum.g01_class_missing_in_val(tmp_path)
    images = read_images(_data(root, "folders", on_missing_class="note"), part)
    assert images.classes == museum.CLASSES
    assert "'val' lacks '1' of 3 classes: US__thyroid" in images.notes


@pytest.mark.parametrize("make", [museum.g02_windows_paths, museum.g02_absolute_paths])
def test_read_images__paths_of_any_machine_are_found(make: Make, tmp_path: Path) -> None:
    images = read_images(_data(make(tmp_path / "set"), "csv"), "train")
    assert [images[index].name for index in range(3)] == [f"scans/train{number}.png" for number in range(3)]
    assert images.labels.tolist() == [1, 0, 1]


def test_read_images__missing_files_are_counted(tmp_path: Path) -> None:
    images = read_images(
        _data(museum.g02_missing(tmp_path), "csv", on_missing="skip", on_missing_class="note"), "train"
    )
    assert len(images) == 1
    assert "listed files that are not there, left out: 2 (scans/train0.png, scans/train1.png)" in images.notes


def test_read_images__every_kind_of_image_is_read_by_one_rule(tmp_path: Path) -> None:
    images = prepare_images(_data(museum.g03_mixed(tmp_path), "dicom"), "train")
    assert len(images) == 6
    for index in range(6):
        np.testing.assert_array_equal(images.read(index), np.full((16, 16, 3), 100))


def test_read_images__imbalance_is_told_with_weights(tmp_path: Path) -> None:
    images = read_images(_data(museum.g12_imbalance(tmp_path / "set.npz"), "medmnist"), "train")
    assert images.notes[-1] == (
        "class '0' has 100000 images, '1' has 1: they make 99.9990% and 0.0010% of the loss; "
        "equal classes would need weights of 0.5 and 5e+04 an image"
    )


def test_prepare_images__corrupt_files_refuse_by_header_or_are_left_out_by_decoding(tmp_path: Path) -> None:
    root = museum.g13_corrupt(tmp_path / "set")
    with pytest.raises(DataError, match=r"0\.png' .*(?s:.*)has '2' files that cannot be read"):
        prepare_images(_data(root, "folders"), "train")
    images = prepare_images(_data(root, "folders", on_corrupt="skip", cache=tmp_path / "cache"), "train")
    assert len(images) == 4
    assert images.notes[-1].startswith("images that cannot be read, left out: 2; listed in")
    lines = [json.loads(line) for line in (tmp_path / "cache" / "corrupt.jsonl").read_text().splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["0.png", "1.png"]
    assert "is empty" in lines[0]["reason"]


def test_prepare_images__a_file_that_crashes_its_decoder_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "liver"
    folder.mkdir(parents=True)
    still(folder / "sound.dcm")
    f06_crashing(folder)
    data = _data(tmp_path, "dicom", on_corrupt="skip")
    images = prepare_images(data, "train")
    assert [images[index].name for index in range(len(images))] == ["train/liver/sound.dcm"]
    (first,), _ = check_lists([read_images(data, "train")])
    assert len(first.faults) == 1
    assert "crashing.dcm" in first.faults[0]


NOTED = (
    "1 of the files: uses 12 of its 16 bits or more a sample, and is read as such (train/CT__abd__normal/deep.png)",
    "1 of the files: holds TIFF, not what its suffix says (train/CT__abd__normal/lying.png)",
    "1 of the files: has 2 windows; the first is used (train/MR__knee__tear/windows.dcm)",
)


@pytest.mark.parametrize("on_corrupt", ["refuse", "skip"])
def test_notes__train_and_validate_tell_the_same(on_corrupt: str, tmp_path: Path) -> None:
    data = _data(museum.notable(tmp_path / "set"), "dicom", on_corrupt=on_corrupt, cache=tmp_path / "cache")
    (tmp_path / "set" / "train" / museum.CLASSES[0] / "photo.heic").unlink()  # a DICOM file may have any name
    (first,), _ = check_lists([read_images(data, "train")])
    for _ in range(2):  # the second time from what is remembered
        notes = prepare_images(data, "train").notes
        assert [note for note in notes if note not in NOTED] == ["pipes, sockets or devices, not used: 1 (pipe.png)"]
        assert set(NOTED) <= set(notes)
        assert {f"note: {note}" for note in notes} <= set(first.lines())


def test_read_images__what_is_left_out_of_a_class_is_named_and_counted(tmp_path: Path) -> None:
    root = museum.notable(tmp_path / "set")
    assert set(read_images(_data(root, "folders"), "train").notes) == {
        "pipes, sockets or devices, not used: 1 (CT__abd__normal/pipe.png)",
        "files .heic, no images, not used: 1 (photo.heic)",
        "files .dcm, no images, not used: 1 (windows.dcm)",
    }


def test_prepare_images__cut_files_of_any_format_are_found_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare_images(_data(museum.cut(tmp_path / "set"), "folders"), "train")
    text = str(caught.value)
    assert "cut.tif' cannot be decoded" in text and "cut.ppm' cannot be decoded" in text
    assert "has '2' files that cannot be read" in text


@pytest.mark.parametrize("few", [2000, 0])
def test_overlaps__a_run_tells_of_equal_images_as_validate_does(
    few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_FEW", few)
    data = _data(museum.equal(tmp_path / "set"), "folders")
    lists = [prepare_images(data, part) for part in ("train", "val")]
    told = overlaps(lists)
    copied = "train/CT__abd__normal/0.png = train/MR__knee__tear/copy.png"
    if few:
        _, together = check_lists(lists)
        assert [line.removeprefix("warning: ") for line in told] == together.lines()[1:]
        assert told == [
            f"warning: the same image in several classes: 1 times ({copied} = val/CT__abd__normal/again.bmp)",
            f"warning: the same image in several lists: 1 times ({copied} = val/CT__abd__normal/again.bmp)",
        ]
    else:
        note = "; compared by their bytes, validate compares their pixels"
        assert told == [f"warning: the same image in several classes: 1 times ({copied}){note}"]


def test_overlaps__arrays_are_compared_too(tmp_path: Path) -> None:
    museum.medmnist(tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz") as content:
        arrays = dict(content)
    arrays["val_images"][0] = arrays["train_images"][0]
    np.savez(tmp_path / "set.npz", **arrays)
    data = _data(tmp_path / "set.npz", "medmnist")
    (line,) = overlaps([read_images(data, part) for part in ("train", "val")])
    assert line.startswith("warning: the same image in several lists: 1 times (")


def test_dicom__a_sound_file_after_a_killed_child_is_read_by_a_new_one(tmp_path: Path) -> None:
    sound = still(tmp_path / "a.dcm")
    with UntrustedImages() as images:
        right = images.read_dicom(sound)
        child = images.sandbox._child
        assert child is not None
        os.kill(child._process.pid, signal.SIGKILL)
        np.testing.assert_array_equal(images.read_dicom(sound), right)
        assert images.sandbox._child is not child


def test_check_lists__equal_and_empty_images_are_told_and_left_out_on_request(tmp_path: Path) -> None:
    root = museum.g14_equal_and_empty(tmp_path / "set")
    data = _data(root, "folders", cache=tmp_path / "cache")
    lists = [read_images(data, part) for part in ("train", "val")]
    _, together = check_lists(lists, cache=tmp_path / "cache")
    text = "\n".join(together.lines())
    assert "the same image in several classes: 1 times" in text
    assert "the same image in several lists: 1 times" in text
    assert f"images of a single value: 1 (train/{museum.CLASSES[2]}/black.png)" in text
    listed = next((tmp_path / "cache").glob("leave-out-*.txt"))
    assert len(listed.read_text().splitlines()) == 4
    kept = [read_images(_data(root, "folders", leave_out=listed), part) for part in ("train", "val")]
    assert [len(images) for images in lists] == [9, 7]
    assert [len(images) for images in kept] == [6, 6]
    assert any(note.startswith("images left out by data.leave_out: 3") for note in kept[0].notes)


def test_read_images__links_out_and_in_a_circle_are_named(tmp_path: Path) -> None:
    images = read_images(_data(museum.g15_links(tmp_path / "set"), "folders"), "train")
    assert len(images) == 6
    note = next(note for note in images.notes if note.startswith("links that lead out"))
    assert "out.png" in note
    assert "circle.png" in note


def test_read_images__a_list_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train/'.*Correct data\.root or data\.split"):
        read_images(_data(museum.folders(tmp_path), "folders"), "validation")
    with pytest.raises(DataError, match="there is 'no CSV'"):
        read_images(_data(tmp_path, "csv"), "train")
    with pytest.raises(DataError, match=r"RadiologyAI_train\.csv' does not exist"):
        read_images(_data(tmp_path, "radimagenet"), "train")


def test_read_images__no_patient_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = museum.table(tmp_path)
    lines = museum.read_rows(root / "labels.csv")
    museum.rows([{**line, "patient": "Secret^Person"} for line in lines], root / "labels.csv")
    with caplog.at_level(logging.DEBUG):
        lists = [read_images(_data(root, "csv"), part) for part in ("train", "val")]
        checked, between = check_lists(lists)
        text = "\n".join(line for found in (*checked, between) for line in found.lines())
    assert ":train and" in text
    assert "Secret" not in text + caplog.text + repr(lists)


def test_prepare_images__nothing_that_can_be_read(tmp_path: Path) -> None:
    root = museum.folders(tmp_path, {"train": {"a": 1}})
    (root / "train" / "a" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match="has no image that can be read"):
        prepare_images(_data(root, "folders", on_corrupt="skip"), "train")


def test_content_manifest__sees_a_file_that_changed(tmp_path: Path) -> None:
    tiny.make_folders(tmp_path)
    data = PretrainData(root=tmp_path)
    before = content_manifest(read_images(data, "train"))
    path = tmp_path / "train" / "dark" / "1.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert content_manifest(read_images(data, "train")) != before
