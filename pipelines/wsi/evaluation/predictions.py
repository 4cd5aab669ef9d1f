"""What a model says of a list of labelled slides, and the CSV that it is kept in."""

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

from pipelines.wsi.cohort.csv_table import unquoted
from vision_core.console import track
from vision_core.csv_tables import to_csv
from vision_core.errors import DataError, InputError
from vision_core.evaluation.classification import auc, call, youden_threshold
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE

PREDICTIONS = "predictions.csv"
_MARGIN = 1e-3  # in log-odds, below the lowest score
_LABEL, _CALLED, _NOTICE, _SHARE = "label", "called", "notice", "p_"


class LabelledSlide(Protocol):
    """What is needed of a slide beside its tiles."""

    @property
    def slide(self) -> str:
        """Its name."""
        ...

    @property
    def patient(self) -> str:
        """Whose it is."""
        ...

    @property
    def label(self) -> int:
        """Its class."""
        ...


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model says of a list of labelled slides.

    Attributes:
        slides: Their names.
        patients: Whose they are.
        labels: ``(n,)`` int64.
        probabilities: ``(n, C)`` float64.
        called: ``(n,)`` int64, the class that each is called.
        classes: Names of the ``C`` classes.
    """

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    called: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.slides)

    def auc(self) -> float:
        """Area under the ROC curve; of more than two classes, the mean of each against the rest. NaN if undefined."""
        return auc(self.labels, self.probabilities)

    def likelihood(self) -> float:
        """Mean logarithm of the probability of the true class."""
        true = np.take_along_axis(self.probabilities, self.labels[:, None], axis=1)
        return float(np.log(np.maximum(true, 1e-12)).mean())

    def threshold(self) -> float:
        """Youden's threshold on class 1, or a half where it has none: not two classes, or one without a slide."""
        if len(self.classes) != 2 or len(np.unique(self.labels)) < 2:
            return 0.5
        found = youden_threshold(self.labels, self.probabilities[:, 1])
        return found if np.isfinite(found) else 0.5

    def decision(self) -> float:
        """Calls this list as ``threshold`` does, but lies between two scores, halfway in log-odds.

        A threshold that is some slide's own score turns that slide wherever another machine rounds otherwise.
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
    """Ask for the probabilities ``(C,)`` of each slide in turn.

    Args:
        probabilities: Of the slide at a place of ``records``.
        records: The slides.
        classes: Names in the order of the probabilities.
        threshold: For ``call``.
        label: Names the progress bar; none without.

    Raises:
        InputError: Probabilities are not numbers.
    """
    places: Iterable[int] = range(len(records))
    places = track(places, len(records), label, "slide") if label else places
    rows = [require_numbers(probabilities(place).double().cpu().numpy(), records[place].slide) for place in places]
    found = np.stack(rows) if rows else np.empty((0, len(classes)))
    return Predictions(
        slides=tuple(record.slide for record in records),
        patients=tuple(record.patient for record in records),
        labels=np.array([record.label for record in records], np.int64),
        probabilities=found,
        called=call(found, threshold),
        classes=classes,
    )


def require_numbers(probabilities: NDArray[np.float64], slide: str) -> NDArray[np.float64]:
    """Probabilities as they are.

    Raises:
        InputError: They are not numbers.
    """
    if np.isfinite(probabilities).all():
        return probabilities
    raise InputError(
        f"'{slide}': what the network says is not a number: features are damaged, or of a size that it cannot bear. "
        "Extract them again."
    )


def write_predictions(path: Path, found: Predictions) -> None:
    """A CSV with a row per slide: its label, its probabilities, and what it is called."""
    header = ["slide", "patient", _LABEL, *(f"{_SHARE}{name}" for name in found.classes), _CALLED, _NOTICE]
    rows = [
        [
            found.slides[place],
            found.patients[place],
            found.classes[found.labels[place]],
            *(float(share) for share in found.probabilities[place]),
            found.classes[found.called[place]],
            RESEARCH_NOTICE,
        ]
        for place in range(len(found))
    ]
    write_atomic(path, to_csv(header, rows))


def read_predictions(path: Path) -> Predictions:
    """What ``write_predictions`` wrote.

    Raises:
        DataError: The file is something else.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        classes = tuple(name.removeprefix(_SHARE) for name in rows[0] if name.startswith(_SHARE)) if rows else ()
        return _parsed([{name: unquoted(cell) for name, cell in row.items()} for row in rows], classes)
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(f"'{path}' is no list of predictions ({error}). Run evaluate again.") from error


def _parsed(rows: Sequence[Mapping[str, str]], classes: tuple[str, ...]) -> Predictions:
    shares = [[float(row[f"{_SHARE}{name}"]) for name in classes] for row in rows]
    return Predictions(
        slides=tuple(row["slide"] for row in rows),
        patients=tuple(row["patient"] for row in rows),
        labels=np.array([classes.index(row[_LABEL]) for row in rows], np.int64),
        probabilities=np.array(shares, np.float64).reshape(len(rows), len(classes)),
        called=np.array([classes.index(row[_CALLED]) for row in rows], np.int64),
        classes=classes,
    )


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several folds as one list; each slide stays called as its own fold's threshold called it."""
    return Predictions(
        slides=tuple(slide for part in parts for slide in part.slides),
        patients=tuple(patient for part in parts for patient in part.patients),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        called=np.concatenate([part.called for part in parts]),
        classes=parts[0].classes,
    )


def _log_odds(probability: float) -> float:
    return float(np.log(max(probability, 1e-300)) - np.log(max(1 - probability, 1e-16)))
