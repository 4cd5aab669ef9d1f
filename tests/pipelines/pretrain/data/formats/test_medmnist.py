from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.pretrain.data.formats.medmnist import ArrayPixels, read_medmnist
from pipelines.pretrain.data_settings import PretrainData
from tests.bad_inputs import labelled_images as museum
from vision_core.errors import DataError, EnvironmentFault


def _data(**changes: object) -> PretrainData:
    return PretrainData.model_validate({"format": "medmnist", "cache": None, **changes})


def _array(images: ArrayPixels | object) -> np.ndarray:
    assert isinstance(images, ArrayPixels)
    return images.array


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_read__pixels_and_labels(part: str, colours: bool, tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz", colours=colours)
    with np.load(path) as arrays:
        pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    images = read_medmnist(tmp_path, part, _data())
    assert images.classes == ("0", "1", "2")
    assert images.labels.tolist() == labels[:, 0].tolist()
    expected = pixels if colours else np.repeat(pixels[..., None], 3, axis=3)
    for index in range(len(images)):
        np.testing.assert_array_equal(images.read(index), expected[index])
    assert images[1].name == f"{part}/1"


def test_read__stored_arrays_are_mapped_and_small_compressed_ones_held(tmp_path: Path) -> None:
    stored = read_medmnist(museum.medmnist(tmp_path / "a.npz", compressed=False), "train", _data())
    packed = read_medmnist(museum.medmnist(tmp_path / "b.npz"), "train", _data())
    assert isinstance(_array(stored.pixels), np.memmap)
    assert not isinstance(_array(packed.pixels), np.memmap)
    np.testing.assert_array_equal(_array(stored.pixels), _array(packed.pixels))


def test_read__large_compressed_arrays_are_unpacked_once_into_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 256, 256), np.uint8)
    np.savez_compressed(path, train_images=pixels, train_labels=np.arange(20)[:, None] % 2)
    with pytest.raises(DataError, match=r"takes 1 MiB unpacked\. Name a folder for it as data\.cache"):
        read_medmnist(path, "train", _data(memory_mib=1))
    data = _data(memory_mib=1, cache=tmp_path / "cache")
    images = read_medmnist(path, "train", data)
    (unpacked,) = (tmp_path / "cache").rglob("*.npy")
    before = unpacked.stat().st_mtime_ns
    assert isinstance(_array(images.pixels), np.memmap)
    np.testing.assert_array_equal(_array(read_medmnist(path, "train", data).pixels), pixels)
    assert unpacked.stat().st_mtime_ns == before


def test_read__a_disk_that_cannot_hold_the_unpacked_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((20, 256, 256), np.uint8)
    np.savez_compressed(tmp_path / "large.npz", train_images=pixels, train_labels=np.arange(20)[:, None] % 2)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**20))  # no small disk is at hand
    with pytest.raises(EnvironmentFault, match="has 1 MiB free; '1' are needed"):
        read_medmnist(tmp_path, "train", _data(memory_mib=1, cache=tmp_path / "cache"))


def test_read__several_labels_an_image(tmp_path: Path) -> None:
    images = read_medmnist(museum.medmnist(tmp_path / "set.npz", labels=14), "train", _data())
    assert images.is_multi_label
    assert images.labels.shape == (9, 14)
    assert images[0].label == (1,) * 14
    assert images.class_counts.tolist() == images.labels.sum(axis=0).tolist()


def test_read__sixteen_bits_are_scaled_by_65535(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    np.savez(tmp_path / "set.npz", train_images=ramp, train_labels=[[0]])
    image = read_medmnist(tmp_path, "train", _data()).read(0)
    np.testing.assert_array_equal(image[..., 0], np.rint(ramp[0] / 65535 * 255))


def test_read__sixteen_bits_of_which_twelve_are_used_in_all_lists(tmp_path: Path) -> None:
    dark, bright = np.arange(256, dtype=np.uint16).reshape(1, 16, 16), np.full((1, 16, 16), 4095, np.uint16)
    np.savez(tmp_path / "set.npz", train_images=dark, test_images=bright, train_labels=[[0]], test_labels=[[0]])
    found = read_medmnist(tmp_path, "train", _data())
    np.testing.assert_array_equal(found.pixels.read(0)[..., 0], np.rint(dark[0] / 4095 * 255))
    assert "its images use 12 of 16 bits, and are read as such" in found.notes
    assert (read_medmnist(tmp_path, "test", _data()).pixels.read(0) == 255).all()


def test_read__column_major_arrays(tmp_path: Path) -> None:
    pixels = np.asfortranarray(np.random.default_rng(0).integers(0, 256, (3, 8, 9), np.uint8))
    np.savez(tmp_path / "set.npz", train_images=pixels, train_labels=[[0], [1], [0]])
    np.testing.assert_array_equal(read_medmnist(tmp_path, "train", _data()).read(1)[..., 0], pixels[1])


def test_read__not_the_published_numbers_is_noted(tmp_path: Path) -> None:
    images = read_medmnist(museum.medmnist(tmp_path / "bloodmnist_64.npz"), "train", _data())
    assert "'train' has 8 classes and 9 images; the published bloodmnist has 8 and 11959" in images.notes


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4))}, "lacks the array 'train_labels'; it holds 'images'"),
        ({"train_labels": [[0]]}, "lacks the array 'train_images'"),
        ({"train_images": np.zeros((2, 4, 4), np.uint8), "train_labels": [[0]]}, "has 2 images and 1 labels"),
        ({"train_images": np.zeros((1, 4, 4)), "train_labels": [[0]]}, "float64 of shape '(1, 4, 4)'"),
        ({"train_images": np.zeros((1, 4, 4, 2), np.uint8), "train_labels": [[0]]}, "uint8 of shape"),
        ({"train_images": np.zeros((1, 4, 4), np.uint8), "train_labels": [[0.5]]}, "whole numbers"),
        ({"train_images": np.zeros((1, 4, 4), np.uint8), "train_labels": [[-1]]}, "run from '-1' to '-1'"),
        ({"train_images": np.zeros((1, 4, 4), np.uint8), "train_labels": [[0, 2]]}, "should be 0 or 1"),
    ],
)
def test_read__refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        read_medmnist(tmp_path, "train", _data())
    assert message in str(caught.value)


def test_read__classes_given_must_fit(tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz")
    assert read_medmnist(path, "train", _data(classes=("a", "b", "c"))).classes == ("a", "b", "c")
    with pytest.raises(DataError, match="run from '0' to '2'; 2 classes"):
        read_medmnist(path, "train", _data(classes=("a", "b")))


def test_read__which_of_two_files(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        museum.medmnist(tmp_path / name)
    with pytest.raises(DataError, match=r"it holds 'a\.npz, b\.npz'"):
        read_medmnist(tmp_path, "train", _data())
