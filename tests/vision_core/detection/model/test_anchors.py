import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from vision_core.detection.model.anchors import TorchvisionAnchors

STRIDES = (4, 8, 16, 32, 64)


@pytest.mark.parametrize("size", [(96, 160), (128, 192), (32, 224)])  # the last level has a step of 48, 64 and 32 rows
def test_anchors__are_those_of_torchvision(size: tuple[int, int]) -> None:
    sizes, ratios = ((32,), (64,), (128,), (256,), (512,)), (0.5, 1.0, 2.0)
    # Of an image padded to a multiple of 32; the last level is every second cell of the one before.
    cells = [(size[0] // stride, size[1] // stride) for stride in STRIDES[:4]]
    cells.append((-(-cells[3][0] // 2), -(-cells[3][1] // 2)))
    maps = [torch.zeros(1, 1, *each) for each in cells]
    theirs = AnchorGenerator(sizes, (ratios,) * 5)(ImageList(torch.zeros(1, 3, *size), [size]), maps)[0]
    ours = TorchvisionAnchors(sizes=sizes, aspect_ratios=[ratios], strides=STRIDES, offset=0.0)(maps)
    assert torch.equal(torch.cat([each.tensor for each in ours]), theirs)


def test_anchors__have_whole_corners_by_size_and_then_by_ratio() -> None:
    cell = TorchvisionAnchors(sizes=[[32, 64]], aspect_ratios=[[1.0, 2.0]], strides=[16], offset=0.0).cell_anchors
    # A side of 32 at a ratio of 2: 22.6 x 45.3.
    assert next(iter(cell)).tolist() == [
        [-16, -16, 16, 16], [-11, -23, 11, 23], [-32, -32, 32, 32], [-23, -45, 23, 45]
    ]  # fmt: skip
