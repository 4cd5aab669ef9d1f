"""Measures of the study "ovd-scenes": resampled AP50, candidates, false boxes, drift."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.ovd.bundles import OpenBundle
from pipelines.ovd.detector import join_rivals
from pipelines.ovd.image_text.model import TextModel
from pipelines.ovd.image_text.vocabulary import Vocabulary
from pipelines.ovd.predict import OvdPredictor, embed_names
from pipelines.ovd.pseudo_labels.label_file import PseudoLabels
from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.detection.model.detector import Features
from vision_core.images.reading import read_image
from vision_core.randomness import key
from vision_core.results import Detections

_IOU = 0.5
_RECALLS = np.linspace(0, 1, 101)
_SHOWN_SCORE = 0.05  # scores below, before and after, do not count as moved

Floats = NDArray[np.float64]
Rates = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Detections of one class on all scenes, the highest score first; those on crowd regions are left out.

    Attributes:
        scenes: ``(N,)`` int, scene of each detection.
        found: ``(N,)`` int, the object that it finds, -1 for none.
        truth_scenes: ``(M,)`` int, scene of each object.
        instances: ``(M,)`` int, cut-out of each object.
    """

    scenes: NDArray[np.int64]
    found: NDArray[np.int64]
    truth_scenes: NDArray[np.int64]
    instances: NDArray[np.int64]


class Remembering:
    """Text model that embeds each sentence once."""

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._known: dict[str, torch.Tensor] = {}

    @property
    def embed_dim(self) -> int:
        """As of the model."""
        return self._model.embed_dim

    def fingerprint(self) -> str:
        """As of the model."""
        return self._model.fingerprint()

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed what is new, and look the rest up."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= dict(zip(new, self._model.encode_texts(new), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def read_names(self, names: Sequence[str]) -> torch.Tensor | None:
        """As of the model."""
        return self._model.read_names(names)


def match_class(
    records: Sequence[ImageRecord], found: Sequence[Detections], label: int, instances: Sequence[Sequence[int]]
) -> Matched:
    """Match the detections of a class with its objects by COCO's rule at IoU 0.5."""
    rows: list[tuple[float, int, int]] = []
    truth_scenes: list[int] = []
    truth_instances: list[int] = []
    for scene, (record, each, names) in enumerate(zip(records, found, instances, strict=True)):
        of_class = np.flatnonzero((record.labels == label) & ~record.crowd)
        crowds = record.boxes[(record.labels == label) & record.crowd]
        outcomes = _match_scene(record.boxes[of_class], crowds, each, label)
        rows += [(score, scene, len(truth_scenes) + row if row >= 0 else -1) for score, row in outcomes]
        truth_scenes += [scene] * len(of_class)
        truth_instances += [names[int(row)] for row in of_class]
    rows.sort(key=lambda row: -row[0])
    return Matched(
        scenes=np.array([scene for _, scene, _ in rows], np.int64),
        found=np.array([row for _, _, row in rows], np.int64),
        truth_scenes=np.array(truth_scenes, np.int64),
        instances=np.array(truth_instances, np.int64),
    )


def weighted_ap(matched: Matched, scene_weights: Floats, instance_weights: Floats) -> float | None:
    """Compute COCO's average precision with weights: of an object that of scene and instance, of a mistake the scene's.

    With weights of one it is ``coco_ap50`` of the class.
    """
    weights = scene_weights[matched.truth_scenes] * instance_weights[matched.instances]
    if not weights.sum():
        return None
    is_true = matched.found >= 0
    true = np.where(is_true, weights[matched.found] if len(weights) else 0.0, 0.0).cumsum()
    false = np.where(is_true, 0.0, scene_weights[matched.scenes]).cumsum()
    if not len(true):
        return 0.0
    precision = true / np.maximum(true + false, np.finfo(np.float64).eps)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(true / weights.sum(), _RECALLS - 1e-12, side="left")
    return float(np.where(places < len(true), envelope[np.minimum(places, len(true) - 1)], 0.0).mean())


def resampled_ap50(
    matched: Mapping[str, Matched], groups: Mapping[str, Sequence[str]], counts: tuple[int, int], over: str, draws: int
) -> dict[str, list[float]]:
    """Compute group means of AP50 on resamples, the same ones for all models of a world.

    Args:
        matched: By class.
        groups: Classes of each group.
        counts: Numbers of scenes and of instances.
        over: ``scenes`` or ``instances``: what is drawn with replacement.
        draws: Number of resamples.
    """
    means: dict[str, list[float]] = {name: [] for name in groups}
    for draw in range(draws):
        generator = np.random.default_rng(key("resample", draw))
        weights = [np.ones(count) for count in counts]
        place = 0 if over == "scenes" else 1
        weights[place] = generator.multinomial(counts[place], np.full(counts[place], 1 / counts[place])).astype(float)
        values = {name: weighted_ap(each, *weights) for name, each in matched.items()}
        for name, members in groups.items():
            present = [value for member in members if (value := values[member]) is not None]
            means[name].append(round(100 * float(np.mean(present)), 3))
    return means


def candidate_rates(labels: PseudoLabels, truth: DetectionDataset, novel: Sequence[str]) -> Rates:
    """Compute precision and recall of candidates, in percent: IoU 0.5, right class, each object found once."""
    numbers = [truth.classes.index(name) for name in novel]
    right = made = wanted = 0
    for record in truth.records:
        candidates = labels.by_image.get(record.image_id)
        for label in numbers:
            boxes = record.boxes[(record.labels == label) & ~record.crowd]
            wanted += len(boxes)
            if candidates is None:
                continue
            rows = candidates.labels == label
            made += int(rows.sum())
            order = np.argsort(-candidates.confidence[rows], kind="stable")
            right += sum(row >= 0 for row in _greedy(candidates.boxes[rows][order], boxes))
    return {
        "candidates": float(made),
        "precision": 100 * right / made if made else None,
        "recall": 100 * right / wanted if wanted else None,
    }


