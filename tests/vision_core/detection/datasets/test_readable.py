import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.vision_core.detection.synthetic import make_voc
from vision_core.detection.datasets import readable as checked
from vision_core.detection.datasets.readable import Seen, readable
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.images.untrusted import UntrustedImages


def _read(data: DetectionData) -> DetectionDataset:
    return read_dataset(data, "train", with_labels=True)


def _cut(root: Path, number: int) -> Path:
    path = root / "JPEGImages" / f"train_00{number}.png"
    path.write_bytes(path.read_bytes()[:500])
    return path


def test_readable__sound_files_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "UntrustedImages", None)
    data = DetectionData(root=make_voc(tmp_path))
    dataset = _read(data)
    assert readable(dataset, data, {}) is dataset


def test_readable__all_cut_files_are_refused_at_once(tmp_path: Path) -> None:
    data = DetectionData(root=make_voc(tmp_path))
    paths = [_cut(tmp_path, number) for number in (1, 3)]
    with pytest.raises(DataError) as caught:
        readable(_read(data), data, {})
    assert [problem.split("'")[1] for problem in caught.value.problems[:2]] == [str(path) for path in paths]
    assert "'2' of '4' images cannot be read" in caught.value.problems[-1]


def test_readable__skipped_files_are_named_and_the_sound_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DetectionData(root=make_voc(tmp_path), on_corrupt="skip")
    _cut(tmp_path, 1)
    seen: Seen = {}
    dataset = readable(_read(data), data, seen)
    assert [record.image_id for record in dataset.records] == ["train_000", "train_002", "train_003"]
    assert dataset.left_out == {"images corrupt": 1}
    assert dataset.notes[-1].startswith("IMAGES CORRUPT: ")
    assert len(seen) == 3
    decoded: list[Path] = []
    read = UntrustedImages.noted_image

    def counted(self: UntrustedImages, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        decoded.append(path)
        return read(self, path)

    monkeypatch.setattr(UntrustedImages, "noted_image", counted)
    assert len(readable(_read(data), data, seen)) == 3
    assert [path.name for path in decoded] == ["train_001.png"]


def test_readable__what_was_decided_for_files_is_told_of_every_list(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for name in ("a", "b"):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "c.png", "TIFF")
    data = DetectionData(root=tmp_path, format="images", classes=("disc",))
    seen: Seen = {}
    for _ in range(2):
        dataset = readable(read_dataset(data, "train", with_labels=False), data, seen)
        assert dataset.notes[-2:] == (
            "2 of the files: uses 12 of its 16 bits or more a sample, and is read as such (a.png, b.png)",
            "1 of the files: holds TIFF, not what its suffix says (c.png)",
        )


def test_readable__values_that_no_rule_brings_to_8_bits_are_found_before_the_first_step(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(-3, 9, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tif")
    data = DetectionData(root=tmp_path, format="images", classes=("disc",))
    with pytest.raises(DataError, match="holds values from '-3' to '9'"):
        readable(read_dataset(data, "train", with_labels=False), data, {})


def test_readable__no_image_left_is_refused(tmp_path: Path) -> None:
    data = DetectionData(root=make_voc(tmp_path, count=1), on_corrupt="skip")
    _cut(tmp_path, 0)
    with pytest.raises(DataError, match="'1' of '1' images cannot be read: "):
        readable(_read(data), data, {})


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "ppm", "pgm"])
def test_readable__cut_files_of_these_formats_are_found(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.effect_noise((80, 60), 90).convert("L" if suffix == "pgm" else "RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    data = DetectionData(root=tmp_path, format="images", classes=("disc",))
    with pytest.raises(DataError, match=f"a.{suffix}' cannot be decoded"):
        readable(read_dataset(data, "train", with_labels=False), data, {})


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm"])
def test_readable__whole_files_of_all_formats_pass(suffix: str, tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), (9, 99, 199)).save(tmp_path / f"a.{suffix}")
    data = DetectionData(root=tmp_path, format="images", classes=("disc",))
    assert len(readable(read_dataset(data, "train", with_labels=False), data, {})) == 1


def test_read_dataset__what_is_left_out_of_a_plain_folder_is_named_and_counted(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    for name in ("b.heic", "c.heic", "notes.txt"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.png")
    dataset = read_dataset(DetectionData(root=tmp_path, format="images", classes=("disc",)), "train", with_labels=False)
    assert len(dataset) == 1
    (note,) = dataset.notes
    assert "2 .heic ('b.heic', 'c.heic'); 1 .txt ('notes.txt'); 1 pipe ('pipe.png')" in note
