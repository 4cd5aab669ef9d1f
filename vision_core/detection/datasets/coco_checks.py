"""Checks of what the annotations of a COCO index say beside their boxes: polygons, rotation, scores."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision_core.detection.datasets.checks import decoded
from vision_core.detection.datasets.records import Extra, ReaderReport
from vision_core.errors import DataError
from vision_core.files import RepeatedKeyError, parse_json

Entry = Mapping[str, Any]
_Box = tuple[float, float, float, float]
_MOST_LOOKED_AT = 2000  # polygons of an index
_MEMORY_PER_BYTE = 8  # bytes of Python objects for a byte of JSON, measured and rounded up
_READ = {"id", "image_id", "category_id", "bbox", "iscrowd"}
_SAYS_NOTHING: tuple[Any, ...] = (None, 0, "", [], {})
_SAME_AREA = 1e-3
_TOLERATED_PX, _TOLERATED_SHARE = 3.0, 0.1  # between the edges of a box and of its polygon


def check_annotations(entries: Sequence[Entry], report: ReaderReport) -> None:
    """Refuse boxes that are rotated or do not fit their polygons; tell of annotations that carry scores.

    Args:
        entries: Annotations.
        report: Receives the problems and notes.
    """
    _check_rotation(entries, report)
    _check_polygons(entries, report)
    if entries and all(_is_number(entry.get("score")) for entry in entries):
        report.note("SCORES: every annotation carries one, as detections of a model do. Are these labels?")


def extra_of(entry: Entry) -> Extra:
    """Keep the number of an annotation and the fields that detectors do not use, where they say something."""
    kept = {name: value for name, value in entry.items() if name not in _READ and value not in _SAYS_NOTHING}
    kept |= {"id": entry["id"]}
    box = _box(entry)
    if box is not None and _is_number(kept.get("area")):
        size = (box[2] - box[0]) * (box[3] - box[1])
        if abs(kept["area"] - size) <= _SAME_AREA * max(size, 1.0):
            del kept["area"]
    return {"coco": kept} if kept else {}


def _check_rotation(entries: Sequence[Entry], report: ReaderReport) -> None:
    """Refuse boxes that a labelling tool has turned: their four numbers are of the box before it was turned."""
    angles = {str(entry.get("id")): _rotation(entry) for entry in entries}
    turned = {number: angle for number, angle in angles.items() if angle % 360}
    if turned:
        number, angle = next(iter(turned.items()))
        report.refuse(
            f"'{len(turned)}' annotations are rotated boxes (first annotation {number}, by '{angle:g}' degrees), which "
            "are not read. Export upright boxes."
        )


def _rotation(entry: Entry) -> float:
    attributes = entry.get("attributes")
    found = (attributes if isinstance(attributes, Mapping) else {}).get("rotation", entry.get("rotation"))
    return float(found) if _is_number(found) else 0.0


def _check_polygons(entries: Sequence[Entry], report: ReaderReport) -> None:
    """Refuse an index where most boxes do not fit the polygons of their annotations; tell of a few."""
    drawn = [entry for entry in entries if isinstance(entry.get("segmentation"), list) and entry["segmentation"]]
    unlike, looked_at = [], 0
    for entry in drawn[:: max(1, len(drawn) // _MOST_LOOKED_AT)]:
        box, extent = _box(entry), _extent(entry["segmentation"])
        if box is None or extent is None:
            continue
        looked_at += 1
        tolerated = max(_TOLERATED_PX, _TOLERATED_SHARE * max(extent[2] - extent[0], extent[3] - extent[1]))
        if max(abs(one - other) for one, other in zip(box, extent, strict=True)) > tolerated:
            unlike.append((entry, box, extent))
    if not unlike:
        return
    entry, box, extent = unlike[0]
    told = (
        f"'{len(unlike)}' of '{looked_at}' boxes do not fit the polygons of their annotations (first annotation "
        f"{entry.get('id')}: box from {_corners(box)}, polygon from {_corners(extent)})"
    )
    if 2 * len(unlike) >= looked_at:
        report.refuse(f"{told}. bbox is x, y, width, height in pixels of the image as it is now. Correct it.")
    else:
        report.note(f"BOXES BESIDE THEIR POLYGONS: {told}. The boxes are used")


def _box(entry: Entry) -> _Box | None:
    try:
        left, top, width, height = (float(value) for value in entry["bbox"])
    except (TypeError, ValueError):  # refused where it is read
        return None
    return left, top, left + width, top + height


def _extent(polygons: Sequence[Any]) -> _Box | None:
    """Compute the edges of polygons ``[x, y, x, y, ...]``; None for what is none."""
    numbers: list[list[float]] = [each for each in polygons if isinstance(each, list) and len(each) >= 6]
    if len(numbers) < len(polygons) or not all(_is_number(value) for each in numbers for value in each):
        return None
    xs, ys = ([value for each in numbers for value in each[start::2]] for start in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def _corners(box: _Box) -> str:
    return f"({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g})"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_json(path: Path) -> Any:  # noqa: ANN401 (any JSON)
    """Read a JSON file of a data set: an index, or the results of a detector.

    Raises:
        DataError: It breaks off, names a key twice, is nested too deeply, or needs more memory than there is.
    """
    _refuse_oversized(path)
    try:
        return parse_json(decoded(path))
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        size = path.stat().st_size
        raise DataError(f"'{path}' breaks off: {error.msg} at byte '{offset}' of {size}. Copy it again.") from error
    except RepeatedKeyError as error:
        raise DataError(f"'{path}': {error}. Write each key once.") from error
    except RecursionError as error:
        raise DataError(f"'{path}' is not a COCO index: {error}. Correct data.split or data.format.") from error


def _refuse_oversized(path: Path) -> None:
    """Refuse a file that the memory of this machine cannot hold."""
    needed = path.stat().st_size * _MEMORY_PER_BYTE
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise DataError(
            f"'{path}' would take about '{needed / 1e9:.0f}' GB of memory; this machine has {memory / 1e9:.0f} GB. "
            "Split it into several indexes."
        )
