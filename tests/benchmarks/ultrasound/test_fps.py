"""Frames that a camera would lose, and targets, by hand."""

import pytest

from benchmarks.ultrasound.fps import lost_frames, missed_targets


@pytest.mark.parametrize(
    ("steps", "lost"),
    [
        ([40.0] * 100, 0),
        ([80.0] * 100, 49),  # frames 3, 5, 7, ... 99
        ([20.0] * 50 + [120.0] + [20.0] * 50, 0),  # two wait, and are made up for
        ([20.0] * 50 + [400.0] + [20.0] * 50, 7),  # those that come 40 to 280 ms after the long one
    ],
)
def test_lost_frames__where_two_may_wait(steps: list[float], lost: int) -> None:
    assert lost_frames(steps) == lost


def test_missed_targets__each_by_name() -> None:
    good = {
        "gate_ratio": 1.6,
        "thin_ratio": 4.5,
        "thin_frames_per_second": 30.0,
        **{f"{name}_frames_per_second": 25.0 for name in ("half_positive", "all_positive")},
        **{f"{name}_p95_ms": 60.0 for name in ("half_positive", "all_positive")},
        **{f"{name}_dropped": 0 for name in ("half_positive", "all_positive")},
    }
    assert missed_targets(good) == []
    bad = good | {"gate_ratio": 1.59, "all_positive_p95_ms": 60.1, "half_positive_dropped": 1}
    assert missed_targets(bad) == ["gate_ratio", "all_positive_p95_ms", "half_positive_dropped"]
