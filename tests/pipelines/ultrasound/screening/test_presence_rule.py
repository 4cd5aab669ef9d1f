import numpy as np

from pipelines.ultrasound.screening.presence_rule import PresenceRule, tuned_rule


def test_decide__frames_without_a_region_show_nothing() -> None:
    rule = PresenceRule(least_area=0, least_probability=0)
    assert rule.decide(np.array([0, 5]), np.array([np.nan, 0.6])).tolist() == [False, True]


def test_tuned_rule__small_or_doubtful_regions_are_left_out() -> None:
    areas = np.array([0, 10, 12, 100, 120, 110, 105])
    probabilities = np.array([0, 0.95, 0.9, 0.9, 0.95, 0.6, 0.92])
    present = np.array([0, 0, 0, 1, 1, 0, 1], bool)
    rule = tuned_rule(areas, probabilities, present)
    assert (rule.decide(areas, probabilities) == present).all()
    assert 12 < rule.least_area <= 100
    assert 0.6 < rule.least_probability <= 0.9


def test_tuned_rule__of_equal_ones_the_one_that_rejects_least() -> None:
    rule = tuned_rule(np.array([50, 80]), np.array([0.8, 0.9]), np.array([True, True]))
    assert rule == PresenceRule(least_area=0, least_probability=0)


def test_tuned_rule__a_missed_frame_may_weigh_more() -> None:
    areas, probabilities = np.array([20, 30, 40]), np.full(3, 0.9)
    present = np.array([True, False, True])
    assert tuned_rule(areas, probabilities, present, false_negative=5).decide(areas, probabilities).all()


def test_tuned_rule__without_any_region() -> None:
    rule = tuned_rule(np.zeros(3), np.zeros(3), np.array([True, False, False]))
    assert not rule.decide(np.zeros(3), np.zeros(3)).any()
