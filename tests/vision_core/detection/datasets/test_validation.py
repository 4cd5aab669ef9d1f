import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.datasets.validation import SoundImages, check_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import UsageError
from vision_core.images.untrusted import UntrustedImages


def _dataset(folder: Path) -> DetectionDataset:
    return read_dataset(DetectionData(root=make_voc(folder)), "train", with_labels=True)


def test_check_dataset__sound_data_is_counted(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    dataset.records[0].difficult[0] = dataset.records[1].crowd[0] = True
    found = check_dataset(dataset)
    boxes = [sum((record.labels == label).sum() for record in dataset.records) for label in range(len(SHAPES))]
    assert found.faults == ()
    assert found.lines() == [
        f"{dataset.name}: 4 images, 4 read, 0 faults",
        "sizes: 96 x 64 (4)",
        f"boxes: {sum(boxes)}, of which difficult or crowd: 2; images without boxes: 0",
        *(f"  {name}: {count}" for name, count in zip(dataset.classes, boxes, strict=True)),
    ]


def test_check_dataset__every_fault_is_listed_with_its_file(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    dataset.records[0].path.write_bytes(b"")
    dataset.records[1].path.write_bytes(dataset.records[1].path.read_bytes()[:500])
    dataset.records[2].boxes[0, 2] = 97
    wrong_size = replace(dataset.records[3], size=(640, 96))
    found = check_dataset(replace(dataset, records=(*dataset.records[:3], wrong_size)))
    assert [fault.split("'")[1] for fault in found.faults] == [str(record.path) for record in dataset.records]
    for fault, reason in zip(found.faults, ("empty", "damaged", "reach beyond", "labels say '(640, 96)'"), strict=True):
        assert reason in fault


def test_check_dataset__sample_is_spread_and_progress_told(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    dataset.records[2].path.write_bytes(b"")
    seen: list[tuple[int, int]] = []
    found = check_dataset(dataset, sample=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert (found.num_items, found.num_read, len(found.faults)) == (4, 2, 1)


def test_check_dataset__labels_not_read_are_not_called_missing(tmp_path: Path) -> None:
    data = DetectionData(root=make_voc(tmp_path), classes=SHAPES)
    found = check_dataset(read_dataset(data, "train", with_labels=False))
    assert "labels: not read" in found.lines()


def test_check_dataset__order_and_counts_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    for number in (0, 2):
        dataset.records[number].path.write_bytes(b"")
    one, three = (check_dataset(dataset, workers=workers) for workers in (1, 3))
    assert one == three
    assert one.numbers["sizes"] == {"96x64": 2}
    assert one.numbers["classes"] == {
        name: sum(int((record.labels == label).sum()) for record in dataset.records)
        for label, name in enumerate(dataset.classes)
    }


def test_sound_images__what_has_not_changed_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _dataset(tmp_path / "data")
    damaged = dataset.records[1].path
    damaged.write_bytes(damaged.read_bytes()[:300])
    cache = tmp_path / "sound.json"
    first = check_dataset(dataset, sound=SoundImages(cache))
    assert (first.num_read, len(first.faults)) == (4, 1)
    read: list[str] = []
    decode = UntrustedImages.noted_size

    def noted_size(self: UntrustedImages, path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
        read.append(path.name)
        return decode(self, path)

    monkeypatch.setattr(UntrustedImages, "noted_size", noted_size)
    assert check_dataset(dataset, sound=SoundImages(cache)) == first
    assert read == [damaged.name]
    os.utime(dataset.records[2].path, ns=(1, 1))
    assert check_dataset(dataset, sound=SoundImages(cache)) == first
    assert sorted(read[1:]) == sorted([damaged.name, dataset.records[2].path.name])
    large = check_dataset(dataset, sound=SoundImages(cache), max_megapixels=0.001)
    assert len(large.faults) == 4  # the limit holds for what is known too


def test_sound_images__another_file_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.json"
    other.write_text("[]")
    with pytest.raises(UsageError, match="is no such file of validate, and stays"):
        SoundImages(other)
    other.write_text('{"sound_images": 0, "files": {}}')
    with pytest.raises(UsageError, match="of another version"):
        SoundImages(other)
