"""OVD-LVIS: rare classes are novel, and scores are federated.

Source: Gupta et al., "LVIS" (CVPR 2019), version 1; rare classes as novel ones as in Gu et al., ViLD (ICLR 2022). An
image of LVIS is labelled for some classes alone: detections of the others are neither right nor wrong, and where a
class is not labelled exhaustively, unmatched ones do not count. Nothing here was compared with the published table.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from pipelines.ovd.data.vocabulary_split import Split, split_classes
from vision_core.errors import DataError
from vision_core.evaluation.class_names import written_name

MOST_DETECTIONS = 300  # an image
_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
_FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass(frozen=True, kw_only=True)
class LvisScores:
    """Average precision of LVIS in 0 to 1, over IoU 0.50 to 0.95.

    Attributes:
        mean: Over all classes with a labelled object; None without one.
        rare: Over the rare, novel ones.
        common: Over the common ones.
        frequent: Over the frequent ones.
    """

    mean: float | None
    rare: float | None
    common: float | None
    frequent: float | None


def lvis_split(categories: Sequence[Mapping[str, Any]]) -> Split:
    """Divide the categories of an index of LVIS, in the order of their ids: rare ones are novel.

    Raises:
        DataError: A category has no frequency, as in other COCO files.
    """
    ordered = sorted(categories, key=_place)
    if strange := [each["name"] for each in ordered if each.get("frequency") not in _FREQUENCIES]:
        raise DataError(f"category '{strange[0]}' has no frequency r, c or f: this is no index of LVIS.")
    names = [written_name(str(each["name"])) for each in ordered]
    return split_classes(names, [name for name, each in zip(names, ordered, strict=True) if each["frequency"] == "r"])


def check_index(index: Mapping[str, Any]) -> None:
    """Refuse an index without the federated labels of its images or the frequency of its classes.

    Raises:
        DataError: The index is none of LVIS, lists nothing or an id twice, or has a box that is none.
    """
    for table, what in (("images", "image"), ("categories", "category")):
        counts = Counter(_as_id(each.get("id")) for each in index[table])
        if not counts or None in counts:
            raise DataError(f"the index lists no {what}." if not counts else f"an entry of '{table}' has no 'id'.")
        if repeated := [number for number, count in counts.items() if count > 1]:
            raise DataError(f"{what} id '{repeated[0]}' occurs more than once in the index. Give each its own.")
    if lacking := [
        image["id"] for image in index["images"] if not all(isinstance(image.get(name), list) for name in _LISTS)
    ]:
        raise DataError(f"image '{lacking[0]}' lacks {' or '.join(_LISTS)}: this is no index of LVIS.")
    if faulty := [each for each in index["annotations"] if not is_box(each.get("bbox"))]:
        raise DataError(
            f"annotation '{faulty[0].get('id')}' has the box '{faulty[0].get('bbox')}': expected left, top, width and "
            "height. Correct it."
        )
    if strange := [each["name"] for each in index["categories"] if each.get("frequency") not in _FREQUENCIES]:
        raise DataError(f"category '{strange[0]}' has no frequency r, c or f: this is no index of LVIS.")


def lvis_scores(index: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str = "bbox") -> LvisScores:
    """Score detections as LVIS does.

    Args:
        index: Index with ``neg_category_ids`` and ``not_exhaustive_category_ids`` of each image.
        results: Detections as COCO lists them; the 300 of the highest scores an image count.
        kind: ``bbox``, or ``segm`` where results and index have masks.

    Raises:
        DataError: The index lacks those lists.
    """
    check_index(index)
    by_frequency = {each["id"]: each["frequency"] for each in index["categories"]}
    precision, ids = _precision(index, _highest(results), kind)
    means = {number: _mean(precision[:, :, column]) for column, number in enumerate(ids)}
    groups = {
        name: [value for number, value in means.items() if by_frequency[number] == letter and value is not None]
        for letter, name in _FREQUENCIES.items()
    }
    present = [value for value in means.values() if value is not None]
    return LvisScores(mean=_average(present), **{name: _average(values) for name, values in groups.items()})


def _precision(
    index: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str
) -> tuple[NDArray[np.float64], list[int]]:
    """Compute precision ``(overlaps, recalls, classes)``, -1 without an object, and the ids of the classes."""
    if not results:  # which the library cannot load; nothing is found, so that every recall is missed
        results = [{"image_id": index["images"][0]["id"], "category_id": index["categories"][0]["id"], "score": 0.0,
                    "bbox": [0.0, 0.0, 0.0, 0.0]}]  # fmt: skip
    numbered, found = _numbered(index, results)
    data = COCO(numbered)
    evaluator = COCOeval_faster(data, data.loadRes(found), kind, lvis_style=True)
    evaluator.params.maxDets = [MOST_DETECTIONS]
    evaluator.evaluate()
    evaluator.accumulate()
    ids = [index["categories"][number - 1]["id"] for number in evaluator.params.catIds]
    return np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1], ids


def _numbered(
    index: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Number images and categories from 1, as the library takes no text for an id; of lists, what is unknown goes."""
    tables = {"image_id": "images", "category_id": "categories"}
    numbers = {
        name: {_as_id(each["id"]): number for number, each in enumerate(index[table], start=1)}
        for name, table in tables.items()
    }

    def renamed(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {**entry, **{name: known[_as_id(entry[name])] for name, known in numbers.items()}}

    known = numbers["category_id"]
    images = [
        {
            **each,
            "id": number,
            **{name: [known[_as_id(one)] for one in each[name] if _as_id(one) in known] for name in _LISTS},
        }
        for number, each in enumerate(index["images"], start=1)
    ]
    categories = [{**each, "id": number} for number, each in enumerate(index["categories"], start=1)]
    content = {"images": images, "categories": categories, "annotations": list(map(renamed, index["annotations"]))}
    return content, list(map(renamed, results))


def _as_id(value: object) -> int | str | None:
    """Read an id, also where it is a number as text; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value).strip()
    return (int(text) if text.isdecimal() else text) if isinstance(value, int | str) else None


def is_box(box: object) -> bool:
    """Tell whether a box is left, top, width and height, none of the last two below 0."""
    return isinstance(box, list) and len(box) == 4 and are_numbers(box) and min(box[2:]) >= 0


def are_numbers(values: Sequence[object]) -> bool:
    """Tell whether all are finite numbers, and none is text or true."""
    return all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in values)


def _highest(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep the detections of the highest scores of each image; LVIS limits them over all classes together."""
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for each in results:
        by_image.setdefault(each["image_id"], []).append(each)
    return [
        each
        for found in by_image.values()
        for each in sorted(found, key=lambda each: -float(each["score"]))[:MOST_DETECTIONS]
    ]


def _place(category: Mapping[str, Any]) -> tuple[bool, int | str]:
    """Order categories by their ids, numbers first, also those written as text."""
    text = str(category["id"])
    return (False, int(text)) if text.isdecimal() else (True, text)


def _mean(precision: NDArray[np.float64]) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if len(counted) else None


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
