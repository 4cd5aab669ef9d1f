"""File of pseudo-labels: a COCO index of the base boxes and the candidates, which other tools read too."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.ovd.config import Candidates
from pipelines.ovd.data.vocabulary_split import Split
from pipelines.ovd.pseudo_labels.selection import select_candidates
from pipelines.ovd.pseudo_labels.shards import ScoredImage
from vision_core.config.loading import fingerprint
from vision_core.detection.datasets.checks import stated_px
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.errors import DataError
from vision_core.files import write_atomic

_PIXEL_DIGITS = 4
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Candidates of one image.

    Attributes:
        boxes: ``(n, 4)`` float32, ``xyxy`` in pixels of the image.
        labels: ``(n,)`` int64, index into all classes.
        clip_scores: ``(n,)`` float32.
        confidence: ``(n,)`` float32, the score by which they were selected.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    clip_scores: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """Pseudo-labels of a list.

    Attributes:
        by_image: Candidates by image id; images without one are absent.
        embeddings: ``(K, D)``, of all classes, length 1.
        fingerprint: Hash of the image–text model.
    """

    by_image: Mapping[str, Candidate]
    embeddings: Tensor
    fingerprint: str = ""


def coco_index(dataset: DetectionDataset, split: Split) -> dict[str, Any]:
    """Write a data set that was read with its base classes as a COCO index of all classes of a split.

    Ids of images are those of the data set, ids of categories begin at 1 in the order of the classes.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in dataset.records:
        height, width = record.size or (None, None)
        images.append({"id": record.image_id, "file_name": record.path.name, "height": height, "width": width})
        for box, label, crowd in zip(record.boxes.tolist(), record.labels, record.crowd, strict=True):
            name = dataset.classes[int(label)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": split.classes.index(name) + 1,
                    **_coco_box(box),
                    "iscrowd": int(crowd),
                    "segmentation": [],
                    "is_pseudo": False,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(split.classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_labels(  # noqa: PLR0913 (the index, the scores, what they mean, and where to)
    path: Path,
    index: Mapping[str, Any],
    scored: Sequence[ScoredImage],
    split: Split,
    embeddings: Tensor,
    settings: Candidates,
    header: Mapping[str, Any],
) -> tuple[int, tuple[str, ...]]:
    """Select candidates among scored boxes and write them behind the base boxes of an index.

    Args:
        path: The file.
        index: As ``coco_index`` makes it; boxes of novel classes and categories of no class are left out.
        scored: Scored boxes, whose names are the novel classes in the order of ``header["class_names"]``.
        split: The classes.
        embeddings: ``(K, D)``, of all classes.
        settings: Selection.
        header: Of the shards.

    Returns:
        The number of candidates, and notes on what was left out.

    Raises:
        DataError: The scores are for other names than the novel classes.
    """
    if tuple(header["class_names"]) != split.novel:
        raise DataError(
            f"The scores are for '{', '.join(header['class_names'])}', the novel classes are "
            f"'{', '.join(split.novel)}'. Score the boxes anew."
        )
    ids = {each["name"]: each["id"] for each in index["categories"]}
    base_ids = {ids[name] for name in split.base}
    base = [{"is_pseudo": False} | dict(each) for each in index["annotations"] if each["category_id"] in base_ids]
    known = {str(image["id"]): image["id"] for image in index["images"]}
    selected = [(image.image_id, entry) for image in scored for entry in _selected(image, settings)]
    placed = [(known[number], entry) for number, entry in selected if number in known]
    candidates = []
    for place, (number, entry) in enumerate(placed, start=1):
        novel = split.novel[entry.pop("name")]
        candidates.append(entry | {"id": -place, "image_id": number, "category_id": ids[novel]})
    unknown = len(selected) - len(placed)
    rows = [[float(value) for value in row] for row in embeddings.float().cpu()]
    content = {
        "info": {
            "description": "Base boxes and pseudo-labels of novel classes.",
            "novel": list(split.novel),
            "images_hash": images_hash(known),
            "scored_with": dict(header),
            "selection": settings.model_dump(mode="json", exclude={"file"}),
        },
        "images": list(index["images"]),
        "categories": [
            {"id": ids[name], "name": name, "text_emb": row} for name, row in zip(split.classes, rows, strict=True)
        ],
        "annotations": [*base, *candidates],
    }
    write_atomic(path, json.dumps(content, ensure_ascii=False))
    told = f"{unknown} candidates of images that the list does not have were left out."
    return len(candidates), (told,) if unknown else ()


def read_labels(path: Path, dataset: DetectionDataset, split: Split) -> PseudoLabels:
    """Read the candidates of a file of pseudo-labels; its base boxes are not used.

    Raises:
        DataError: It cannot be read, is damaged, is of other images, also of such that have the same ids, or of other
            classes, or has a pseudo-label of a base class.
    """
    content = _content(path)
    names = [str(each.get("name")) for each in content["categories"]]
    if tuple(names) != split.classes:
        raise DataError(
            f"'{path}' is for {len(names)} classes ({', '.join(names[:5])}, ...), the data have {len(split.classes)} "
            f"({', '.join(split.classes[:5])}, ...), in this order. Make the pseudo-labels for these classes."
        )
    if tuple(content["info"].get("novel", ())) != split.novel:
        raise DataError(f"'{path}' is for other novel classes than data.novel. Make the pseudo-labels anew.")
    expected = images_hash(record.image_id for record in dataset.records)
    if content["info"].get("images_hash") != expected:
        raise DataError(f"'{path}' was made for other images than '{dataset.name}'. Make the pseudo-labels anew.")
    _check_images(path, content["images"], dataset)
    try:
        return _read_candidates(path, content, names, split)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"'{path}' is damaged: a category or an annotation lacks a field, or has another value than a number there "
            f"({type(error).__name__}: {error}). Make the pseudo-labels anew."
        ) from error


def _check_images(path: Path, listed: Sequence[Mapping[str, Any]], dataset: DetectionDataset) -> None:
    """Refuse labels of images that have the ids of others, as most lists number theirs from 1."""
    stated = {str(each.get("id")): each for each in listed if isinstance(each, dict)}
    for record in dataset.records:
        entry = stated.get(record.image_id, {})
        name = PureWindowsPath(str(entry.get("file_name") or record.path.name)).name
        if name != record.path.name:
            raise DataError(
                f"'{path}' was made for other images than '{dataset.name}': image '{record.image_id}' is '{name}' "
                f"there and '{record.path.name}' here. Make the pseudo-labels anew."
            )
        height, width = stated_px(entry.get("height")), stated_px(entry.get("width"))
        here = record.size or (height, width)
        if height and width and max(abs(height - here[0]), abs(width - here[1])) > 1:
            raise DataError(
                f"'{path}' was made for '{name}' of {width} x {height} px, which has {here[1]} x {here[0]} px here. "
                "Make the pseudo-labels anew."
            )


def _read_candidates(path: Path, content: Mapping[str, Any], names: list[str], split: Split) -> PseudoLabels:
    numbers = {each["id"]: names.index(str(each["name"])) for each in content["categories"]}
    grouped: dict[str, list[tuple[list[float], int, float, float]]] = {}
    for entry in content["annotations"]:
        if not entry.get("is_pseudo", False):
            continue
        label = numbers[entry["category_id"]]
        if not split.is_novel[label]:
            raise DataError(
                f"'{path}': annotation '{entry['id']}' is a pseudo-label of the base class '{names[label]}'."
            )
        left, top, width, height = map(float, entry["bbox"])
        scores = float(entry["clip_score"]), float(entry["confidence"])
        if not all(map(math.isfinite, (left, top, width, height))) or not all(0 <= each <= 1 for each in scores):
            raise ValueError(f"annotation '{entry.get('id')}' has the box {entry['bbox']} and the scores {scores}")
        row = [left, top, left + width, top + height], label, *scores
        grouped.setdefault(str(entry["image_id"]), []).append(row)
    embeddings = torch.tensor([each["text_emb"] for each in content["categories"]], dtype=torch.float32)
    if not (embeddings.norm(dim=1) - 1).abs().max() < _UNIT_TOLERANCE:  # nor where it is no number
        raise ValueError("text_emb are not of length 1")
    return PseudoLabels(
        by_image={image: _joined(rows) for image, rows in grouped.items()},
        embeddings=embeddings,
        fingerprint=str(content["info"].get("scored_with", {}).get("vlm_fingerprint", "")),
    )


def images_hash(ids: object) -> str:
    """Hash the ids of images, in any order."""
    return fingerprint(sorted(map(str, ids)))  # type: ignore[call-overload]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sound = all(isinstance(content[name], list) for name in ("images", "annotations", "categories"))
        has_embeddings = all("text_emb" in each for each in content["categories"])
        info = content.get("info", {})
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {(error.strerror or 'no reason given').lower()}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is no file of pseudo-labels. Make one with the verb pseudo-label.") from error
    if not (sound and has_embeddings and isinstance(info, dict)):
        raise DataError(f"'{path}' lacks the embeddings of its classes (text_emb). Make it with the verb pseudo-label.")
    return content | {"info": info}  # type: ignore[no-any-return]


def _selected(image: ScoredImage, settings: Candidates) -> list[dict[str, Any]]:
    """Select the candidates of an image, as entries that lack their ids; ``name`` is the index of the novel class."""
    boxes = torch.tensor(image.boxes).reshape(-1, 4)
    clip = torch.tensor([row[0] for row in image.clip_scores])
    rpn = torch.tensor(image.rpn_scores)
    classes = torch.tensor([row[0] for row in image.classes], dtype=torch.int64)
    kept = select_candidates(boxes, clip, rpn, classes, settings)
    return [
        {
            "name": int(classes[row]),
            **_coco_box(image.boxes[row]),
            "iscrowd": 0,
            "segmentation": [],
            "confidence": image.clip_scores[row][0] if settings.fusion == "clip" else _mean(image, row, settings),
            "clip_score": image.clip_scores[row][0],
            "rpn_score": image.rpn_scores[row],
            "is_pseudo": True,
        }
        for row in kept.tolist()
    ]


def _mean(image: ScoredImage, row: int, settings: Candidates) -> float:
    share = settings.rpn_weight
    return share * image.rpn_scores[row] + (1 - share) * image.clip_scores[row][0]


def _joined(rows: Sequence[tuple[list[float], int, float, float]]) -> Candidate:
    boxes, labels, clip, confidence = zip(*rows, strict=True)
    return Candidate(
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        clip_scores=np.array(clip, dtype=np.float32),
        confidence=np.array(confidence, dtype=np.float32),
    )


def _coco_box(box: Sequence[float]) -> dict[str, object]:
    left, top, right, bottom = box
    width, height = round(right - left, _PIXEL_DIGITS), round(bottom - top, _PIXEL_DIGITS)
    return {
        "bbox": [round(left, _PIXEL_DIGITS), round(top, _PIXEL_DIGITS), width, height],
        "area": round(width * height, _PIXEL_DIGITS),
    }
