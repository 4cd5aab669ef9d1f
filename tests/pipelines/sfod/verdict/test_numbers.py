from typing import Any

import numpy as np
import pytest

from pipelines.sfod.verdict.numbers import (
    BASELINES,
    NUMBERS,
    Source,
    boxes_per_image,
    compute_numbers,
    prototypes_of,
    share_divergence,
)
from pipelines.sfod.verdict.probing import Probe
from pipelines.sfod.verdict.truth_map import TruthMap


def probe(**changed: list[Any]) -> Probe:
    values: dict[str, Any] = {
        "counts": [1, 1],
        "mirror": [1, 2],
        "stability": [3, 4],
        "geometry": [2, 4],
        "flatness": [4, 8],
        "divergence": [0, 2],
        "consistency": [1, 2],
        "confidence": [1.5, 2],
        "entropy": [0.4, 2],
        "feature_sums": [[1, 0], [0, 1], [0, 0]],
        "feature_counts": [1, 1, 0],
        "boxes": [[0, 0, 9, 9]] * 3,
        "labels": [0, 1, 0],
        "scores": [0.9, 0.6, 0.2],
        "stabilities": [1.0, 0.5, 0.0],
    } | changed
    return Probe(**{name: np.array(value, float) for name, value in values.items()})


def source(**changed: Any) -> Source:  # noqa: ANN401
    chances = TruthMap(
        scores=np.array([0.0, 0.5]), stabilities=np.array([0.0, 0.75]), probability=np.array([[0.1, 0.2], [0.5, 0.8]])
    )
    return Source(
        operating_score=0.5,
        truth_map=chances,
        prototypes=np.array([[1.0, 1], [1, 1], [0, 0]]),
        known=np.array([True, True, False]),
        **changed,
    )


def test_numbers__by_hand() -> None:
    numbers = compute_numbers([probe(), probe(stability=[0, 4], divergence=[np.log(4) * 2, 2])], source())
    assert set(numbers) == {*NUMBERS, *BASELINES}
    assert numbers["stability"] == pytest.approx([3 / 8])
    assert numbers["geometry"] == pytest.approx([0.5])
    assert numbers["flatness"] == pytest.approx([0.5 * np.exp(-np.log(4) / 2)])
    assert numbers["consistency"] == pytest.approx([0.5])
    assert numbers["confidence"] == pytest.approx([0.75])
    assert numbers["distance_ratio"] == pytest.approx([np.sqrt(2)])  # (1, 0) and (0, 1), each one step from (1, 1)
    # Chances .8, .5 of the kept boxes and .1 of the other, in both images alike.
    assert numbers["expected_f1"] == pytest.approx([2 * 1.3 / (2 + 1.4)])


def test_numbers__of_draws_are_those_of_the_drawn_images() -> None:
    probes = [probe(), probe(stability=[0, 4], counts=[0, 2], scores=[0.6, 0.6, 0.6])]
    weights = np.array([[2.0, 0], [1, 1], [0, 3]])
    drawn = compute_numbers(probes, source(), weights)
    lists = [[probes[0]] * 2, probes, [probes[1]] * 3]
    for place, some in enumerate(lists):
        alone = compute_numbers(some, source())
        for name, values in drawn.items():
            assert values[place] == pytest.approx(alone[name][0]), name


def test_numbers__of_a_detector_that_finds_nothing_are_not_known() -> None:
    nothing = probe(**{name: [0, 0] for name in ("stability", "geometry", "flatness", "divergence", "consistency")})
    numbers = compute_numbers([nothing], Source(operating_score=0.5))
    assert all(np.isnan(numbers[name]).all() for name in NUMBERS)


def test_shares__by_hand() -> None:
    assert share_divergence(np.array([2.0, 2]), np.array([5.0, 5])) == pytest.approx(0)
    assert share_divergence(np.array([1.0, 0]), np.array([0.0, 9])) == pytest.approx(1)
    assert share_divergence(np.array([1.0, 1]), np.array([1.0, 0])) == pytest.approx(0.3113, abs=1e-4)
    assert np.isnan(share_divergence(np.array([0.0, 0]), np.array([1.0, 0])))


def test_boxes_and_prototypes() -> None:
    probes = [probe(), probe(counts=[3, 0], feature_sums=[[3, 0], [0, 1], [0, 0]])]
    assert boxes_per_image(probes).tolist() == [2, 0.5]
    means, known = prototypes_of(probes)
    assert means.tolist() == [[2, 0], [0, 1], [0, 0]]
    assert known.tolist() == [True, True, False]
