"""Schedules against the numbers of the specification (check C1)."""

import pytest

from pipelines.wsi.config import FollowingTeacher, Masking, MhimV1, MhimV2
from pipelines.wsi.schedules import cosine_between, high_share, keep_rate


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.01), (1, 0.00999999383), (500, 0.00853553391), (1000, 0.005), (1500, 0.00146446609), (1999, 6.16850148e-09)],
)
def test_high_share__falls_to_zero(step: int, share: float) -> None:
    assert high_share(MhimV1().masking, step, 2000) == pytest.approx(share, rel=1e-6)


def test_high_share__constant_in_v2() -> None:
    assert high_share(MhimV2().masking, 1999, 2000) == 0.03


@pytest.mark.parametrize(("step", "rate"), [(0, 0.9997), (500, 0.999743934), (1000, 0.99985)])
def test_keep_rate__rises_to_one(step: int, rate: float) -> None:
    teacher = FollowingTeacher(keep_rate=0.9997, schedule="cosine")
    assert keep_rate(teacher, step, 2000) == pytest.approx(rate, abs=1e-9)


def test_keep_rate__constant_by_default() -> None:
    assert [keep_rate(profile.teacher, 1000, 2000) for profile in (MhimV1(), MhimV2())] == [0.9999, 0.9997]


@pytest.mark.parametrize(
    ("end", "epoch", "rate"),
    [
        (1e-7, 0, 2e-4),
        (1e-7, 1, 1.999877e-4),
        (1e-7, 50, 1.707253e-4),
        (1e-7, 100, 1.0005e-4),
        (1e-7, 199, 1.123306e-7),
        (0.0, 50, 1.707107e-4),
        (0.0, 100, 1e-4),
        (0.0, 199, 1.233675e-8),
    ],
)
def test_cosine_between__learning_rate_of_both_versions(end: float, epoch: int, rate: float) -> None:
    assert cosine_between(2e-4, end, epoch, 200) == pytest.approx(rate, rel=1e-6)


def test_high_share__zero_stays_zero() -> None:
    assert high_share(Masking(high=0.0), 10, 100) == 0
