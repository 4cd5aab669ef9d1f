"""Result files of any tool as COCO defines them: detections with boxes, with masks, or with both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faster_coco_eval.core import mask as masks

from pipelines.ovd.data.lvis import are_numbers, is_box
from vision_core.detection.datasets.coco import with_listed_ids
from vision_core.detection.datasets.coco_checks import read_json
from vision_core.errors import NUM_EXAMPLES, DataError

_LEAST_NUMBERS = 6  # of a polygon


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """Checked detections.

    Attributes:
        results: ``image_id``, ``category_id``, ``score`` and ``bbox`` of each; where the file has masks, also
            ``segmentation``, as run lengths in COCO's letters.
        has_masks: Whether each has a mask.
    """

    results: list[dict[str, Any]]
    has_masks: bool


def read_result_file(path: Path, index: Mapping[str, Any]) -> ResultFile:
    """Read a list of detections, or an index whose annotations carry scores; ids may be text or numbers.

    Masks are polygons or run lengths, as numbers or as COCO's letters; a detection without a box gets that of its mask.

    Args:
        path: The file.
        index: The index that they are scored by: ids of images with their sizes, ids of categories.

    Raises:
        DataError: It cannot be read, is for another index, or some detections have masks and some have none.
    """
    content = read_json(path)
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(f"'{path}' is no list of detections, as COCO defines results.")
    if all(isinstance(entry, dict) for entry in entries):
        entries = with_listed_ids({**index, "annotations": entries})["annotations"]
    sizes = {each["id"]: (each.get("height"), each.get("width")) for each in index["images"]}
    categories = {each["id"] for each in index["categories"]}
    masked = sum(_has_mask(entry) for entry in entries)
    if 0 < masked < len(entries):
        raise DataError(
            f"'{path}': '{masked}' of '{len(entries)}' detections have a mask. Give all of them one, or none."
        )
    problems, results = [], []
    for number, entry in enumerate(entries):
        try:
            results.append(_checked(entry, sizes, categories))
        except ValueError as error:
            problems.append(f"'{path}': detection '{number}' {error}")
    if problems:
        more = f"'{path}': so have '{len(problems) - NUM_EXAMPLES}' more detections."
        raise DataError([*problems[:NUM_EXAMPLES], *([more] if len(problems) > NUM_EXAMPLES else [])])
    return ResultFile(results=results, has_masks=bool(masked))


def with_run_lengths(index: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write the masks of an index as run lengths; None where an annotation has none.

    Raises:
        DataError: A mask is damaged.
    """
    if not (index["annotations"] and all(map(_has_mask, index["annotations"]))):
        return None
    sizes = {each["id"]: (each.get("height"), each.get("width")) for each in index["images"]}
    annotations = []
    for each in index["annotations"]:
        try:
            mask = _run_lengths(each["segmentation"], sizes[each["image_id"]])
        except ValueError as error:
            raise DataError(
                f"The annotation of the box {each.get('bbox')} in image '{each['image_id']}' {error}"
            ) from error
        annotations.append({**each, "segmentation": mask})
    return {**index, "annotations": annotations}


def _has_mask(entry: object) -> bool:
    return isinstance(entry, dict) and bool(entry.get("segmentation"))


def _checked(entry: object, sizes: Mapping[Any, tuple[Any, Any]], categories: set[Any]) -> dict[str, Any]:
    """Check a detection; a ValueError says what is wrong with it."""
    if not isinstance(entry, dict):
        raise ValueError("is no object with fields.")
    image, category, score = entry.get("image_id"), entry.get("category_id"), entry.get("score")
    if _as_key(image) not in sizes:
        raise ValueError(f"is of image '{image}', which the index does not have.")
    if _as_key(category) not in categories:
        raise ValueError(f"is of category '{category}', which the index does not have.")
    if not are_numbers([score]):
        raise ValueError(f"has the score '{score}': expected a number.")
    checked = {"image_id": image, "category_id": category, "score": score}
    if _has_mask(entry):
        checked["segmentation"] = _run_lengths(entry["segmentation"], sizes[image])
    box = entry.get("bbox")
    if box is None and "segmentation" in checked:
        box = [float(edge) for edge in masks.toBbox(checked["segmentation"])]
    if not is_box(box):
        raise ValueError(f"has the box '{box}': expected left, top, width and height.")
    return checked | {"bbox": box}


def _run_lengths(mask: object, size: tuple[Any, Any]) -> dict[str, Any]:
    """Write a mask of an image of ``(height, width)`` as run lengths in COCO's letters."""
    height, width = size
    if not (isinstance(height, int) and isinstance(width, int)):
        raise ValueError("has a mask, and the index has no size of its image.")
    if isinstance(mask, dict):
        if list(mask.get("size", ())) != [height, width]:
            raise ValueError(f"has a mask of the size '{mask.get('size')}': its image has [{height}, {width}].")
        counts = mask.get("counts")
        if isinstance(counts, list):
            if not (all(type(each) is int and each >= 0 for each in counts) and sum(counts) == height * width):
                raise ValueError("has run lengths that do not add up to the pixels of its image.")
        elif not (isinstance(counts, str) and counts.isascii()):
            raise ValueError("has a mask without run lengths.")
    elif not (isinstance(mask, list) and all(map(_is_polygon, mask))):
        raise ValueError("has a mask that is neither polygons nor run lengths.")
    found: dict[str, Any] = masks.segmToRle(mask, width, height)
    return found


def _is_polygon(points: object) -> bool:
    return isinstance(points, list) and len(points) >= _LEAST_NUMBERS and not len(points) % 2 and are_numbers(points)


def _as_key(value: object) -> object:
    return value if isinstance(value, int | str) else None
