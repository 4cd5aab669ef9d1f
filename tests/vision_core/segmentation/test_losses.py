import numpy as np
import pytest
import torch

from vision_core.segmentation.losses import dice_loss, presence_logits, presence_loss, segmentation_losses
from vision_core.segmentation.settings import FrameAware, SegmentationLoss


def probabilities() -> torch.Tensor:
    b, i, j = np.ogrid[:2, :4, :5]
    return torch.tensor((7 * b + 3 * i + 5 * j) % 11 / 10, dtype=torch.float64)[:, None]


def targets() -> torch.Tensor:
    b, i, j = np.ogrid[:2, :4, :5]
    return torch.tensor((2 * b + i + j) % 3 == 0, dtype=torch.float64)[:, None]


def test_dice_loss__published_numbers() -> None:
    p, t = probabilities().requires_grad_(), targets()
    loss = dice_loss(p, t)
    loss.backward()
    assert loss.item() == pytest.approx(0.685131, abs=1e-6)
    assert p.grad is not None
    assert p.grad[0, 0, 0, :2].tolist() == pytest.approx([-0.049129, 0.009180], abs=1e-6)
    assert dice_loss(p, t, "per_image").item() == pytest.approx(0.684495, abs=1e-6)


def test_dice_loss__over_parts_of_a_batch_is_that_of_the_whole() -> None:
    p, t = probabilities(), targets()
    rest = torch.stack([(p[1] * t[1]).sum(), p[1].sum() + t[1].sum()])
    own = p[:1].clone().requires_grad_()
    loss = dice_loss(own, t[:1], total=lambda sums: sums + rest)
    loss.backward()
    assert loss.item() == pytest.approx(0.685131, abs=1e-6)
    assert own.grad is not None
    assert own.grad[0, 0, 0, :2].tolist() == pytest.approx([-0.049129, 0.009180], abs=1e-6)
    assert dice_loss(p, t, "per_image", total=lambda sums: sums * 2).item() == pytest.approx(0.684495, abs=1e-6)


def test_dice_loss__a_frame_without_the_object_counts_by_what_is_predicted() -> None:
    t = targets()
    t[1] = 0
    assert dice_loss(probabilities(), t).item() == pytest.approx(0.846154, abs=1e-6)
    assert dice_loss(probabilities(), t, "per_image").item() == pytest.approx((0.757225 + 1) / 2, abs=1e-6)


def test_dice_loss__empty_against_empty_is_nothing_and_all_against_empty_is_one() -> None:
    empty = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    assert dice_loss(empty, empty).item() == pytest.approx(0, abs=1e-9)
    assert dice_loss(empty + 1, empty).item() == pytest.approx(1, abs=1e-6)


def test_dice_loss__of_empty_frames_alone_has_a_finite_vanishing_gradient() -> None:
    half = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64, requires_grad=True)
    loss = dice_loss(half, torch.zeros_like(half))
    loss.backward()
    assert half.grad is not None
    assert loss.item() == pytest.approx(1, abs=1e-6)
    assert half.grad[0, 0, 0, 0].item() == pytest.approx(1.5625e-9, rel=1e-4)


def test_dice_loss__targets_may_be_means_of_observers() -> None:
    p, t = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[1 / 3, 1.0]]]])
    assert dice_loss(p, t).item() == pytest.approx(1 - 2 * (0.5 / 3 + 0.5) / (1 + 4 / 3), abs=1e-6)


def test_presence_logits__of_the_highest_pixel_or_the_mean_of_the_highest() -> None:
    logits = torch.tensor([[[[-1.0, 2.0], [0.0, -3.0]]]])
    assert presence_logits(logits).tolist() == [2.0]
    mean = (torch.tensor(2.0).sigmoid() + 0.5) / 2
    assert presence_logits(logits, 0.5).sigmoid().item() == pytest.approx(mean.item())


def test_presence_loss__by_hand() -> None:
    # z of both frames is sigmoid(0) = .5: -log .5, times 2 where present and times 4 where absent, over two frames.
    settings = FrameAware(present_weight=2, absent_weight=4)
    loss = presence_loss(torch.zeros(2, 1, 2, 2), torch.tensor([1, 0]), settings)
    assert loss.item() == pytest.approx(3 * np.log(2), abs=1e-6)


def test_presence_loss__a_certain_wrong_frame_is_finite_with_a_gradient() -> None:
    logits = torch.full((1, 1, 8, 8), 200.0, requires_grad=True)
    loss = presence_loss(logits, torch.tensor([0]), FrameAware())
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert logits.grad is not None
    assert logits.grad.sum().item() == pytest.approx(1)


def test_segmentation_losses__the_frame_term_teaches_where_dice_cannot() -> None:
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    loss = SegmentationLoss(frame_aware=FrameAware(weight=0.5))
    terms = segmentation_losses(logits, torch.zeros(1, 1, 16, 16), torch.tensor([0]), loss)
    assert terms["presence"].item() == pytest.approx(0.5 * np.log(2), abs=1e-6)
    terms["dice"].backward(retain_graph=True)
    assert logits.grad is not None
    by_dice = logits.grad.sum().item()
    terms["presence"].backward()
    assert logits.grad.sum().item() == pytest.approx(0.25, abs=1e-4)
    assert by_dice < 1e-6


def test_segmentation_losses__without_a_weight_dice_is_alone() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    assert set(segmentation_losses(logits, logits, torch.tensor([0]), SegmentationLoss())) == {"dice"}
