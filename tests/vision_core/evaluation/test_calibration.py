import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vision_core.errors import CheckpointError
from vision_core.evaluation.calibration import (
    Calibration,
    abstains,
    calibrate,
    conformal_threshold,
    fit_temperature,
    nonconformity,
)
from vision_core.evaluation.scope import Scope, distance, fit_scope, outside


def draws(num_cases: int, seed: int, sharpness: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits of three classes, and labels drawn from their softmax; then the logits are made too sharp."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (num_cases, 3))
    gumbel = random.gumbel(size=logits.shape)
    return logits * sharpness, (logits + gumbel).argmax(axis=1).astype(np.int64)


def test_fit_temperature__one_right_case_is_trusted_two_thirds() -> None:
    # One case of two classes: the target is (1 + 1) / (1 + 2), so that sigmoid(3 / T) = 2 / 3.
    found = fit_temperature(np.array([[3.0, 0.0]]), np.array([0]))
    assert found == pytest.approx(3 / math.log(2), rel=1e-4)


def test_fit_temperature__four_cases_by_hand() -> None:
    # Three of four right, all with a margin of 2: targets sum to (3 · 5/6 + 1/6) / 4 = 2/3 for the larger logit.
    logits = np.array([[2.0, 0], [0, 2], [2, 0], [2, 0]])
    found = fit_temperature(logits, np.array([0, 1, 0, 1]))
    assert found == pytest.approx(2 / math.log(2), rel=1e-4)


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_fit_temperature__finds_how_much_too_sharp_the_logits_are(sharpness: float) -> None:
    assert fit_temperature(*draws(20_000, 0, sharpness)) == pytest.approx(sharpness, rel=0.04)


def test_fit_temperature__right_every_time_does_not_make_certain() -> None:
    logits = np.array([[5.0, -5.0]] * 8 + [[-5.0, 5.0]] * 8)
    fitted = calibrate(logits, np.repeat([0, 1], 8))
    np.testing.assert_allclose(fitted.probabilities(logits).max(axis=1), 17 / 18, atol=1e-4)


def test_fit_temperature__worse_than_chance_is_flat_but_finite() -> None:
    assert fit_temperature(np.array([[9.0, 0], [9, 0]]), np.array([1, 1])) == pytest.approx(100, rel=1e-3)


def test_fit_temperature__no_case_leaves_the_logits() -> None:
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, np.int64)) == 1.0


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [(0.01, 0.1), (0.4, 0.3), (0.5, 0.4), (0.6, 0.4), (0.8, 0.9), (0.81, math.inf)],  # ranks 1, 2, 3, 3, 4, 5
)
def test_conformal_threshold__the_rank_counts_the_new_case(coverage: float, expected: float) -> None:
    assert conformal_threshold(np.array([0.4, 0.1, 0.9, 0.3]), coverage) == expected


def test_conformal_threshold__a_product_a_little_above_a_whole_number_is_that_number() -> None:
    assert conformal_threshold(np.arange(99.0), 0.55) == 54.0  # 100 * 0.55 is a little above 55


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, math.nan])
def test_conformal_threshold__impossible_coverage_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_threshold(np.array([0.1]), coverage)


def test_sets__by_hand() -> None:
    fitted = Calibration(temperature=5.0, coverage=0.9, threshold=0.65, num_cases=9)
    logits = np.log([[0.9, 0.06, 0.04], [0.45, 0.38, 0.17], [0.34, 0.33, 0.33]])
    sets = fitted.sets(logits)
    assert sets.tolist() == [[True, False, False], [True, True, False], [False, False, False]]
    assert abstains(sets).tolist() == [False, True, True]
    assert bool(abstains(sets[0])) is False


def test_sets__too_few_cases_name_every_class() -> None:
    for count in range(9):
        fitted = calibrate(*draws(count, 0), coverage=0.9)
        assert fitted.threshold == math.inf and fitted.sets(np.array([9.0, 0, -9])).all()
    assert math.isfinite(calibrate(*draws(9, 0), coverage=0.9).threshold)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets__hold_the_true_class_as_often_as_promised(coverage: float) -> None:
    shares = []
    for seed in range(200):
        fitted = calibrate(*draws(60, seed, 3.0), coverage=coverage)
        logits, labels = draws(200, 1000 + seed, 3.0)
        shares.append(fitted.sets(logits)[np.arange(200), labels].mean())
    # Exactly ceil(61 · coverage) / 61 on average; its standard error here is about 0.004.
    assert np.mean(shares) == pytest.approx(math.ceil(61 * coverage) / 61, abs=0.015)
    assert np.mean(shares) > coverage - 0.01


def test_sets__temperature_changes_none() -> None:
    fitted = calibrate(*draws(50, 0))
    logits = draws(50, 1)[0]
    np.testing.assert_array_equal(fitted.sets(logits), replace(fitted, temperature=40.0).sets(logits))


def test_probabilities__of_logarithms_are_the_probabilities_and_huge_logits_are_finite() -> None:
    plain = Calibration(temperature=1.0, coverage=0.9, threshold=0.5, num_cases=20)
    np.testing.assert_allclose(plain.probabilities(np.log([0.7, 0.2, 0.1])), [0.7, 0.2, 0.1])
    np.testing.assert_array_equal(plain.probabilities(np.array([1e5, 0, -1e5])), [1, 0, 0])
    assert np.isfinite(nonconformity(np.array([1e30, 0.0]))).all()


