import json

import numpy as np
import pytest
from scipy.optimize import minimize

from pipelines.sfod.verdict.truth_map import TruthMap, _monotone, fit_truth_map


def sample(count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    scores, stabilities = draws.random((2, count))
    return scores, stabilities, draws.random(count) < scores * (0.5 + 0.5 * stabilities)


def test_fit__follows_the_truth_and_never_falls() -> None:
    fitted = fit_truth_map(*sample())
    assert (np.diff(fitted.probability, axis=0) >= 0).all()
    assert (np.diff(fitted.probability, axis=1) >= 0).all()
    low, middle, high = fitted(np.array([0.1, 0.5, 0.95]), np.array([0.1, 0.5, 0.95]))
    assert low == pytest.approx(0.055, abs=0.05)
    assert middle == pytest.approx(0.375, abs=0.08)
    assert high == pytest.approx(0.93, abs=0.06)


def test_fit__is_the_nearest_table() -> None:
    draws = np.random.default_rng(1)
    table, weights = draws.random((3, 3)), draws.integers(1, 9, (3, 3)).astype(float)
    best = minimize(
        lambda flat: (weights.ravel() * (flat - table.ravel()) ** 2).sum(),
        np.full(9, table.mean()),
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": lambda flat, axis=axis: np.diff(flat.reshape(3, 3), axis=axis).ravel()}
            for axis in (0, 1)
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert _monotone(table, weights).ravel() == pytest.approx(best.x, abs=1e-4)


def test_fit__one_detection() -> None:
    fitted = fit_truth_map(np.array([0.7]), np.array([1.0]), np.array([True]))
    assert fitted(np.array([0.1, 0.9]), np.array([0.0, 1.0])).tolist() == [1, 1]


def test_fit__without_detections_is_refused() -> None:
    with pytest.raises(ValueError, match="No detection"):
        fit_truth_map(np.empty(0), np.empty(0), np.empty(0, bool))


def test_record__comes_back_through_json() -> None:
    fitted = fit_truth_map(*sample(200))
    again = TruthMap.from_record(json.loads(json.dumps(fitted.to_record())))
    assert again.probability.tolist() == fitted.probability.tolist()


@pytest.mark.parametrize("probability", [[[0.5, 0.2]], [[0.1, 0.2], [0.3, 0.4]], [[0.1, 1.2]], [[0.1, float("nan")]]])
def test_record__that_is_no_map_is_refused(probability: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="map"):
        TruthMap.from_record({"scores": [0.1], "stabilities": [0.0, 0.5], "probability": probability})
