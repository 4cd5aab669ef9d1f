"""Generated labelled lists with one planted fault each: what the gate finds is told by every verb that reads the list.

The list is random: number of images, sizes, boxes and the place of the fault. A sound list is told of by none.
"""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.sfod.__main__ import main
from tests.pipelines.sfod.tiny import SUPERVISED, source_bundle
from tests.vision_core.detection.synthetic import SHAPES, make_coco, make_voc
from vision_core.detection.datasets.readable import readable
from vision_core.detection.datasets.reading import read_dataset, read_for_findings
from vision_core.detection.settings import DetectionData

Capture = pytest.CaptureFixture[str]
Label = dict[str, Any]  # name, box as xyxy, size of its image as (width, height)


@dataclass
class Generated:
    """A random list in one format, and a chosen image of it."""

    root: Path
    kind: str
    random: np.random.Generator

    @classmethod
    def make(cls, root: Path, kind: str, seed: int) -> "Generated":
        random = np.random.default_rng(seed)
        make = make_voc if kind == "voc" else make_coco
        size = (int(random.integers(48, 80)), int(random.integers(81, 128)))
        make(root, int(random.integers(4, 8)), size, seed)
        return cls(root=root, kind=kind, random=random)

    @property
    def images(self) -> list[Path]:
        voc = sorted((self.root / "JPEGImages").glob("train_*"))
        return voc if self.kind == "voc" else sorted((self.root / "train").iterdir())

    @property
    def image(self) -> Path:
        return self.images[int(self.random.integers(len(self.images)))]

    def edit(self, change: Callable[[Label], None], *, of_all: bool = False) -> None:
        """Change one label, or all."""
        if self.kind == "coco":
            self._edit_coco(change, of_all=of_all)
        else:
            self._edit_voc(change, of_all=of_all)

    def _edit_coco(self, change: Callable[[Label], None], *, of_all: bool) -> None:
        path = self.root / "train.json"
        index = json.loads(path.read_text())
        names = {each["id"]: each["name"] for each in index["categories"]}
        images = {each["id"]: each for each in index["images"]}
        for entry in index["annotations"] if of_all else index["annotations"][:1]:
            left, top, width, height = entry["bbox"]
            image = images[entry["image_id"]]
            label: Label = {
                "name": names[entry["category_id"]],
                "box": [left, top, left + width, top + height],
                "size": [image["width"], image["height"]],
            }
            change(label)
            left, top, right, bottom = label["box"]
            entry["bbox"] = [left, top, right - left, bottom - top]
            image["width"], image["height"] = label["size"]
            if label["name"] not in names.values():
                number = max(names) + 1
                names[number] = label["name"]
                index["categories"].append({"id": number, "name": label["name"]})
            entry["category_id"] = next(number for number, name in names.items() if name == label["name"])
        path.write_text(json.dumps(index))

    def _edit_voc(self, change: Callable[[Label], None], *, of_all: bool) -> None:
        paths = sorted((self.root / "Annotations").glob("train_*"))
        for path in paths if of_all else paths[:1]:
            tree = ElementTree.parse(path)
            objects = list(tree.iter("object"))
            for item in objects if of_all else objects[:1]:
                name, size, box = item.find("name"), tree.find("size"), item.find("bndbox")
                assert name is not None
                assert size is not None
                assert box is not None
                label: Label = {
                    "name": name.text,
                    "box": [float(each.text or "") for each in box],
                    "size": [int(size.findtext("width") or ""), int(size.findtext("height") or "")],
                }
                change(label)
                name.text = label["name"]
                for corner, value in zip(box, label["box"], strict=True):
                    corner.text = f"{value:g}"
                for edge, value in zip(("width", "height"), label["size"], strict=True):
                    side = size.find(edge)
                    assert side is not None
                    side.text = str(value)
            tree.write(path)


def _widen(label: Label) -> None:
    label["box"][2] += label["size"][0]


def _flatten(label: Label) -> None:
    label["box"][3] = label["box"][1] - 1


def _lose(label: Label) -> None:
    label["box"][0] = float("nan")


def _normalise(label: Label) -> None:
    width, height = label["size"]
    label["box"] = [value / edge for value, edge in zip(label["box"], (width, height, width, height), strict=True)]


def _capitalise(label: Label) -> None:
    label["name"] = label["name"].upper()


