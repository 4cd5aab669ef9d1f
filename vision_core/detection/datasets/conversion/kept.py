"""The record of a conversion, ``conversion.json``: what its layout does not hold, and how the way back takes it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vision_core.detection.datasets.checks import decoded
from vision_core.detection.datasets.records import ClassList, ImageRecord, LabelledBox, objects_of
from vision_core.errors import DataError
from vision_core.files import parse_json

Layout = Literal["coco", "voc", "yolo"]
KEPT = "conversion.json"
VERSION = 1
HOLDS = {"coco": {"crowd"}, "voc": {"difficult"}, "yolo": set[str]()}
NUMBER = "id"  # of an annotation in a COCO index: kept and not counted, as are the ids of images
_SAME_PX = 0.5


def read_kept(root: Path) -> Mapping[str, Any]:
    """Read the record beside converted data; empty without one.

    Raises:
        DataError: It is none.
    """
    path = root / KEPT
    if not path.is_file():
        return {}
    remedy = "Take it away to convert without it."
    try:
        content = parse_json(decoded(path))
        version, _ = content["format"], content["lists"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is no record of a conversion ({error}). {remedy}") from error
    if version != VERSION:
        raise DataError(f"'{path}' is of version '{version}', not {VERSION}. {remedy}")
    return dict(content)


def restored(
    record: ImageRecord, kept: Mapping[str, Any], classes: Sequence[str], held: Collection[str]
) -> tuple[ImageRecord, Counter[str]]:
    """Mark boxes as before an earlier conversion, and put those back that were left out, each at its place.

    Args:
        record: An image of the converted data.
        kept: What was kept of it.
        classes: Names in the order of the labels.
        held: Marks that the converted data hold themselves; those of ``record`` count.

    Returns:
        The image, and numbers by plural noun of what has no place any more.
    """
    objects, lost = objects_of(record, classes), Counter[str]()
    for each in kept.get("boxes", ()):
        left, top, right, bottom = (float(edge) for edge in each["box"])
        wanted = LabelledBox(
            name=str(each["class"]),
            box=(left, top, right, bottom),
            is_difficult=bool(each.get("difficult", False)),
            is_crowd=bool(each.get("crowd", False)),
            extra=dict(each.get("extra", {})),
        )
        place = int(each["place"])
        if wanted.name in classes and each.get("left_out"):
            objects.insert(place, wanted)
        elif place < len(objects) and _is_same(objects[place], wanted):
            now = objects[place]
            objects[place] = replace(
                wanted,
                is_difficult=(now if "difficult" in held else wanted).is_difficult,
                is_crowd=(now if "crowd" in held else wanted).is_crowd,
                extra={**wanted.extra, **now.extra},
            )
        elif _has_marks(wanted):
            is_gone = wanted.name not in classes
            lost[f"marks of boxes {'whose class is gone' if is_gone else 'that were changed or removed'} since"] += 1
    found = ClassList(names=tuple(classes)).record(str(kept["id"]), record.path, objects, record.size)
    return replace(found, about={**kept.get("about", {}), **record.about}), lost


def inside(name: str) -> str:
    """Return the name of an image as a record of a conversion has it.

    Raises:
        DataError: It leads out of the folder to write.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(f"{KEPT} names the image '{name}', which leads out of its folder. Take the file away.")
    return name


def marks(item: LabelledBox, layout: Layout) -> dict[str, Any]:
    """List the marks of a box; none where the layout holds them all."""
    own = {"difficult": item.is_difficult, "crowd": item.is_crowd}
    strange = {name for name, is_set in own.items() if is_set} - HOLDS[layout]
    if not strange and not set(item.extra) - {layout}:
        return {}
    told = {**own, "extra": dict(item.extra), "left_out": "crowd" in strange}
    return {"class": item.name, "box": list(item.box), **{name: value for name, value in told.items() if value}}


def _is_same(one: LabelledBox, other: LabelledBox) -> bool:
    far = max(abs(first - second) for first, second in zip(one.box, other.box, strict=True))
    return one.name == other.name and far <= _SAME_PX


def _has_marks(item: LabelledBox) -> bool:
    """Tell whether more than the number of its annotation was kept of a box."""
    keys = {key for fields in item.extra.values() for key in fields}
    return item.is_difficult or item.is_crowd or bool(keys - {NUMBER})
