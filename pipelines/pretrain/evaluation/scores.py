"""Scores of classifiers on labelled images, clean and under masks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.noise_mask.mask import SharedMasks
from vision_core.console import track
from vision_core.errors import NotFiniteError
from vision_core.evaluation.classification import class_scores, macro_scores, roc_areas, top_k_accuracy
from vision_core.evaluation.rows import Row
from vision_core.training.loaders import EpochBatches, batches, to_device

_BATCH = 64
_TOP = 5
Transform = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of a classifier for a list of labelled images.

    Attributes:
        truth: ``(N,)`` int64 classes, or ``(N, C)`` of 0 and 1 where an image may have several.
        scores: ``(N, C)`` float64 probabilities.
    """

    truth: NDArray[np.int64]
    scores: NDArray[np.float64]


def predict(
    network: nn.Module, views: CentreViews, label: str, *, transform: Transform | None = None, workers: int = 0
) -> Predictions:
    """Predict the class probabilities of every image of a list, in order; arguments as for ``predict_all``."""
    return predict_all(network, views, label, [transform], workers=workers)[0]


@torch.no_grad()
def predict_all(
    network: nn.Module, views: CentreViews, label: str, transforms: Sequence[Transform | None], *, workers: int = 0
) -> list[Predictions]:
    """Predict the class probabilities of every image of a list under each transform; each image is read once.

    Args:
        network: Classifier in inference mode; it stays on its device.
        views: Labelled images.
        label: Label of the progress bar.
        transforms: Transforms of the normalised images of a batch, given its number; None: the images stay clean.
        workers: Processes that read images.

    Raises:
        NotFiniteError: A logit is NaN or infinite.
    """
    device = next(network.parameters()).device
    order = EpochBatches(num_items=len(views), batch_size=_BATCH, shuffled=False)
    truths: list[Tensor] = []
    scores: list[list[Tensor]] = [[] for _ in transforms]
    for number, batch in enumerate(track(batches(views, order, workers=workers), len(order), label, "batch")):
        images = normalise(to_device(batch.images, device))
        for transform, known in zip(transforms, scores, strict=True):
            logits = network(transform(images, number) if transform else images).double()
            if not logits.isfinite().all():
                raise NotFiniteError(f"batch {number + 1} of {label}")
            known.append((logits.softmax(dim=1) if batch.labels.ndim == 1 else logits.sigmoid()).cpu())
        truths.append(batch.labels)
    truth = torch.cat(truths).numpy()
    return [Predictions(truth=truth, scores=torch.cat(known).numpy()) for known in scores]


def score(model: str, split: str, predictions: Predictions, classes: tuple[str, ...]) -> Row:
    """Compute all metrics of a model on a list; a class without images has none and is not in the means."""
    is_multi_label = predictions.truth.ndim == 2
    return Row(
        model=model,
        split=split,
        counts={"images": len(predictions.truth)},
        metrics=_multi_label_metrics(predictions) if is_multi_label else _single_label_metrics(predictions),
        per_class=_per_class(predictions, classes),
    )


def predict_masked(
    network: nn.Module, views: CentreViews, label: str, masks: SharedMasks | None, workers: int = 0
) -> tuple[Predictions, dict[str, float]]:
    """Predict a list clean and, given ``masks``, under the mean mask and random ones. Each image is read once.

    Returns:
        The predictions on clean images, and the accuracies under masks, which are not comparable with theirs.
    """
    transforms = {"mean_mask_accuracy": masks.apply_mean, "random_mask_accuracy": masks.apply_random} if masks else {}
    clean, *masked = predict_all(network, views, label, [None, *transforms.values()], workers=workers)
    return clean, {name: _accuracy(found) for name, found in zip(transforms, masked, strict=True)}


def _single_label_metrics(predictions: Predictions) -> dict[str, float | None]:
    truth, scores = predictions.truth, predictions.scores
    found = macro_scores(truth, scores.argmax(axis=1))
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


def _multi_label_metrics(predictions: Predictions) -> dict[str, float | None]:
    called = predictions.scores >= 0.5
    columns = list(zip(predictions.truth.T, called.T, strict=True))
    f1 = [_f1(truth, each) for truth, each in columns if truth.any()]
    return {
        "macro_f1": float(np.mean(f1)) if f1 else None,
        "accuracy": float((called == predictions.truth).mean()),
        "roc_one_vs_rest": _mean([_area(predictions, number) for number in range(predictions.scores.shape[1])]),
    }


def _per_class(predictions: Predictions, classes: tuple[str, ...]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    if predictions.truth.ndim == 2:
        for number, name in enumerate(classes):
            found[f"{name}.roc"] = _known(_area(predictions, number))
        return found
    recalls, f1s = class_scores(predictions.truth, predictions.scores.argmax(axis=1), len(classes))
    areas = roc_areas(predictions.truth, predictions.scores).one_vs_rest
    for number, name in enumerate(classes):
        found[f"{name}.f1"] = _known(f1s[number])
        found[f"{name}.recall"] = _known(recalls[number])
        found[f"{name}.roc"] = _known(areas[number])
    return found


def _accuracy(predictions: Predictions) -> float:
    if predictions.truth.ndim == 2:
        return float(((predictions.scores >= 0.5) == predictions.truth).mean())
    return float((predictions.scores.argmax(axis=1) == predictions.truth).mean())


def _area(predictions: Predictions, number: int) -> float:
    column = predictions.scores[:, number]
    return float(roc_areas(predictions.truth[:, number], np.stack([-column, column], axis=1)).one_vs_rest[1])


def _f1(truth: NDArray[np.int64], called: NDArray[np.bool_]) -> float:
    return float(2 * (truth * called).sum() / (truth.sum() + called.sum()))


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def align_metrics(rows: list[Row]) -> list[Row]:
    """Give every row of a table the metrics of all rows, None where a model lacks one."""
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