def _rename(label: Label) -> None:
    label["name"] = "lamp"


def _misspell(label: Label) -> None:
    label["name"] = f"{label['name']}s"


def _exchange(label: Label) -> None:
    label["size"] = label["size"][::-1]


def _resize(path: Path) -> None:
    with Image.open(path) as image:
        image.reduce(2).save(path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _copy_over(data: Generated) -> None:
    first, last = data.images[0], data.images[-1]
    last.write_bytes(first.read_bytes())


FAULTS: dict[str, Callable[[Generated], object]] = {
    "box far out of the image": lambda data: data.edit(_widen),
    "box without area": lambda data: data.edit(_flatten),
    "box that is no number": lambda data: data.edit(_lose),
    "boxes in fractions of the image": lambda data: data.edit(_normalise, of_all=True),
    "name in capitals": lambda data: data.edit(_capitalise),
    "name of another thing": lambda data: data.edit(_rename),
    "names in the plural": lambda data: data.edit(_misspell, of_all=True),
    "exchanged sides": lambda data: data.edit(_exchange),
    "image made smaller": lambda data: _resize(data.image),
    "image gone": lambda data: data.image.unlink(),
    "image of no bytes": lambda data: data.image.write_bytes(b""),
    "image cut off": lambda data: _cut(data.image),
    "image is a web page": lambda data: data.image.write_text("<!doctype html><title>Log in</title>"),
    "suffix in capitals": lambda data: data.image.rename(data.image.with_suffix(".PNG")),
    "one image twice": _copy_over,
}


def _found(data: DetectionData) -> tuple[list[str], list[str]]:
    """What the gate finds: texts that refuse the list, and notes on it."""
    dataset = read_for_findings("train", lambda: read_dataset(data, "train", with_labels=True))
    if not dataset.problems:
        dataset = dataset.checked(lambda each: readable(each, data, {}))
    problems = [text for text in dataset.problems if "images cannot be read" not in text]  # their number comes besides
    return problems, [note for note in dataset.notes if "category ids" not in note]


def _cases() -> list[Any]:
    """Every fault in both formats; in one of the two only among the slow tests."""
    kinds = [(place, name, kind) for place, name in enumerate(FAULTS) for kind in ("voc", "coco")]
    return [
        pytest.param(name, kind, marks=[pytest.mark.slow] if (kind == "voc") == bool(place % 2) else [])
        for place, name, kind in kinds
    ]


def _commands(data: Generated) -> dict[str, list[str]]:
    words = [f"data.root={data.root}", f"data.format={data.kind}"]
    classes = f"data.classes=[{','.join(SHAPES)}]"
    train = ["train", "--dry-run", f"--out={data.root.parent}/run", *words, *SUPERVISED, classes]
    scored = f"--out={data.root.parent}/scores"
    return {
        "validate": ["validate", *words, *SUPERVISED, classes],
        "train": train,
        "evaluate": ["evaluate", f"--checkpoint={source_bundle()}", scored, "data.eval_split=train", *words],
    }


@pytest.mark.parametrize(("fault", "kind"), _cases())
def test_planted_fault__is_told_by_every_verb(fault: str, kind: str, tmp_path: Path, capsys: Capture) -> None:
    data = Generated.make(tmp_path / "data", kind, seed=len(fault))
    FAULTS[fault](data)
    settings = DetectionData(root=data.root, format="voc" if kind == "voc" else "coco", classes=SHAPES)
    problems, notes = _found(settings)
    assert problems or notes
    for verb, argv in _commands(data).items():
        code, told = main(argv), capsys.readouterr()
        everything = told.out + told.err
        assert "Traceback" not in everything
        assert (code != 0) == bool(problems), (verb, everything)
        for text in problems[:5] if problems else notes:
            assert text.rpartition(". ")[0] in everything, (verb, everything)


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_sound_list__is_told_of_by_none(kind: str, tmp_path: Path, capsys: Capture) -> None:
    for seed in range(2):
        data = Generated.make(tmp_path / f"{seed}" / "data", kind, seed)
        settings = DetectionData(root=data.root, format="voc" if kind == "voc" else "coco", classes=SHAPES)
        assert _found(settings) == ([], [])
        for verb, argv in _commands(data).items():
            assert main(argv) == 0, verb
            assert "refuse" not in capsys.readouterr().out
