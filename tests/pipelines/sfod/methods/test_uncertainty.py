"""The uncertainty estimator against the numbers of the specification (check 8.14) and greedy suppression in loops."""

import statistics

import pytest
import torch
from torch import Tensor

from pipelines.sfod.methods.uncertainty import IOUS, proposal_variance

BOXES = torch.tensor([[0.0, 0, 100, 100], [10, 0, 110, 100], [30, 0, 130, 100], [60, 0, 160, 100], [200, 0, 300, 100]])


def _survivors(boxes: Tensor, scores: Tensor, limit: float) -> int:
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        if all(_iou(boxes[row], boxes[other]) <= limit for other in kept):
            kept.append(row)
    return len(kept)


def _iou(first: Tensor, second: Tensor) -> float:
    sides = torch.minimum(first[2:], second[2:]) - torch.maximum(first[:2], second[:2])
    overlap = float(sides.clamp(min=0).prod())
    areas = [float((each[2:] - each[:2]).prod()) for each in (first, second)]
    return overlap / (sum(areas) - overlap)


def test_variance__of_five_boxes() -> None:
    objectness = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.55]).logit()
    assert [_survivors(BOXES, objectness, iou) for iou in IOUS] == [2, 2, 2, 3, 3, 3]
    assert proposal_variance(BOXES, objectness) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("counts", "variance"), [((10, 12, 15, 20, 26, 40), 103.916667), ((3, 3, 3, 4, 5, 6), 1.333333)]
)
def test_variance__of_counts(counts: tuple[int, ...], variance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(zip(IOUS, counts, strict=True))
    monkeypatch.setattr("pipelines.sfod.methods.uncertainty.nms", lambda *given: torch.zeros(found[given[2]]))
    assert proposal_variance(BOXES, torch.ones(5)) == pytest.approx(variance, abs=1e-6)


def test_variance__in_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 10 + 40 * torch.rand(60, 2, generator=generator)], dim=1)
    objectness = torch.randn(60, generator=generator)
    sure = objectness > 0
    counts = [float(_survivors(boxes[sure], objectness[sure], iou)) for iou in IOUS]
    assert len(set(counts)) > 3
    assert proposal_variance(boxes, objectness) == pytest.approx(statistics.pvariance(counts))


def test_variance__of_nothing_is_zero() -> None:
    assert proposal_variance(torch.empty(0, 4), torch.empty(0)) == 0
    assert proposal_variance(BOXES, torch.zeros(5)) == 0  # an objectness of exactly a half does not count
