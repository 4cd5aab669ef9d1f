"""Predictions for labelled slides: scored, tabled, and drawn as ROC curves."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.wsi.bags import Bags
from pipelines.wsi.metrics import Scores, binary_auc, macro_auc, score_bags, youden_threshold
from vision_core.evaluation import Row
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE
from vision_core.runlog import track

PREDICTIONS = "predictions.csv"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model says of a list of labelled slides.

    Attributes:
        slides: Their names.
        patients: Whose they are.
        labels: ``(n,)`` int64.
        probabilities: ``(n, C)`` float64.
        classes: Names of the ``C`` classes.
    """

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]

    def auc(self) -> float:
        """Area under the ROC curve; of more than two classes, the mean of each against the rest. NaN if undefined."""
        if len(self.classes) == 2:
            return binary_auc(self.labels, self.probabilities[:, 1])
        return macro_auc(self.labels, self.probabilities)

    def threshold(self) -> float:
        """Youden's threshold on class 1, or a half where it has none: not two classes, or one without a slide."""
        if len(self.classes) != 2 or len(np.unique(self.labels)) < 2:
            return 0.5
        return youden_threshold(self.labels, self.probabilities[:, 1])


@torch.no_grad()
def predict_bags(network: nn.Module, bags: Bags, device: torch.device, label: str = "") -> Predictions:
    """The probabilities of every bag, in evaluation mode; ``label`` names the progress bar, none without."""
    network.eval()
    places: Iterator[int] | range = range(len(bags))
    places = track(places, len(bags), label, "slide") if label else places
    found = [network(bags[(0, place)].features.to(device)).double().cpu().numpy() for place in places]
    records = bags.records
    return Predictions(
        slides=tuple(record.slide for record in records),
        patients=tuple(record.patient for record in records),
        labels=np.array([record.label for record in records], np.int64),
        probabilities=np.stack(found) if found else np.empty((0, len(bags.classes))),
        classes=bags.classes,
    )


def score(model: str, split: str, found: Predictions, threshold: float, fold: int = 0) -> Row:
    """Discrimination, and agreement at the threshold of the validation list and at the highest probability."""
    scores: Scores = score_bags(found.labels, found.probabilities, threshold, fold)
    return Row(
        model=model,
        split=split,
        counts={"patients": len(set(found.patients)), "slides": len(found.slides)},
        metrics=scores.values,
        intervals=scores.intervals,
        per_class={
            f"{name}.auc": _defined(binary_auc((found.labels == each).astype(np.int64), found.probabilities[:, each]))
            for each, name in enumerate(found.classes)
        },
    )


def write_predictions(path: Path, found: Predictions, threshold: float) -> None:
    """A CSV with a row per slide: its label, its probabilities, and what it is called."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["slide", "patient", "label", *(f"p_{name}" for name in found.classes), "called", "notice"])
    called = call(found.probabilities, threshold)
    for place, slide in enumerate(found.slides):
        shares = [repr(float(share)) for share in found.probabilities[place]]
        named = [found.classes[found.labels[place]], *shares, found.classes[called[place]]]
        rows.writerow([_quoted(slide), _quoted(found.patients[place]), *named, RESEARCH_NOTICE])
    write_atomic(path, text.getvalue())


def read_predictions(path: Path) -> Predictions:
    """What ``write_predictions`` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name.startswith("p_")]
    classes = tuple(name.removeprefix("p_") for name in names)
    return Predictions(
        slides=tuple(row["slide"] for row in rows),
        patients=tuple(row["patient"] for row in rows),
        labels=np.array([classes.index(row["label"]) for row in rows], np.int64),
        probabilities=np.array([[float(row[name]) for name in names] for row in rows]).reshape(len(rows), len(names)),
        classes=classes,
    )


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several folds as one list."""
    return Predictions(
        slides=tuple(slide for part in parts for slide in part.slides),
        patients=tuple(patient for part in parts for patient in part.patients),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        classes=parts[0].classes,
    )


def call(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """The class of each row ``(n, C)``: of two classes, 1 from the threshold on; else the most probable."""
    if probabilities.shape[-1] == 2:
        return (probabilities[..., 1] >= threshold).astype(np.int64)
    return probabilities.argmax(axis=-1).astype(np.int64)


def draw_roc(path: Path, found: Mapping[str, Predictions]) -> None:
    """The ROC curve of each model as a PNG; of more than two classes, of each class against the rest."""
    from matplotlib.figure import Figure  # takes longer than all else here

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for model, predictions in found.items():
        for each, name in _drawn(predictions):
            rates = roc(predictions.labels == each, predictions.probabilities[:, each])
            axes.plot(*rates, drawstyle="steps-post", label=f"{model}, {name}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(RESEARCH_NOTICE, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomic(path, content.getvalue())


def roc(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates ``(t,)`` from the strictest threshold to the laxest."""
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    called = scores[None] >= thresholds[:, None]
    rate: Callable[[NDArray[np.bool_]], NDArray[np.float64]] = lambda rows: called[:, rows].sum(1) / max(rows.sum(), 1)  # noqa: E731
    return rate(~truth), rate(truth)


def _drawn(found: Predictions) -> list[tuple[int, str]]:
    named = list(enumerate(found.classes))
    return named[1:] if len(named) == 2 else named


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def _quoted(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text
