"""Consistency and the total loss against the numbers of the specification (check C7)."""

import pytest
import torch

from pipelines.wsi.consistency import consistency
from pipelines.wsi.models.aggregation import cross_entropy
from tests.pipelines.wsi.waves import assert_near, wave

STUDENT, TEACHER = wave(1, 6, a=0.7, b=0.1), wave(1, 6, a=1.3, b=0.4)


@pytest.mark.parametrize(("temperature", "expected"), [(0.1, 1.607183), (1.0, 1.945165)])
def test_consistency__temperature(temperature: float, expected: float) -> None:
    assert_near(consistency(STUDENT, TEACHER, temperature), expected)


def test_consistency__with_itself_is_the_entropy() -> None:
    assert_near(consistency(STUDENT, STUDENT, 1.0), 1.694321)


def test_consistency__mean_over_the_rows_of_two_classes() -> None:
    student, teacher = wave(2, 6, a=0.7, b=0.1), wave(2, 6, a=1.3, b=0.4)
    assert_near(consistency(student, teacher, 0.1), 1.937358)


@pytest.mark.parametrize(("weight", "total"), [(0.5, 1.777668), (0.1, 1.134795)])
def test_total__classification_and_weighted_consistency(weight: float, total: float) -> None:
    classification = cross_entropy(torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor(1))
    assert_near(classification, 0.974077)
    assert_near(classification + weight * consistency(STUDENT, TEACHER, 0.1), total)


def test_consistency__teacher_gets_no_gradient_and_half_precision_is_left() -> None:
    student, teacher = STUDENT.bfloat16().requires_grad_(), TEACHER.bfloat16().requires_grad_()
    loss = consistency(student, teacher, 0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert teacher.grad is None
    assert student.grad is not None
