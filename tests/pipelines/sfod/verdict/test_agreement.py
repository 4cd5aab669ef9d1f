import numpy as np
import pytest
import torch

from pipelines.sfod.verdict.agreement import match
from vision_core.detection.model.detector import DetectionTensors


def found(boxes: list[list[float]], labels: list[int]) -> DetectionTensors:
    return DetectionTensors(
        boxes=torch.tensor(boxes).view(-1, 4),
        scores=torch.ones(len(boxes)),
        labels=torch.tensor(labels, dtype=torch.long),
    )


def test_match__same_boxes_agree_wholly() -> None:
    some = found([[0, 0, 4, 4], [10, 10, 20, 30]], [0, 1])
    pairs = match(some, some)
    assert pairs.sums.tolist() == [4, 4]
    assert pairs.first.tolist() == pairs.second.tolist() == [0, 1]


def test_match__by_hand() -> None:
    """Half a box moved by half its width overlaps by a third; a box of another class has no partner."""
    first = found([[0, 0, 4, 4], [10, 10, 14, 14]], [0, 0])
    second = found([[2, 0, 6, 4], [10, 10, 14, 14], [50, 50, 60, 60]], [0, 1, 0])
    pairs = match(first, second)
    assert pairs.ious == pytest.approx([1 / 3])
    assert pairs.sums == pytest.approx([2 / 3, 5])


def test_match__takes_the_largest_sum_not_the_largest_pair() -> None:
    """Greedily the pair of .6 leaves nothing for the other two boxes; the best sum has both pairs of .5 and .4."""
    # On a line of height 1: IoU of [0, a] and [0, b] is a / b.
    first = found([[0, 0, 6, 1], [0, 0, 3, 1]], [0, 0])
    second = found([[0, 0, 10, 1], [0, 0, 60, 1]], [0, 0])
    overlaps = np.array([[0.6, 0.1], [0.3, 0.05]])
    assert match(first, second).ious.sum() == pytest.approx(
        max(overlaps[0, 0] + overlaps[1, 1], overlaps[0, 1] + overlaps[1, 0])
    )


@pytest.mark.parametrize("other", [[], [[0.0, 0, 4, 4]]])
def test_match__nothing_has_no_pair(other: list[list[float]]) -> None:
    pairs = match(found([], []), found(other, [0] * len(other)))
    assert pairs.sums.tolist() == [0, len(other)]
