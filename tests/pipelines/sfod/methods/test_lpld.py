"""LPLD against the numbers worked out by hand in its specification (checks 8.2 to 8.6)."""

import inspect

import pytest
import torch
from torch import Tensor

from pipelines.sfod.config import Lpld
from pipelines.sfod.methods.lpld import (
    distance_weights,
    distil,
    lpld_loss,
    select_low_confidence,
    soft_log_labels,
    teacher_boxes,
)

SETTINGS = Lpld()
CONFIDENT = torch.tensor([[10.0, 10, 110, 110]])
PROPOSALS = torch.tensor(
    [
        [10.0, 10, 110, 110],
        [60, 10, 160, 110],
        [200, 200, 300, 300],
        [200, 50, 300, 150],
        [200, 50, 300, 150],
        [70, 10, 170, 110],
        [10, 10, 110, 110],
        [10, 10, 110, 50],
    ]
)
LOGITS = torch.tensor(
    [
        [6.0, 0, 0, 1],
        [0, 5, 0, 1],
        [0, 0, 1, 7],
        [4, 0, 0, 9],
        [4, 0, 0, 8],
        [0, 0, 5, 0],
        [5, 0, 0, 6],
        [0, 5, 0, 1],
    ]
)
STUDENT = torch.tensor([[1.0, 2, 0, 0.5], [0, 0, 0, 3], [0.5, 1, 0, 2]])


def _decoded() -> Tensor:
    decoded = PROPOSALS[:, None].repeat(1, 3, 1)
    decoded[5, 2] = torch.tensor([10.0, 10, 110, 110])  # class 2, dx = -6 of a tenth of the width
    decoded[6, 0] = torch.tensor([310.0, 10, 410, 110])  # class 0, dx = 30; its argmax is background
    return decoded


def _boxes() -> Tensor:
    return teacher_boxes(PROPOSALS, LOGITS, _decoded())


def test_teacher_boxes__background_keeps_proposal_and_object_takes_its_class_box() -> None:
    boxes = _boxes()
    assert boxes[5].tolist() == [10, 10, 110, 110]
    assert boxes[6].tolist() == [10, 10, 110, 110]
    assert torch.equal(boxes[[0, 1, 2, 3, 4, 7]], PROPOSALS[[0, 1, 2, 3, 4, 7]])


def test_select__the_eight_cases() -> None:
    assert select_low_confidence(_boxes(), LOGITS, CONFIDENT, SETTINGS).tolist() == [1, 4, 7]


def test_select__permuted_proposals_give_permuted_indices() -> None:
    order = torch.tensor([7, 3, 1, 0, 6, 2, 5, 4])
    kept = select_low_confidence(_boxes()[order], LOGITS[order], CONFIDENT, SETTINGS)
    assert sorted(order[kept].tolist()) == [1, 4, 7]
    assert kept.tolist() == sorted(kept.tolist())


@pytest.mark.parametrize("without", [False, True])
def test_select__no_confident_box(without: bool) -> None:
    settings = Lpld(lpl_without_hpl=without)
    kept = select_low_confidence(_boxes(), LOGITS, torch.empty(0, 4), settings).tolist()
    assert kept == ([0, 1, 4, 5, 6, 7] if without else [])


def test_select__no_proposal() -> None:
    assert len(select_low_confidence(torch.empty(0, 4), torch.empty(0, 4), CONFIDENT, SETTINGS)) == 0


def test_select__suppression_keeps_the_surer_of_two_that_overlap() -> None:
    boxes = torch.tensor([[200.0, 50, 300, 150], [202, 50, 302, 150]])
    logits = torch.tensor([[4.0, 0, 0, 6], [4, 0, 0, 5]])
    assert select_low_confidence(boxes, logits, CONFIDENT, Lpld(lpl_nms_iou=0.5)).tolist() == [1]


def test_select__the_loss_is_the_same_for_permuted_proposals() -> None:
    student = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([7, 3, 1, 0, 6, 2, 5, 4])

    def loss(rows: Tensor) -> Tensor:
        kept = select_low_confidence(_boxes()[rows], LOGITS[rows], CONFIDENT, SETTINGS)
        return distil(student[rows][kept], LOGITS[rows][kept], torch.ones(len(kept)), SETTINGS)

    torch.testing.assert_close(loss(torch.arange(8)), loss(order), atol=1e-6, rtol=0)


