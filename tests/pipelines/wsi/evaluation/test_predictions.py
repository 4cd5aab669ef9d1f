"""What is said of a list of slides, kept in a CSV and read again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.wsi.evaluation.predictions import Predictions, pool, predict_bags, read_predictions, write_predictions
from vision_core.errors import DataError
from vision_core.evaluation.classification import call


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
    assert relabelled(one, [1, 0, 1, 0]).threshold() == one.probabilities[0, 1]  # 0.60; the other is 0.75


def relabelled(found: Predictions, labels: list[int]) -> Predictions:
    return Predictions(**{**vars(found), "labels": np.array(labels, np.int64)})


def with_scores(scores: list[float], labels: list[int]) -> Predictions:
    rows = np.array(scores)
    return relabelled(Predictions(**{**vars(made(len(rows))), "probabilities": np.stack([1 - rows, rows], 1)}), labels)


def test_threshold__where_none_is_better_than_chance_is_a_half() -> None:
    assert with_scores([0.9, 0.1], [0, 1]).threshold() == 0.5
    assert with_scores([0.7, 0.7], [0, 1]).threshold() == 0.5


def test_decision__lies_between_two_scores_and_calls_alike() -> None:
    found = with_scores([0.2, 0.5, 0.8, 0.9], [0, 0, 1, 1])
    assert found.threshold() == 0.8
    assert found.decision_threshold() == pytest.approx(2 / 3)  # odds 4 and 1: 2
    assert call(found.probabilities, found.decision_threshold()).tolist() == [0, 0, 1, 1]


def test_decision__below_the_lowest_score_where_all_are_called() -> None:
    found = with_scores([0.5, 0.4, 0.6], [0, 1, 1])
    assert found.threshold() == 0.6
    whole = with_scores([0.3, 0.3, 0.2], [1, 1, 0])
    assert 0.2 < whole.decision_threshold() < 0.3
    alone = Predictions(**{**vars(whole), "probabilities": np.array([[0.4, 0.6]] * 3)})
    assert alone.decision_threshold() == 0.5  # nobody is told from anybody


@pytest.mark.parametrize("gap", [20.0, 40.0, 80.0])
def test_decision__of_probabilities_that_are_all_nearly_one(gap: float) -> None:
    odds = np.array([-gap, -2.0, gap, 1.5 * gap])
    logs = -np.logaddexp(0, np.stack([odds, -odds], axis=1))
    found = Predictions(**{**vars(made(4)), "probabilities": np.exp(logs), "labels": np.array([0, 0, 1, 1])})
    assert call(found.probabilities, found.decision_threshold()).tolist() == [0, 0, 1, 1]


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


def test_write_predictions__category_stands_beside_the_class_that_is_scored(tmp_path: Path) -> None:
    parts = [
        Predictions(**{**vars(made(3, seed=seed)), "categories": ("undecided", "tumour", "=c")}) for seed in (1, 2)
    ]
    write_predictions(tmp_path / "p.csv", pool(parts))
    head, first, *_ = (tmp_path / "p.csv").read_text().splitlines()
    assert head.endswith(",called,category,notice") and ",undecided," in first
    assert read_predictions(tmp_path / "p.csv").categories == parts[0].categories * 2
    assert pool([parts[0], made(2)]).categories == ()  # of before


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
