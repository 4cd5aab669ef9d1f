import torch

from vision_core.detection.boxes import largest_iou, pairwise_iou, scale_boxes


def test_pairwise_iou__by_hand_without_plus_one() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]])
    assert torch.equal(pairwise_iou(boxes[:1], boxes), torch.tensor([[1.0, 50 / 150]]))


def test_pairwise_iou__box_without_area_overlaps_nothing() -> None:
    empty = torch.zeros(1, 4)
    assert pairwise_iou(empty, torch.tensor([[0.0, 0, 0, 0], [0, 0, 9, 9]])).tolist() == [[0, 0]]


def test_largest_iou__over_all_others() -> None:
    boxes = torch.tensor([[10.0, 10, 110, 50]])
    others = torch.tensor([[10.0, 10, 110, 110], [300, 300, 400, 400]])
    assert torch.equal(largest_iou(boxes, others), torch.tensor([0.4]))


def test_largest_iou__no_others() -> None:
    assert largest_iou(torch.ones(3, 4), torch.zeros(0, 4)).tolist() == [0, 0, 0]


def test_scale_boxes__height_and_width_apart() -> None:
    moved = scale_boxes(torch.tensor([[10.0, 10, 20, 40]]), size=(100, 200), new_size=(50, 400))
    assert moved.tolist() == [[20, 5, 40, 20]]
