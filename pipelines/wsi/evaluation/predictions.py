"""Predictions of a model on labelled slides, and their CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from vision_core.console import track
from vision_core.csv_tables import to_csv, unquoted
from vision_core.errors import DataError
from vision_core.evaluation.classification import auc, call, youden_threshold
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE

PREDICTIONS = "predictions.csv"
_MARGIN = 1e-3  # in log-odds, below the lowest score
_LABEL, _CALLED, _CATEGORY, _NOTICE, _PROBABILITY = "label", "called", "category", "notice", "p_"


class LabelledSlide(Protocol):
    """Name, patient and class of a slide."""

    @property
    def slide(self) -> str:
        """Name of the slide."""
        ...

    @property
    def patient(self) -> str:
        """Identifier of the patient."""
        ...

    @property
    def label(self) -> int:
        """Index of the class."""
        ...


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of a model on labelled slides.

    Attributes:
        slides: Names of the slides.
        patients: Identifiers of their patients.
        labels: ``(n,)`` int64, true classes.
        probabilities: ``(n, C)`` float64.
        called: ``(n,)`` int64, predicted classes at the model's threshold.
        classes: Names of the ``C`` classes.
        categories: Category of each slide as ``predict`` gives it; empty where it was not decided. Scores compare
            ``called``, which never declines.
    """

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    called: NDArray[np.int64]
    classes: tuple[str, ...]
    categories: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.slides)

    def auc(self) -> float:
        """Compute the area under the ROC curve, macro one-vs-rest; NaN if undefined."""
        return auc(self.labels, self.probabilities)

    def log_likelihood(self) -> float:
        """Compute the mean log-probability of the true class."""
        true = np.take_along_axis(self.probabilities, self.labels[:, None], axis=1)
        return float(np.log(np.maximum(true, 1e-12)).mean())

    def threshold(self) -> float:
        """Compute Youden's threshold on class 1.

        It is 0.5 where undefined: not two classes, a class without slides, or no threshold better than chance.
        """
        if len(self.classes) != 2 or len(np.unique(self.labels)) < 2:
            return 0.5
        found = youden_threshold(self.labels, self.probabilities[:, 1])
        return found if np.isfinite(found) else 0.5

    def decision_threshold(self) -> float:
        """Compute the threshold for the card: like ``threshold``, but between two scores.

        It lies halfway in log-odds. A threshold equal to a slide's score would change that slide's prediction on a
        machine that rounds differently.
        """
        threshold = self.threshold()
        scores = self.probabilities[:, 1] if len(self.classes) == 2 else np.empty(0)
        below = scores[scores < threshold]
        if threshold not in scores:
            return threshold
        upper = _log_odds(threshold)
        return float(expit((upper + _log_odds(below.max())) / 2 if len(below) else upper - _MARGIN))


@torch.no_grad()
def predict_bags(
    probabilities: Callable[[int], Tensor],
    records: Sequence[LabelledSlide],
    classes: tuple[str, ...],
    threshold: float = 0.5,
    label: str = "",
) -> Predictions:
    """Predict the probabilities ``(C,)`` of each slide in turn.

    Args:
        probabilities: Function from an index into ``records`` to probabilities.
        records: The slides.
        classes: Names in the order of the probabilities.
        threshold: Threshold of ``call``.
        label: Name of the progress bar; empty: no bar.
    """
    places: Iterable[int] = range(len(records))
    places = track(places, len(records), label, "slide") if label else places
    rows = [probabilities(place).double().cpu().numpy() for place in places]
    found = np.stack(rows) if rows else np.empty((0, len(classes)))
    return Predictions(
        slides=tuple(record.slide for record in records),
        patients=tuple(record.patient for record in records),
        labels=np.array([record.label for record in records], np.int64),
        probabilities=found,
        called=call(found, threshold),
        classes=classes,
    )


def write_predictions(path: Path, found: Predictions) -> None:
    """Write a CSV with label, probabilities, predicted class and, where decided, category of each slide."""
    shares = (f"{_PROBABILITY}{name}" for name in found.classes)
    category = [_CATEGORY] if found.categories else []
    header = ["slide", "patient", _LABEL, *shares, _CALLED, *category, _NOTICE]
    rows = [
        [
            found.slides[place],
            found.patients[place],
            found.classes[found.labels[place]],
            *(float(probability) for probability in found.probabilities[place]),
            found.classes[found.called[place]],
            *found.categories[place : place + 1],
            RESEARCH_NOTICE,
        ]
        for place in range(len(found))
    ]
    write_atomic(path, to_csv(header, rows))


def read_predictions(path: Path) -> Predictions:
    """Read predictions written by ``write_predictions``.

    Raises:
        DataError: The file is no CSV of predictions.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        classes = (
            tuple(name.removeprefix(_PROBABILITY) for name in rows[0] if name.startswith(_PROBABILITY)) if rows else ()
        )
        return _parsed([{name: unquoted(cell) for name, cell in row.items()} for row in rows], classes)
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(f"'{path}' is no list of predictions ({error}). Run evaluate again.") from error


def _parsed(rows: Sequence[Mapping[str, str]], classes: tuple[str, ...]) -> Predictions:
    probabilities = [[float(row[f"{_PROBABILITY}{name}"]) for name in classes] for row in rows]
    return Predictions(
        slides=tuple(row["slide"] for row in rows),
        patients=tuple(row["patient"] for row in rows),
        labels=np.array([classes.index(row[_LABEL]) for row in rows], np.int64),
        probabilities=np.array(probabilities, np.float64).reshape(len(rows), len(classes)),
        called=np.array([classes.index(row[_CALLED]) for row in rows], np.int64),
        classes=classes,
        categories=tuple(row[_CATEGORY] for row in rows if _CATEGORY in row),
    )


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Pool the predictions of several folds.

    Each slide keeps the class predicted at its own fold's threshold.
    """
    categories = tuple(category for part in parts for category in part.categories)
    return Predictions(
        slides=tuple(slide for part in parts for slide in part.slides),
        patients=tuple(patient for part in parts for patient in part.patients),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        called=np.concatenate([part.called for part in parts]),
        classes=parts[0].classes,
        categories=categories if all(part.categories for part in parts) else (),
    )


def _log_odds(probability: float) -> float:
    return float(np.log(max(probability, 1e-300)) - np.log(max(1 - probability, 1e-16)))
