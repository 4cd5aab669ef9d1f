"""Scores of classifiers on labelled images: clean, and under masks, each by its name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.noise_mask.mask import MaskSource
from vision_core.console import track
from vision_core.evaluation.classification import class_scores, macro_scores, roc_areas, top_k_accuracy
from vision_core.evaluation.rows import Row
from vision_core.training.loaders import EpochBatches, batches, to_device

_BATCH = 64
_TOP = 5
Change = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a classifier says of a list.

    Attributes:
        truth: ``(N,)`` int64, or ``(N, C)`` of 0 and 1 where an image may have several classes.
        scores: ``(N, C)`` float64, probabilities.
    """

    truth: NDArray[np.int64]
    scores: NDArray[np.float64]


@torch.no_grad()
def answers(
    network: nn.Module, views: CentreViews, label: str, *, change: Change | None = None, workers: int = 0
) -> Answers:
    """The probabilities of every image of a list, in order.

    Args:
        network: In inference; it stays on its device.
        views: The list.
        label: For the progress bar.
        change: What is done to the normalised images of a batch, given its number; None: nothing, they are clean.
        workers: Reading processes.
    """
    device = next(network.parameters()).device
    order = EpochBatches(num_items=len(views), batch_size=_BATCH, shuffled=False)
    truths, found = [], []
    for number, batch in enumerate(track(batches(views, order, workers=workers), len(order), label, "batch")):
        images = normalise(to_device(batch.images, device))
        logits = network(change(images, number) if change else images).double()
        found.append((logits.softmax(dim=1) if batch.labels.ndim == 1 else logits.sigmoid()).cpu())
        truths.append(batch.labels)
    return Answers(truth=torch.cat(truths).numpy(), scores=torch.cat(found).numpy())


def score(model: str, split: str, given: Answers, classes: tuple[str, ...]) -> Row:
    """All metrics of one model on one list; a class without an image has none and is left out of the means."""
    measured = _independent(given) if given.truth.ndim == 2 else _exclusive(given)
    per_class = _per_class(given, classes)
    return Row(model=model, split=split, counts={"images": len(given.truth)}, metrics=measured, per_class=per_class)


def masked_accuracy(
    network: nn.Module, views: CentreViews, hiding: MaskSource | None, workers: int
) -> dict[str, float | None]:
    """Accuracy under the mean mask and under random ones; not to be compared with that on clean images."""
    if hiding is None:
        return {"mean_mask_accuracy": None, "random_mask_accuracy": None}
    found = {}
    for name, change in (("mean_mask", hiding.mean), ("random_mask", hiding.random)):
        given = answers(network, views, f"evaluate, {name.replace('_', ' ')}", change=change, workers=workers)
        found[f"{name}_accuracy"] = _accuracy(given)
    return dict(found)


def _exclusive(given: Answers) -> dict[str, float | None]:
    truth, scores = given.truth, given.scores
    found = macro_scores(truth, scores.argmax(axis=1), scores.shape[1])
    areas = roc_areas(truth, scores)
    top = {f"top{_TOP}_accuracy": top_k_accuracy(truth, scores, _TOP)} if scores.shape[1] > _TOP else {}
    values = {
        "macro_f1": found.f1,
        "macro_precision": found.precision,
        "macro_recall": found.recall,
        "balanced_accuracy": found.recall,
        "accuracy": found.accuracy,
        **top,
        "roc_one_vs_rest": areas.macro_one_vs_rest,
        "roc_one_vs_one": areas.macro_one_vs_one,
    }
    return {name: _known(value) for name, value in values.items()}


def _independent(given: Answers) -> dict[str, float | None]:
    called = given.scores >= 0.5
    columns = list(zip(given.truth.T, called.T, strict=True))
    f1 = [_f1(truth, each) for truth, each in columns if truth.any()]
    return {
        "macro_f1": float(np.mean(f1)) if f1 else None,
        "accuracy": float((called == given.truth).mean()),
        "roc_one_vs_rest": _mean([_area(given, number) for number in range(given.scores.shape[1])]),
    }


def _per_class(given: Answers, classes: tuple[str, ...]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    if given.truth.ndim == 2:
        for number, name in enumerate(classes):
            found[f"{name}.roc"] = _known(_area(given, number))
        return found
    recalls, f1s = class_scores(given.truth, given.scores.argmax(axis=1), len(classes))
    areas = roc_areas(given.truth, given.scores).one_vs_rest
    for number, name in enumerate(classes):
        found[f"{name}.f1"] = _known(f1s[number])
        found[f"{name}.recall"] = _known(recalls[number])
        found[f"{name}.roc"] = _known(areas[number])
    return found


def _accuracy(given: Answers) -> float:
    if given.truth.ndim == 2:
        return float(((given.scores >= 0.5) == given.truth).mean())
    return float((given.scores.argmax(axis=1) == given.truth).mean())


def _area(given: Answers, number: int) -> float:
    column = given.scores[:, number]
    return float(roc_areas(given.truth[:, number], np.stack([-column, column], axis=1)).one_vs_rest[1])


def _f1(truth: NDArray[np.int64], called: NDArray[np.bool_]) -> float:
    return float(2 * (truth * called).sum() / (truth.sum() + called.sum()))


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def with_same_metrics(rows: list[Row]) -> list[Row]:
    """The rows of a table: each has the metrics of all, none where its model has no such value."""
    names: Mapping[str, None] = dict.fromkeys(name for row in rows for name in row.metrics)
    return [
        Row(
            model=row.model,
            split=row.split,
            counts=row.counts,
            metrics={name: row.metrics.get(name) for name in names},
            per_class=row.per_class,
        )
        for row in rows
    ]
