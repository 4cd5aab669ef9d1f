"""Tiny trees in the layout of published data sets, with generated pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision_core.detection.datasets.records import LabelledBox
from vision_core.detection.datasets.voc import VocAnnotation, annotation_xml
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.randomness import key

SIZE = (32, 64)
FOGS = ("0.005", "0.01", "0.02")


def make_cityscapes(root: Path) -> Path:
    """Write ``leftImg8bit``, its three fogs and ``gtFine``, each with two images in ``train`` and in ``val``."""
    for split, city in (("train", "aachen"), ("val", "frankfurt")):
        for number in ("000019", "000020"):
            name = f"{city}_000000_{number}"
            _picture(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
            for fog in FOGS:
                _picture(root / "leftImg8bit_foggy" / split / city / f"{name}_leftImg8bit_foggy_beta_{fog}.png")
            objects = [
                _polygon("road", (0, 20), (63, 20), (63, 31)),
                _polygon("car", (10, 5), (40, 8), (38, 30), (12, 28)),
                _polygon("persongroup", (-3, 8), (20, 8), (20, 32)),
                {**_polygon("car", (1, 1), (9, 1), (9, 9)), "deleted": 1},
            ]
            content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": objects}
            write_atomic(root / "gtFine" / split / city / f"{name}_gtFine_polygons.json", json.dumps(content))
    return root


def make_city_voc(root: Path) -> Path:
    """Write the VOC folder of published code: clear images in ``train_s``, two fogs of one in ``train_t``."""
    name = "aachen_000000_000019_leftImg8bit"
    lists = {"train_s": [name], "test_s": [name]}
    lists |= {"train_t": [f"{name}_foggy_beta_{fog}" for fog in FOGS[1:]], "test_t": [f"{name}_foggy_beta_0.02"]}
    return make_voc_lists(root, lists, ("car", "person"))


def make_kitti(root: Path) -> Path:
    """Write ``training`` with three images, and the list ``val`` of one."""
    rest = "1.5 1.6 3.9 1.0 1.5 20.0 0.1"
    lines = {
        "000000": [
            f"Car 0.00 0 1.55 4.00 6.00 30.50 25.00 {rest}",
            "DontCare -1 -1 -10 40 2 60 12 -1 -1 -1 -1 -1 -1 -1",
        ],
        "000001": [f"Pedestrian 0.00 1 0.2 5.00 6.00 12.00 25.00 {rest}"],
        "000002": [],
    }
    for name, each in lines.items():
        _picture(root / "training" / "image_2" / f"{name}.png")
        write_atomic(root / "training" / "label_2" / f"{name}.txt", "".join(f"{line}\n" for line in each))
    write_atomic(root / "ImageSets" / "val.txt", "000001\n")
    return root


def make_voc_lists(root: Path, lists: dict[str, list[str]], names: Sequence[str], suffix: str = "jpg") -> Path:
    """Write a VOC folder with these lists of ids; each image has one object of each name."""
    for image_id in dict.fromkeys(each for ids in lists.values() for each in ids):
        _picture(root / "JPEGImages" / f"{image_id}.{suffix}")
        objects = tuple(LabelledBox(name=name, box=(2.0 + at, 3.0, 20.0 + at, 30.0)) for at, name in enumerate(names))
        text = annotation_xml(VocAnnotation(size=SIZE, objects=objects), f"{image_id}.{suffix}")
        write_atomic(root / "Annotations" / f"{image_id}.xml", text)
    for split, ids in lists.items():
        write_atomic(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{each}\n" for each in ids))
    return root


def _picture(path: Path) -> None:
    write_png(path, np.random.default_rng(key("published", path.name)).integers(0, 255, (*SIZE, 3), dtype=np.uint8))


def _polygon(label: str, *corners: tuple[int, int]) -> dict[str, object]:
    return {"label": label, "polygon": [list(corner) for corner in corners]}