@pytest.mark.parametrize("num_cases", [0, 200])
def test_calibration_record__goes_through_json(num_cases: int) -> None:
    fitted = calibrate(*draws(num_cases, 0))
    text = json.dumps(fitted.to_record(), allow_nan=False)
    assert Calibration.from_record(json.loads(text)) == fitted


@pytest.mark.parametrize(
    "damage",
    [{"temperature": None}, {"temperature": 0}, {"threshold": "x"}, {"threshold": -1}, {"coverage": 2}, {"cases": "x"}],
)
def test_calibration_record__damaged_is_refused(damage: dict[str, Any]) -> None:
    record = calibrate(*draws(20, 0)).to_record()
    with pytest.raises(CheckpointError, match="calibration"):
        Calibration.from_record(record | damage)
    with pytest.raises(CheckpointError, match="temperature"):
        Calibration.from_record({key: value for key, value in record.items() if key != "temperature"})


def flat(num_cases: int, seed: int, width: int = 32) -> NDArray[np.float32]:
    """Features with two long axes and a little noise."""
    random = np.random.default_rng(seed)
    axes = np.random.default_rng(99).normal(size=(2, width))
    return np.asarray(random.normal(size=(num_cases, 2)) @ axes + 0.1 * random.normal(size=(num_cases, width)) + 3)


def test_fit_scope__two_features_by_hand() -> None:
    # Around (0, 0); variance 8 / 3 along x and 2 / 3 along y, the one kept, the other the rest.
    features = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])
    scope = fit_scope(features, np.array([[0.0, 2.0], [4.0, 0.0]]), num_axes=1)
    assert scope.variances.tolist() == pytest.approx([8 / 3]) and scope.rest == pytest.approx(2 / 3)
    found = distance(scope, np.array([[2.0, 0], [0, 1], [2, 1], [0, 0]]))
    np.testing.assert_allclose(found, np.sqrt(np.array([1.5, 1.5, 3, 0]) / 2), rtol=1e-6)
    assert scope.threshold == pytest.approx(math.sqrt(6 / 2)) and scope.false_alarms == pytest.approx(1 / 3)


def test_outside__leaving_the_plane_is_seen_though_it_is_a_short_way() -> None:
    scope = fit_scope(flat(100, 0), flat(200, 1))
    along = scope.axes[0].astype(np.float64) * 2 * math.sqrt(scope.variances[0])
    beside = np.random.default_rng(5).normal(size=32)
    beside *= np.linalg.norm(along) / 4 / np.linalg.norm(beside)
    assert outside(scope, scope.mean + np.array([along, beside])).tolist() == [False, True]


def test_outside__known_cases_are_flagged_as_rarely_as_said() -> None:
    shares = []
    for seed in range(30):
        scope = fit_scope(flat(40, 3 * seed), flat(150, 3 * seed + 1), quantile=0.95)
        shares.append(outside(scope, flat(300, 3 * seed + 2)).mean())
    assert scope.false_alarms == pytest.approx(1 - 144 / 151)
    assert np.mean(shares) == pytest.approx(scope.false_alarms, abs=0.02)


def test_outside__few_held_out_cases_are_all_inside_and_that_is_said() -> None:
    held_out = flat(3, 1)
    scope = fit_scope(flat(40, 0), held_out, quantile=0.99)
    assert not outside(scope, held_out).any() and scope.false_alarms == 0.25


def test_outside__not_a_number_is_outside() -> None:
    scope = fit_scope(flat(40, 0), flat(40, 1))
    assert outside(scope, np.full((2, 32), np.nan)).all() and outside(scope, np.full(32, np.inf)).all()


@pytest.mark.parametrize("num_cases", [1, 2, 50])
def test_fit_scope__features_that_never_varied(num_cases: int) -> None:
    constant = np.full((num_cases, 8), 0.3, np.float32)
    scope = fit_scope(constant, constant)
    assert not outside(scope, constant).any()
    assert outside(scope, constant[0] + np.float32(0.01))


def test_fit_scope__one_training_case_and_one_feature() -> None:
    scope = fit_scope(np.array([[1.0]]), np.array([[1.0], [1.001]]))
    assert scope.axes.shape == (0, 1) and bool(outside(scope, np.array([2.0])))


@pytest.mark.parametrize(
    ("features", "held_out"),
    [
        (np.zeros((0, 3)), np.zeros((2, 3))),
        (np.zeros((2, 3)), np.zeros((0, 3))),
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.full((2, 3), np.nan), np.zeros((2, 3))),
    ],
)
def test_fit_scope__nothing_to_learn_from_is_refused(
    features: NDArray[np.float64], held_out: NDArray[np.float64]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit_scope(features, held_out)


def test_scope_record__goes_through_json_with_the_same_answers() -> None:
    wide = np.random.default_rng(0).normal(5, 2, (60, 512))
    scope = fit_scope(wide[:40], wide[40:])
    text = json.dumps(scope.to_record(), allow_nan=False)
    assert len(text) < 9000
    np.testing.assert_array_equal(distance(Scope.from_record(json.loads(text)), wide), distance(scope, wide))


@pytest.mark.parametrize(
    "damage",
    [
        {"mean": "!"},
        {"mean": "AAAA"},
        {"axes": ""},
        {"variances": [0, 1, 1, 1]},
        {"rest": 0},
        {"rest": "x"},
        {"threshold": None},
    ],
)
def test_scope_record__damaged_is_refused(damage: dict[str, Any]) -> None:
    record = fit_scope(flat(20, 0), flat(20, 1)).to_record()
    with pytest.raises(CheckpointError, match="scope"):
        Scope.from_record(record | damage)
