"""Comparison of two detectors on a person's own images: what changed, and whether it helped."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.verdict.probing import Probe, Prober
from pipelines.sfod.verdict.rule import Rule, Verdict, judge
from pipelines.sfod.verdict.source import read_source, to_detections
from vision_core.bundles import bundle as bundles
from vision_core.bundles.card import WEIGHTS_FILE, Card
from vision_core.detection.analysis.changes import Changes, find_changes
from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.bundles import answer, build_detector, prepare
from vision_core.errors import AllInputsError, ConfigError, InputError
from vision_core.results import Detections

Read = Callable[[Path], tuple[NDArray[np.uint8], tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One of the two detectors, from its bundle."""

    detector: Detector
    card: Card


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One image: what both detectors find from the operating score on, and what became of it.

    ``before_all`` and ``after_all`` hold detections of any score.
    """

    path: Path
    before_all: Detections
    after_all: Detections
    before: Detections
    after: Detections
    changes: Changes
    difference: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two detectors on a list of images.

    Attributes:
        images: Those that could be read.
        failed: Reason by path of the others.
        verdict: What can be said without labels.
        operating_score: From which boxes count.
        notes: Remarks, a sentence each.
    """

    images: tuple[Compared, ...]
    failed: dict[Path, str]
    verdict: Verdict
    operating_score: float
    notes: tuple[str, ...]


def load_model(path: Path, device: torch.device) -> Model:
    """Load a detector and let it compute its golden pair.

    Raises:
        CheckpointError: No sound bundle of this task, or this machine computes something else.
    """
    content = bundles.load(path, SfodConfig.task)
    detector = build_detector(content).to(device)
    bundles.check_golden(content, partial(answer, detector))
    return Model(detector=detector, card=content.card)


def compare(before: Model, after: Model, images: Iterable[Path], read: Read, rule: Rule | None = None) -> Comparison:
    """Compare two detectors on images.

    Args:
        before: The one that was there first, whose operating score counts for both.
        after: The one adapted from it.
        images: Image files.
        read: Reads one, and the notes on it.
        rule: The fitted rule of the verdict, where there is one.

    Raises:
        ConfigError: They find other classes.
        AllInputsError: No image can be read.
    """
    if before.detector.classes != after.detector.classes:
        raise ConfigError(
            f"The detectors find other classes: {', '.join(before.detector.classes)} and "
            f"{', '.join(after.detector.classes)}. Only detectors of the same classes can be compared."
        )
    source, lacking = read_source(before.card)
    probers = [Prober(each.detector, source.operating_score) for each in (before, after)]
    probes: list[list[Probe]] = [[], []]
    compared, failed = [], {}
    for path in images:
        try:
            pixels, _ = read(path)
        except InputError as error:
            failed[path] = str(error)
            continue
        found = []
        for place, (model, prober) in enumerate(zip((before, after), probers, strict=True)):
            image = prepare(pixels, model.detector.settings)
            probes[place].append(prober(image, path.name))
            size = image.shape[1], image.shape[2]
            found.append(to_detections(probes[place][-1], model.detector.classes, size, pixels.shape))
        compared.append(_compared(path, found, source.operating_score))
    if not compared:
        raise AllInputsError(f"None of {len(failed)} images could be read. {next(iter(failed.values()), '')}")
    return Comparison(
        images=tuple(compared),
        failed=failed,
        verdict=judge(probes[0], probes[1], source, rule),
        operating_score=source.operating_score,
        notes=_notes(before.card, after.card, lacking),
    )


def _compared(path: Path, found: Sequence[Detections], operating_score: float) -> Compared:
    before, after = (_from(each, operating_score) for each in found)
    changes = find_changes(before, after)
    alone = len(changes.gained) + len(changes.lost)
    return Compared(
        path=path,
        before_all=found[0],
        after_all=found[1],
        before=before,
        after=after,
        changes=changes,
        difference=alone + 0.5 * len(changes.moved),
    )


def _from(found: Detections, score: float) -> Detections:
    keep = found.scores >= np.float32(score)
    return replace(found, boxes=found.boxes[keep], scores=found.scores[keep], labels=found.labels[keep])


def _notes(before: Card, after: Card, lacking: str) -> tuple[str, ...]:
    notes = [f"The card of the first bundle has {lacking}: a gain cannot be predicted from it."] if lacking else []
    if after.parent != before.hashes.get(WEIGHTS_FILE):
        notes.append("The card of the second bundle does not say that it was adapted from the first.")
    return tuple(notes)
