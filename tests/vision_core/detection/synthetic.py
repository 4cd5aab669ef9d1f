"""Generated detection images for tests: coloured shapes on noise, as a VOC or a COCO folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vision_core.detection.datasets.records import LabelledBox
from vision_core.detection.datasets.voc import VocAnnotation, annotation_xml
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.randomness import key

SHAPES = ("disc", "square")

_COLOURS = ((220, 60, 40), (50, 90, 220), (60, 180, 70), (230, 200, 40))
_LARGEST_COUNT = 4


def make_picture(
    size: tuple[int, int], classes: Sequence[str], seed: int
) -> tuple[NDArray[np.uint8], tuple[LabelledBox, ...]]:
    """One image with one to three shapes; even classes are discs, odd ones squares, each with a colour of its own.

    Args:
        size: ``(height, width)`` in pixels, at least 32.
        classes: Names to draw from.
        seed: The same seed makes the same image.

    Returns:
        ``(H, W, 3)`` uint8 and its objects, boxes in whole pixels.
    """
    generator = np.random.default_rng(seed)
    picture = Image.fromarray(generator.integers(90, 150, (*size, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(picture)
    objects = []
    for _ in range(int(generator.integers(1, _LARGEST_COUNT))):
        label = int(generator.integers(len(classes)))
        side = int(generator.integers(min(size) // 5, min(size) // 2))
        left, top = (int(generator.integers(0, edge - side)) for edge in (size[1], size[0]))
        shape = draw.rectangle if label % 2 else draw.ellipse
        shape((left, top, left + side - 1, top + side - 1), fill=_COLOURS[label % len(_COLOURS)])
        objects.append(LabelledBox(name=classes[label], box=(left, top, left + side, top + side)))
    return np.array(picture), tuple(objects)


def make_voc(
    folder: Path, count: int = 4, size: tuple[int, int] = (64, 96), seed: int = 0, classes: Sequence[str] = SHAPES
) -> Path:
    """Write a VOC folder with the lists ``train`` and ``test`` of ``count`` images each, and return it."""
    for split in ("train", "test"):
        ids = [f"{split}_{number:03d}" for number in range(count)]
        for number, image_id in enumerate(ids):
            image, objects = make_picture(size, classes, key("synthetic", seed, split, number))
            write_png(folder / "JPEGImages" / f"{image_id}.png", image)
            annotation = annotation_xml(VocAnnotation(size=size, objects=objects), f"{image_id}.png")
            write_atomic(folder / "Annotations" / f"{image_id}.xml", annotation)
        write_atomic(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{image_id}\n" for image_id in ids))
    return folder


def make_coco(
    folder: Path, count: int = 4, size: tuple[int, int] = (64, 96), seed: int = 0, classes: Sequence[str] = SHAPES
) -> Path:
    """Write a COCO folder with ``train.json`` and ``test.json`` of ``count`` images each, and return it.

    The images are those of ``make_voc``; category ids begin at 1 and leave a gap.
    """
    for split in ("train", "test"):
        images, annotations = [], []
        for number in range(count):
            image, objects = make_picture(size, classes, key("synthetic", seed, split, number))
            write_png(folder / split / f"{number:03d}.png", image)
            images.append({"id": number, "file_name": f"{number:03d}.png", "height": size[0], "width": size[1]})
            annotations += [(number, item) for item in objects]
        index = {
            "images": images,
            "categories": [{"id": _category_id(label), "name": name} for label, name in enumerate(classes)],
            "annotations": [
                _coco_annotation(number, image_id, item, classes) for number, (image_id, item) in enumerate(annotations)
            ],
        }
        write_atomic(folder / f"{split}.json", json.dumps(index))
    return folder


def _category_id(label: int) -> int:
    return 2 * label + 1


def _coco_annotation(number: int, image_id: int, item: LabelledBox, classes: Sequence[str]) -> dict[str, object]:
    left, top, right, bottom = item.box
    return {
        "id": number,
        "image_id": image_id,
        "category_id": _category_id(classes.index(item.name)),
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
    }
