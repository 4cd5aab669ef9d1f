import pytest
import torch

from vision_core.detection.model.detector import DetectionTensors
from vision_core.detection.pseudo_labels import confident_targets, select_confident

SCORES = torch.tensor([0.99, 0.7, 0.70001, 0.69999, 0.9, 0.5, 0.71, 0.8])


@pytest.mark.parametrize(("threshold", "kept"), [(0.7, [0, 2, 4, 6, 7]), (0.9, [0])])
def test_select_confident__threshold_itself_is_out(threshold: float, kept: list[int]) -> None:
    """Check 8.1 of the specification."""
    assert select_confident(SCORES, threshold).tolist() == kept


def test_confident_targets__boxes_and_labels_of_the_kept() -> None:
    detections = DetectionTensors(boxes=torch.arange(32.0).view(8, 4), scores=SCORES, labels=torch.arange(8))
    targets = confident_targets(detections, 0.9)
    assert targets.boxes.tolist() == [[0, 1, 2, 3]]
    assert targets.labels.tolist() == [0]


def test_confident_targets__none() -> None:
    detections = DetectionTensors(
        boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long)
    )
    assert confident_targets(detections, 0.7).boxes.shape == (0, 4)
