"""Scores with intervals, and ROC curves."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.wsi.evaluation.predictions import Predictions
from pipelines.wsi.evaluation.scores import draw_roc, roc, score
from tests.vision_core.evaluation.bootstrap import bootstrap
from vision_core.evaluation.classification import binary_auc, call, kappa, macro_precision
from vision_core.images.reading import read_image

LABELS = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1, 0])
SHARES = np.array([0.1, 0.4, 0.35, 0.8, 0.5, 0.9, 0.2, 0.5, 0.6, 0.7])


def ten_slides(threshold: float = 0.8, *, per_patient: int = 1) -> Predictions:
    """Check C14's slides."""
    probabilities = np.stack([1 - SHARES, SHARES], axis=1)
    return Predictions(
        slides=tuple(f"s{row}" for row in range(10)),
        patients=tuple(f"p{row // per_patient}" for row in range(10)),
        labels=LABELS,
        probabilities=probabilities,
        called=call(probabilities, threshold),
        classes=("normal", "tumour"),
    )


def test_score__called_by_the_threshold_and_by_the_most_probable_have_names_of_their_own() -> None:
    row = score("trained", "test", ten_slides())
    assert row.metrics["auc"] == pytest.approx(0.78)
    assert row.metrics["micro_accuracy"] == pytest.approx(0.7)
    assert row.per_class["tumour.f1"] == pytest.approx(0.571429, abs=1e-6)
    assert row.per_class["tumour.recall"] == pytest.approx(0.4)
    # At the most probable class 0.5 goes to the first of two equals.
    assert row.metrics["argmax_macro_f1"] == pytest.approx(0.696970, abs=1e-6)
    assert row.metrics["argmax_micro_accuracy"] == pytest.approx(0.7)
    assert row.counts == {"patients": 10, "slides": 10}
    assert next(iter(row.metrics)) == "auc"


def test_score__threshold_of_validation_is_carried_over() -> None:
    assert score("m", "test", ten_slides(0.0)).metrics["micro_accuracy"] == 0.5
    assert score("m", "test", ten_slides(0.0)).metrics["argmax_micro_accuracy"] == pytest.approx(0.7)


def test_score__bootstrap_of_slides_where_each_is_a_patient() -> None:
    found = ten_slides()
    row = score("m", "test", found, fold=3)
    samples = bootstrap(binary_auc, LABELS, SHARES, fold=3)
    assert row.intervals["auc"] == pytest.approx(tuple(np.percentile(samples, (2.5, 97.5))))
    assert row.metrics["auc_bootstrap_mean"] == pytest.approx(samples.mean())
    assert row.metrics["auc_bootstrap_std"] == pytest.approx(samples.std(ddof=1))


def test_score__slides_of_a_patient_are_drawn_together() -> None:
    both = score("m", "test", ten_slides(per_patient=2))
    alone = score("m", "test", ten_slides())
    assert both.counts["patients"] == 5
    assert both.intervals["auc"] != alone.intervals["auc"]
    assert both.metrics["auc"] == alone.metrics["auc"]


def test_score__area_of_one_class_is_undefined_not_a_half() -> None:
    """Row E17 of the bad inputs."""
    found = Predictions(**{**vars(ten_slides()), "labels": np.zeros(10, np.int64)})
    row = score("m", "test", found)
    assert row.metrics["auc"] is None
    assert "auc" not in row.intervals
    assert "auc_bootstrap_mean" not in row.metrics
    assert row.per_class["tumour.recall"] is None
    assert row.metrics["micro_accuracy"] == pytest.approx(0.8)


def test_kappa__by_hand() -> None:
    labels, called = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    assert kappa(labels, called) == pytest.approx((0.75 - 0.5) / 0.5)
    assert macro_precision(labels, called) == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(kappa(np.zeros(3, np.int64), np.zeros(3, np.int64)))


def test_roc__rises_from_corner_to_corner() -> None:
    false, true = roc(LABELS == 1, SHARES)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(0.78)


def test_draw_roc__is_a_picture_and_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_roc(tmp_path / name, {"trained": ten_slides()})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert read_image(tmp_path / "a.png").std() > 10
