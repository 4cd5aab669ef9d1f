from pathlib import Path

import numpy as np
import pytest

from tests.vision_core.detection.synthetic import SHAPES, make_coco, make_picture, make_voc
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.settings import DetectionData


@pytest.mark.parametrize("classes", [("disc",), SHAPES])
def test_make_picture__box_fits_the_shape_tightly(classes: tuple[str, ...]) -> None:
    pictures = (make_picture((64, 96), classes, seed) for seed in range(20))
    alone = [(image, objects[0]) for image, objects in pictures if len(objects) == 1]
    assert alone
    for image, item in alone:
        rows, columns = (image.max(axis=2) >= 180).nonzero()  # the ground stays below
        assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_make_voc_and_make_coco__hold_the_same_images_and_boxes(tmp_path: Path) -> None:
    voc = read_dataset(DetectionData(root=make_voc(tmp_path / "voc"), format="voc"), "train", with_labels=True)
    coco = read_dataset(DetectionData(root=make_coco(tmp_path / "coco"), format="coco"), "train", with_labels=True)
    assert set(voc.classes) <= set(coco.classes) == set(SHAPES)
    assert len(voc) == len(coco) == 4
    for one, other in zip(voc.records, coco.records, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert one.size == other.size == (64, 96)


def test_make_voc__same_seed_same_bytes(tmp_path: Path) -> None:
    folders = [make_voc(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, again, other = ((folder / "JPEGImages" / "train_000.png").read_bytes() for folder in folders)
    assert first == again != other
