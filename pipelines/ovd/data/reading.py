"""Reading of a list with the base classes alone, for training, and with all of them, for scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.ovd.config import OvdData
from pipelines.ovd.data.lvis import LvisScores, check_index, lvis_scores, lvis_split
from pipelines.ovd.data.vocabulary_split import Split, base_dataset, check_no_leak, split_classes
from pipelines.ovd.pseudo_labels.label_file import coco_index
from vision_core.detection.datasets.coco import index_path, load_index, with_listed_ids
from vision_core.detection.datasets.reading import DetectionDataset, existing_root, read_dataset
from vision_core.errors import ConfigError
from vision_core.evaluation.class_names import written_name
from vision_core.results import Detections

_SHOWN = 5


def class_split(data: OvdData) -> Split:
    """Divide ``data.classes`` by ``data.novel``; where LVIS scores and both are empty, its index by frequency.

    Raises:
        ConfigError: One of them is empty, or a name of one is missing in the other.
        DataError: The index is none of LVIS.
    """
    _refuse_unread(data)
    if data.evaluator and not data.classes and not data.novel:
        return lvis_split(_index(data, data.split)["categories"])
    if not data.classes:
        raise ConfigError("data.classes is empty: name base and novel classes, in the order of the logits.")
    return split_classes(data.classes, data.novel)


def check_scored_classes(data: OvdData, splits: Mapping[str, Split]) -> None:
    """Refuse classes that are those of no model to score: its own would count, whatever is stated.

    Raises:
        ConfigError: ``data.classes`` or ``data.novel`` differ from those of all models.
    """
    stated = set(data.classes), set(data.novel)
    if not data.classes or not splits or stated in [(set(each.classes), set(each.novel)) for each in splits.values()]:
        return
    model, split = next(iter(splits.items()))
    raise ConfigError(
        f"data.classes and data.novel are not those of '{model}', which is scored by its own: {len(split.classes)} "
        f"classes ({', '.join(split.classes[:_SHOWN])}, ...), novel {', '.join(split.novel[:_SHOWN])}, .... Leave both "
        "out."
    )


def read_base(data: OvdData) -> tuple[DetectionDataset, Split]:
    """Read ``data.split`` without a box of a novel class; labels are numbered by all classes.

    Raises:
        ConfigError: As for ``class_split``.
        DataError: The list has problems, or a novel box among its labels.
    """
    split = class_split(data)
    base = data.model_copy(update={"classes": split.base})
    read = read_dataset(base, data.split, with_labels=True, known=split.novel)
    dataset = base_dataset(read, split)
    check_no_leak(dataset, split)
    return dataset, split


def read_all(data: OvdData) -> tuple[DetectionDataset, Split]:
    """Read ``data.split`` with the boxes of all classes: for an image–text model, never for a detector.

    Raises:
        ConfigError: As for ``class_split``.
        DataError: The list has problems.
    """
    split = class_split(data)
    return read_dataset(data.model_copy(update={"classes": split.classes}), data.split, with_labels=True), split


def read_scored(data: OvdData, split: Split) -> DetectionDataset:
    """Read ``data.eval_split`` with the boxes of all classes.

    Raises:
        ConfigError: No list is named.
        DataError: The list has problems.
    """
    if not data.eval_split:
        raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
    _refuse_unread(data)
    if data.evaluator:
        check_index(_index(data, data.eval_split))  # before hours of detection
    return read_dataset(data.model_copy(update={"classes": split.classes}), data.eval_split, with_labels=True)


def read_index(data: OvdData, dataset: DetectionDataset, split: Split) -> dict[str, Any]:
    """Read the COCO index of ``data.split`` as it is; other formats are written as one.

    Args:
        data: Folder and format.
        dataset: The list, as ``read_base`` reads it.
        split: Its classes.
    """
    if data.format != "coco":
        return coco_index(dataset, split)
    content = _index(data, data.split)
    known = {record.image_id for record in dataset.records}
    images = [image for image in content["images"] if str(image["id"]) in known]
    named = [{**each, "name": written_name(str(each["name"]))} for each in content["categories"]]
    categories = [each for each in named if each["name"] in split.classes]
    extra = [name for name in split.classes if name not in {each["name"] for each in categories}]
    largest = max((int(each["id"]) for each in named if str(each["id"]).isdecimal()), default=0)
    categories += [{"id": largest + number, "name": name} for number, name in enumerate(extra, start=1)]
    return {"images": images, "annotations": content["annotations"], "categories": categories}


def federated_scores(data: OvdData, dataset: DetectionDataset, found: Sequence[Detections]) -> LvisScores:
    """Score detections in a list that ``read_scored`` has read as LVIS does.

    Args:
        data: Folder of the index.
        dataset: The images; those of the index that were left out are not scored.
        found: Detections, one per image.

    Raises:
        DataError: The index is none of LVIS.
    """
    content = _index(data, data.eval_split or "")
    images = {str(each["id"]): each for each in content["images"]}
    numbers = {written_name(str(each["name"])): each["id"] for each in content["categories"]}
    shown = [images[record.image_id] for record in dataset.records]
    wanted = {numbers[name] for name in dataset.classes if name in numbers}
    results = [
        {
            "image_id": image["id"],
            "category_id": numbers[each.classes[label]],
            "score": float(score),
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
        }
        for image, each in zip(shown, found, strict=True)
        for box, score, label in zip(each.boxes, each.scores, each.labels, strict=True)
        if each.classes[label] in numbers
    ]
    return lvis_scores(_part(content, shown, wanted), results)


def read_lvis(data: OvdData) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read the index of ``data.eval_split``, an index of LVIS, with all its classes; and notes on what is left out.

    Raises:
        ConfigError: No list is named.
        DataError: It cannot be read, or is none of LVIS.
    """
    if not data.eval_split:
        raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
    content = _index(data, data.eval_split)
    check_index(content)
    index = _part(content, content["images"], {each["id"] for each in content["categories"]})
    lost = len(content["annotations"]) - len(index["annotations"])
    told = f"ANNOTATIONS LEFT OUT: '{lost}' of '{len(content['annotations'])}' are of an unlisted image or category."
    return index, (told,) if lost else ()


def _refuse_unread(data: OvdData) -> None:
    """Refuse keys of other detection tasks, which would be passed over."""
    stated = {"data.eval_classes": data.eval_classes, "data.filter_empty": data.filter_empty}
    if found := [f"{name} has no effect in this task. Leave it out." for name, value in stated.items() if value]:
        raise ConfigError(found)


def _part(content: Mapping[str, Any], images: Sequence[Mapping[str, Any]], wanted: set[Any]) -> dict[str, Any]:
    """Keep some images and categories of an index with their annotations, numbered from 1: 0 would be no match."""
    known = {each["id"] for each in images}
    labelled = (each for each in content["annotations"] if each["image_id"] in known and each["category_id"] in wanted)
    return {
        "images": list(images),
        "annotations": [{**each, "id": number} for number, each in enumerate(labelled, start=1)],
        "categories": [each for each in content["categories"] if each["id"] in wanted],
    }


def _index(data: OvdData, split: str) -> dict[str, Any]:
    return dict(with_listed_ids(load_index(index_path(existing_root(data), split))))
