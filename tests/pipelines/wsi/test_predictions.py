"""What is said of a list of slides, kept in a CSV and read again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.wsi.predictions import Predictions, call, pool, predict_bags, read_predictions, write_predictions
from vision_core.errors import DataError


@dataclass(frozen=True)
class Record:
    slide: str
    patient: str
    label: int


def made(count: int = 10, classes: tuple[str, ...] = ("normal", "tumour"), seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(len(classes)), count)
    return Predictions(
        slides=tuple(f"s{row}" for row in range(count)),
        patients=tuple(f"p{row // 2}" for row in range(count)),
        labels=np.arange(count) % len(classes),
        probabilities=probabilities,
        called=probabilities.argmax(axis=1),
        classes=classes,
    )


def test_predict_bags__in_the_order_of_the_records() -> None:
    records = [Record("a", "p", 1), Record("b", "q", 0)]
    rows = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    found = predict_bags(lambda place: rows[place], records, ("normal", "tumour"), threshold=0.6)
    assert found.slides == ("a", "b")
    assert found.probabilities.tolist() == rows.tolist()
    assert found.labels.tolist() == [1, 0]
    assert found.called.tolist() == [1, 0]


def test_predict_bags__no_slide_is_an_empty_table() -> None:
    assert predict_bags(lambda _: torch.zeros(2), [], ("a", "b")).probabilities.shape == (0, 2)


def test_call__threshold_itself_is_positive() -> None:
    assert call(np.array([[0.7, 0.3], [0.71, 0.29]]), 0.3).tolist() == [1, 0]


def test_call__of_three_classes_the_most_probable() -> None:
    assert call(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]), 0.9).tolist() == [1, 0]


def test_threshold__of_one_class_or_three_is_a_half() -> None:
    one = made(4)
    assert Predictions(**{**vars(one), "labels": np.zeros(4, np.int64)}).threshold() == 0.5
    assert made(6, ("a", "b", "c")).threshold() == 0.5
    assert one.threshold() in one.probabilities[:, 1]


@pytest.mark.parametrize("classes", [("normal", "tumour"), ("a", "b", "=c"), ("+", "-")])
def test_write_predictions__comes_back_bit_for_bit(classes: tuple[str, ...], tmp_path: Path) -> None:
    found = made(7, classes)
    write_predictions(tmp_path / "predictions.csv", found)
    text = (tmp_path / "predictions.csv").read_text()
    assert text.count("Not for diagnosis") == 7
    again = read_predictions(tmp_path / "predictions.csv")
    assert again.classes == classes
    for name in ("labels", "probabilities", "called"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert (again.slides, again.patients) == (found.slides, found.patients)


def test_write_predictions__a_slide_named_like_a_formula_is_quoted(tmp_path: Path) -> None:
    found = Predictions(**{**vars(made(1)), "slides": ("=cmd|' /C calc'!A0",)})
    write_predictions(tmp_path / "p.csv", found)
    assert "\n'=cmd" in (tmp_path / "p.csv").read_text()
    assert read_predictions(tmp_path / "p.csv").slides == found.slides


def test_read_predictions__another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("slide,label\na,b\n")
    with pytest.raises(DataError, match="no list of predictions"):
        read_predictions(tmp_path / "p.csv")


def test_pool__keeps_what_each_fold_called() -> None:
    pooled = pool([made(4, seed=1), made(6, seed=2)])
    assert len(pooled) == 10
    assert pooled.called.tolist() == [*made(4, seed=1).called, *made(6, seed=2).called]
