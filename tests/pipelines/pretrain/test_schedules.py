"""Learning rates by epoch: check N8."""

import pytest

from pipelines.pretrain.schedules import finetuning, stepped
from vision_core.schedules import cosine


def test_stepped__classifier_of_the_first_stage() -> None:
    rates = [0.1 * stepped(epoch) for epoch in range(90)]
    assert rates == pytest.approx([0.1] * 30 + [0.01] * 30 + [0.001] * 30)


def test_cosine__policy_of_the_first_stage() -> None:
    rates = [0.01 * cosine(epoch, 90) for epoch in (0, 1, 30, 45, 89)]
    assert rates == pytest.approx([0.01, 0.00999695, 0.0075, 0.005, 3.045865e-6], rel=1e-6)


def test_finetuning__warm_up_then_constant() -> None:
    published = [1e-5, 1.514286e-4, 2.928571e-4, 4.342857e-4, 5.757143e-4, 7.171429e-4, 8.585714e-4, 1e-3, 1e-3, 1e-3]
    assert [1e-3 * finetuning(epoch) for epoch in range(10)] == pytest.approx(published, rel=1e-6)


def test_finetuning__steps_thirty_epochs_after_warm_up() -> None:
    assert [finetuning(epoch) for epoch in (36, 37)] == pytest.approx([1.0, 0.1])