def false_boxes(predictor: OvdPredictor, dataset: DetectionDataset, typed: Sequence[str]) -> tuple[float | None, int]:
    """Count boxes an image, with typed names at their own thresholds, on scenes that hold none of them.

    Args:
        predictor: With the typed names.
        dataset: The scenes.
        typed: The names.

    Returns:
        Boxes an image, None without such a scene, and the number of such scenes.
    """
    numbers = [dataset.classes.index(name) for name in typed]
    without = [record for record in dataset.records if not np.isin(record.labels, numbers).any()]
    counts = [len(predictor(record.path)) for record in without]
    return float(np.mean(counts)) if counts else None, len(without)


@torch.no_grad()
def drift(
    content: OpenBundle, model: TextModel, regions: torch.Tensor, names: Sequence[str], added: Sequence[str]
) -> Rates:
    """Measure how far each of many added names moves the scores of typed names, on embedded regions.

    Args:
        content: The bundle.
        model: The image–text model of its training.
        regions: ``(N, D)``, embedded.
        names: The typed names.
        added: Names that are added, one at a time.

    Returns:
        Median and 95th percentile of the moves of scores that are above 0.05 before or after, of all names and of the
        one that moves most; and the number of scores.
    """
    before = _scores(content, model, regions, names)
    moves = []
    for name in added:
        after = _scores(content, model, regions, [*names, name])[:, : len(names)]
        counted = (before > _SHOWN_SCORE) | (after > _SHOWN_SCORE)
        moves.append((after - before).abs()[counted].numpy())
    moves = [each for each in moves if len(each)]
    facts: Rates = {"scores": float(sum(map(len, moves)))}
    for place, percent in (("median", 50), ("p95", 95)):
        facts[place] = float(np.percentile(np.concatenate(moves), percent)) if moves else None
        facts[f"worst_{place}"] = max((float(np.percentile(each, percent)) for each in moves), default=None)
    return facts


@torch.no_grad()
def embedded_regions(content: OpenBundle, records: Sequence[ImageRecord]) -> torch.Tensor:
    """Embed the proposals of scenes: ``(N, D)``."""
    detector = content.detector.eval()
    found = []
    for record in records:
        image = torch.from_numpy(np.ascontiguousarray(read_image(record.path).transpose(2, 0, 1)))
        features: Features = detector.features([image])
        boxes = [each.boxes for each in detector.propose(features)]
        found.append(detector.classifier.project(detector.embed(detector.pool(features, boxes))))
    return torch.cat(found)


def read_instances(index: Path) -> tuple[list[list[int]], int]:
    """Read which cut-out each box of a list shows, numbered; and how many there are."""
    content = json.loads(index.read_text(encoding="utf-8"))
    numbers = {name: place for place, name in enumerate(sorted({each["instance"] for each in content["annotations"]}))}
    rows: dict[int, list[int]] = {each["id"]: [] for each in content["images"]}
    for each in content["annotations"]:
        rows[each["image_id"]].append(numbers[each["instance"]])
    return list(rows.values()), len(numbers)


def _match_scene(
    boxes: NDArray[np.float32], crowds: NDArray[np.float32], found: Detections, label: int
) -> list[tuple[float, int]]:
    rows = np.flatnonzero(found.labels == label)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")]
    outcomes = []
    for row, place in zip(rows, _greedy(found.boxes[rows], boxes), strict=True):
        is_ignored = place < 0 and (_inside(found.boxes[row], crowds) >= _IOU).any()
        if not is_ignored:
            outcomes.append((float(found.scores[row]), place))
    return outcomes


def _greedy(boxes: NDArray[np.float32], truths: NDArray[np.float32]) -> list[int]:
    """Give each box, in order, the free object that it overlaps most, by half or more; -1 for none."""
    taken = np.zeros(len(truths), np.bool_)
    places = []
    for box in boxes:
        overlaps = np.where(taken, -1.0, _iou(box, truths))
        best = int(overlaps.argmax()) if len(overlaps) else -1
        places.append(best if best >= 0 and overlaps[best] >= _IOU else -1)
        if places[-1] >= 0:
            taken[best] = True
    return places


def _iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> Floats:
    both = _both(box, others)
    return both / np.maximum(_area(box[None]) + _area(others) - both, 1e-9)


def _inside(box: NDArray[np.float32], others: NDArray[np.float32]) -> Floats:
    return _both(box, others) / np.maximum(_area(box[None]), 1e-9)


def _both(box: NDArray[np.float32], others: NDArray[np.float32]) -> Floats:
    corner = np.minimum(box[2:], others[:, 2:]).astype(np.float64) - np.maximum(box[:2], others[:, :2])
    return corner.clip(min=0).prod(axis=1)  # type: ignore[no-any-return]


def _area(boxes: NDArray[np.float32]) -> Floats:
    return (boxes[:, 2:].astype(np.float64) - boxes[:, :2]).prod(axis=1)  # type: ignore[no-any-return]


def _scores(content: OpenBundle, model: TextModel, regions: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    none = Vocabulary(names=(), synonyms=())
    typed = embed_names(content, model, (Vocabulary.of_classes(names), none), is_open=True)
    detector = content.detector
    classes, embeddings = detector.classes, detector.classifier.embeddings
    detector.set_vocabulary(typed.names, typed.embeddings, typed.rivals if len(typed.rivals) else None)
    logits = detector.classifier.compare(regions)
    detector.set_vocabulary(classes, embeddings)
    return join_rivals(logits, len(names)).softmax(dim=1)[:, :-1]
