"""Proposals of a generator, refined: the numbers of the specification (P16), and the order of the steps."""

import numpy as np
import pytest
import torch

from pipelines.ovd.config import Proposals
from pipelines.ovd.pseudo_labels.proposals import propose_in_image, refine
from tests.vision_core.detection.model.test_detector import LITE0
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.randomness import seeded

BOX = torch.tensor([[10.0, 20, 50, 100]])
DELTAS = torch.tensor([[0.5, -0.4, 0.3, -0.2]])


@pytest.fixture(scope="module")
def generator() -> Detector:
    with seeded(0):
        return Detector(DetectorSettings(**LITE0 | {"shortest_edge_px": 64}), ("object",)).freeze()


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        (0, [10, 20, 50, 100]),
        (1, [10.763269, 18.368423, 53.236732, 95.231575]),
        (10, [20.147686, 6.281798, 93.032439, 59.907402]),
    ],
)
def test_refine__decodes_again_and_again(passes: int, expected: list[float], generator: Detector) -> None:
    found = refine(lambda boxes: generator.decode(DELTAS, boxes).mean(dim=1), BOX, passes)
    torch.testing.assert_close(found[0], torch.tensor(expected).float(), atol=1e-4, rtol=0)


def _image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)


def test_propose__the_first_are_taken_before_they_are_refined(generator: Detector) -> None:
    few = propose_in_image(generator, _image(), Proposals(count=4))
    many = propose_in_image(generator, _image(), Proposals(count=15))
    torch.testing.assert_close(few.boxes, many.boxes[:4], atol=1e-3, rtol=1e-5)
    assert few.objectness.shape == (4,)
    assert (few.objectness.diff() <= 0).all()
    assert few.objectness.min() > 0
    assert few.objectness.max() < 1


def test_propose__back_to_the_image_by_one_ratio_or_two(generator: Detector) -> None:
    one = propose_in_image(generator, _image(), Proposals(count=5, refinements=0)).boxes
    two = propose_in_image(generator, _image(), Proposals(count=5, refinements=0, one_ratio=False)).boxes
    torch.testing.assert_close(one[:, 1::2], two[:, 1::2])
    ratio = (131 / round(131 * 64 / 97)) / (97 / 64)
    torch.testing.assert_close(one[:, ::2] * ratio, two[:, ::2], atol=1e-3, rtol=1e-4)


def test_propose__refined_boxes_are_regressed_ones(generator: Detector) -> None:
    plain = propose_in_image(generator, _image(), Proposals(count=5, refinements=0)).boxes
    once = propose_in_image(generator, _image(), Proposals(count=5, refinements=1)).boxes
    assert not torch.equal(plain, once)