def test_distance_weights__angles() -> None:
    student = torch.tensor([[1.0, 0], [1, 0], [1, 1]], requires_grad=True)
    weights = distance_weights(student, torch.tensor([[1.0, 0], [0, 1], [1, 0]]))
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 0.292893]), atol=1e-5, rtol=0)
    assert not weights.requires_grad


def test_distil__rows_and_weighted_mean() -> None:
    teacher = LOGITS[[1, 4, 7]]
    rows = [distil(STUDENT[[i]], teacher[[i]], torch.ones(1), Lpld(weight=1.0)).item() for i in range(3)]
    assert rows == pytest.approx([0.486082, 2.961883, 1.476109], abs=1e-5)
    weights = torch.tensor([0.0, 1.0, 0.292893])
    assert distil(STUDENT, teacher, weights, SETTINGS).item() == pytest.approx(0.113141, abs=1e-5)
    assert distil(STUDENT, teacher, torch.ones(3), SETTINGS).item() == pytest.approx(0.164136, abs=1e-5)


def test_soft_log_labels__foreground_alone_then_epsilon() -> None:
    target = soft_log_labels(torch.tensor([[2.0, 1, 0.5, 3]]), 1e-9).exp()
    torch.testing.assert_close(target, torch.tensor([[0.628532, 0.231224, 0.140244, 1e-9]]), atol=1e-6, rtol=0)


def test_distil__one_class() -> None:
    loss = distil(torch.tensor([[0.2, -0.3]]), torch.tensor([[5.0, 1.0]]), torch.tensor([0.5]), SETTINGS)
    assert loss.item() == pytest.approx(0.023704, abs=1e-5)


def test_distil__no_underflow() -> None:
    student = torch.tensor([[200.0, 0, 0, 0]], requires_grad=True)
    loss = distil(student, torch.tensor([[0.0, 200, 0, 0]]), torch.ones(1), SETTINGS)
    loss.backward()
    assert loss.item() == pytest.approx(20.0, abs=1e-5)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_distil__constant_target_and_weights() -> None:
    teacher = LOGITS[[1]].clone().requires_grad_(True)
    student = STUDENT[[0]].clone().requires_grad_(True)
    distil(student, teacher, torch.ones(1), SETTINGS).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def _student(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the student, features of student and teacher, for all proposals."""
    generator = torch.Generator().manual_seed(seed)
    logits, first, second = (torch.randn(8, size, generator=generator) for size in (4, 5, 5))
    return logits.requires_grad_(True), first.requires_grad_(True), second


def test_lpld_loss__is_selection_weights_and_distillation_in_turn() -> None:
    logits, student, teacher = _student()
    kept = [1, 4, 7]
    weights = distance_weights(student[kept], teacher[kept])
    loss = lpld_loss(logits, student, LOGITS, teacher, _boxes(), CONFIDENT)
    assert torch.equal(loss, distil(logits[kept], LOGITS[kept], weights, SETTINGS))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(dim=1).nonzero().squeeze(1).tolist() == kept
    assert student.grad is None


def test_lpld_loss__settings_by_name() -> None:
    logits, student, teacher = _student()
    one = lpld_loss(logits, student, LOGITS, teacher, _boxes(), CONFIDENT, weight=1.0)
    tenth = lpld_loss(logits, student, LOGITS, teacher, _boxes(), CONFIDENT)
    torch.testing.assert_close(one / 10, tenth)
    empty = torch.empty(0, 4)
    assert lpld_loss(logits, student, LOGITS, teacher, _boxes(), empty, lpl_without_hpl=True).item() > 0
    with pytest.raises(ValueError, match="foreground"):
        lpld_loss(logits, student, LOGITS, teacher, _boxes(), CONFIDENT, foreground=1.5)


def test_lpld_loss__defaults_are_those_of_the_configuration() -> None:
    defaults = inspect.signature(lpld_loss).parameters
    own = {name: each.default for name, each in defaults.items() if each.kind is each.KEYWORD_ONLY}
    assert own == SETTINGS.model_dump(exclude={"clip_decoded_boxes"})


def test_lpld_loss__no_confident_box_gives_zero_with_a_gradient() -> None:
    logits, student, teacher = _student()
    loss = lpld_loss(logits, student, LOGITS, teacher, _boxes(), torch.empty(0, 4))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_distil__of_no_proposals_is_zero_with_a_gradient() -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    loss = distil(student, torch.zeros(0, 4), torch.zeros(0), SETTINGS)
    loss.backward()
    assert loss.item() == 0
