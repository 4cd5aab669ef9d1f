import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipelines.sfod.verdict.numbers import NUMBERS, Source
from pipelines.sfod.verdict.probing import Probe
from pipelines.sfod.verdict.rule import Rule, choose, fit_rule, judge
from tests.pipelines.sfod.verdict.test_numbers import probe, source

TRUE = np.array([0.5, 0.2, 0.0, 0.01, -0.1, 0.4])


def meta_set(noise: float = 0.01) -> tuple[np.ndarray, np.ndarray, list[str]]:
    draws = np.random.default_rng(0)
    differences = draws.normal(size=(60, 6)) * [0.1, 0.1, 0.1, 1, 0.1, 0.1]
    return differences, differences @ TRUE + noise * draws.normal(size=60), [f"c{i % 5}" for i in range(60)]


def test_fit__finds_the_weights_and_the_spread() -> None:
    rule = fit_rule(*meta_set())
    assert rule.coefficients == pytest.approx(TRUE, abs=0.03)
    assert rule.spread == pytest.approx(0.01, rel=0.3)


def test_fit__of_what_says_nothing_predicts_next_to_nothing() -> None:
    differences, _, groups = meta_set()
    gains = np.random.default_rng(3).normal(size=60)
    rule = fit_rule(differences, gains, groups)
    assert np.abs(rule(differences)).mean() < 0.25
    assert rule.spread == pytest.approx(gains.std(), rel=0.2)


def test_fit__rows_that_are_not_known_do_not_count() -> None:
    differences, gains, groups = meta_set()
    more = np.concatenate([differences, np.full((1, 6), np.nan)])
    assert fit_rule(more, np.append(gains, 9), [*groups, "c0"]).coefficients.tolist() == (
        fit_rule(differences, gains, groups).coefficients.tolist()
    )


def test_fit__on_one_corruption_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        fit_rule(np.ones((3, 6)), np.ones(3), ["fog"] * 3)


def test_record__comes_back_through_json() -> None:
    rule = fit_rule(*meta_set())
    assert (
        Rule.from_record(json.loads(json.dumps(rule.to_record()))).coefficients.tolist() == rule.coefficients.tolist()
    )


def many(**changed: list[Any]) -> list[Probe]:
    return [probe(**changed)] * 20


# Moves one number alone, so that what is predicted is known: .1 AP50 for each .1 of stability.
RULE = Rule(coefficients=np.eye(len(NUMBERS))[0], spread=0.01, penalty=1.0)
BETTER: dict[str, list[Any]] = {"stability": [3.6, 4]}
WORSE: dict[str, list[Any]] = {"stability": [2.4, 4]}


def verdict(after: Sequence[Probe], rule: Rule | None = RULE, **options: Any) -> Any:  # noqa: ANN401
    return judge(many(), after, source(**options), rule)


def test_judge__helped() -> None:
    found = verdict(many(**BETTER))
    assert found.kind == "helped"
    assert found.gain == pytest.approx(0.15)
    assert found.interval == pytest.approx((0.15 - 1.6449 * 0.01, 0.15 + 1.6449 * 0.01))
    assert found.before["stability"] == 0.75
    assert found.after["stability"] == pytest.approx(0.9)
    assert found.boxes == (2, 2)


def test_judge__harmful_by_prediction() -> None:
    found = verdict(many(**WORSE))
    assert found.kind == "harmful"
    assert "-16.6 to -13.4 AP50" in found.reasons[0]


def test_judge__unclear_where_the_interval_holds_zero() -> None:
    assert verdict(many(stability=[3.02, 4])).kind == "unclear"


def test_judge__unclear_where_most_numbers_fell() -> None:
    fell: dict[str, list[Any]] = {"geometry": [1.9, 4], "flatness": [3.9, 8], "consistency": [0.9, 2]}
    assert verdict(many(**BETTER, **fell)).kind == "unclear"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"counts": [0.3, 0.3]}, "below a third"),
        ({"counts": [4, 4]}, "above three times"),
        ({"counts": [2, 0]}, "shares of the classes"),
    ],
)
def test_judge__a_veto_wins_over_the_prediction(changed: dict[str, list[Any]], said: str) -> None:
    found = verdict(many(**BETTER, **changed))
    assert found.kind == "harmful"
    assert said in found.reasons[0]


def test_judge__geometry_below_the_noise_floor_is_a_veto() -> None:
    after = many(**BETTER, geometry=[1.8, 4])
    assert verdict(after, noise_floor=0.1).kind == "helped"
    assert verdict(after, noise_floor=0.04).kind == "harmful"


def test_judge__without_statistics_or_rule_nothing_is_called_helped() -> None:
    assert judge(many(), many(**BETTER), Source(operating_score=0.5), RULE).kind == "unclear"
    assert verdict(many(**BETTER), rule=None).kind == "unclear"
    assert verdict(many(counts=[0, 0]), rule=None).kind == "harmful"


def test_judge__a_detector_that_finds_nothing_is_harmful() -> None:
    empty: dict[str, list[Any]] = {
        name: [0, 0] for name in ("counts", "stability", "geometry", "flatness", "divergence", "consistency")
    }
    found = verdict(many(**empty))
    assert found.kind == "harmful"
    assert found.after["stability"] is None


def test_judge__few_images_widen_the_interval() -> None:
    mixed = [probe(stability=[4, 4]), probe(stability=[2.6, 4])]
    few = judge(many()[:4], mixed * 2, source(), RULE)
    more = judge(many() * 5, mixed * 50, source(), RULE)
    assert few.interval is not None
    assert more.interval is not None
    assert few.interval[1] - few.interval[0] > 2 * (more.interval[1] - more.interval[0])


def test_choose__the_earliest_within_one_standard_error() -> None:
    draws = np.random.default_rng(0).normal(size=1000)
    zero = np.zeros(1000)
    assert choose([zero, 0.05 + 0.01 * draws, 0.2 + 0.02 * draws, 0.21 + 0.02 * draws]) == 2
    assert choose([zero, -0.05 + 0.01 * draws, 0.01 + 0.02 * draws]) == 0
    assert choose([zero, np.full(1000, np.nan)]) == 0
