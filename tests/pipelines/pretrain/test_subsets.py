from pathlib import Path

import pytest

from pipelines.pretrain.data.index import Images
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.subsets import few_per_class
from tests.bad_inputs import labelled_images as museum
from vision_core.errors import DataError


def _images(root: Path) -> Images:
    counts = {"train": {"a": 12, "b": 3, "c": 7}}
    return read_images(PretrainData(root=museum.folders(root, counts), cache=None), "train")


def _names(images: Images) -> list[str]:
    return [images[index].name for index in range(len(images))]


def test_few__so_many_of_each_class_in_the_order_of_the_list(tmp_path: Path) -> None:
    images = _images(tmp_path)
    few = few_per_class(images, 5, seed=0)
    assert few.class_counts.tolist() == [5, 3, 5]
    assert _names(few) == [name for name in _names(images) if name in set(_names(few))]
    assert few.notes[-1] == "classes with fewer than 5 images: 1 of 3"


def test_few__follow_from_the_seed_and_grow_by_addition(tmp_path: Path) -> None:
    images = _images(tmp_path)
    assert _names(few_per_class(images, 4, 1)) == _names(few_per_class(images, 4, 1))
    assert _names(few_per_class(images, 4, 1)) != _names(few_per_class(images, 4, 2))
    assert set(_names(few_per_class(images, 2, 1))) < set(_names(few_per_class(images, 4, 1)))


def test_few__several_labels_an_image(tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz", labels=14)
    images = read_images(PretrainData(root=path, format="medmnist", cache=None), "train")
    with pytest.raises(DataError, match="several labels an image"):
        few_per_class(images, 2, 0)
