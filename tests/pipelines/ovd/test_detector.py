"""Inference of the detector of names: the numbers of the specification (P15), and a learned background."""

import pytest
import torch

from pipelines.ovd.config import Classifier
from pipelines.ovd.detector import above_thresholds
from tests.pipelines.ovd.loops import CLASSES, EMBEDDINGS, SETTINGS, open_detector
from vision_core.detection.model.detector import Features, Proposals
from vision_core.errors import ConfigError


def test_select__all_classes_share_the_boxes_of_a_region() -> None:
    detector = open_detector().eval()
    boxes = torch.tensor([[0.0, 0, 100, 100], [4, 4, 100, 104], [50, 60, 120, 140]])
    probabilities = torch.tensor([[0.60, 0.30, 0.04, 0.06], [0.55, 0.06, 0.02, 0.37], [0.03, 0.48, 0.07, 0.42]])
    features = Features(maps={}, sizes=[(120, 110)])
    proposals = [Proposals(boxes=boxes, objectness=torch.zeros(3))]
    [found] = detector.select(features, proposals, probabilities.log(), torch.zeros(3, 4))
    assert found.labels.tolist() == [0, 1, 1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.60, 0.48, 0.30, 0.07]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes[[0, 2]], boxes[[0, 0]])
    torch.testing.assert_close(found.boxes[[1, 3]], torch.tensor([[50.0, 60, 110, 120]] * 2))


def test_select__names_below_their_thresholds_leave_room_for_others() -> None:
    """Two boxes an image at most: without thresholds they are of the first name, whose threshold none passes."""
    detector = open_detector(SETTINGS.model_copy(update={"test_detections": 2})).eval()
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 0, 50, 20], [60, 0, 80, 20]])
    probabilities = torch.tensor(
        [[0.60, 0.10, 0.04, 0.01, 0.25], [0.55, 0.30, 0.1, 0.0, 0.05], [0.5, 0.0, 0.0, 0.0, 0.5]]
    )
    given = Features(maps={}, sizes=[(90, 90)]), [Proposals(boxes=boxes, objectness=torch.zeros(3))]
    [before] = detector.select(*given, probabilities.log(), torch.zeros(3, 4))
    assert before.labels.tolist() == [0, 0]
    thresholds = torch.tensor([0.7, 0.1, 0.0, 0.0])
    detector.set_vocabulary(CLASSES, EMBEDDINGS, thresholds=thresholds)
    [found] = detector.select(*given, probabilities.log(), torch.zeros(3, 4))
    assert found.labels.tolist() == [1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.30, 0.10]), atol=1e-6, rtol=0)
    kept = above_thresholds(probabilities.log(), thresholds).softmax(dim=1)
    torch.testing.assert_close(kept[0], torch.tensor([0.0, 0.0, 0.04, 0.01, 0.95]))  # 0.10 is not above 0.10
    torch.testing.assert_close(above_thresholds(torch.tensor([[50.0, -50, 0]]), torch.zeros(2)).softmax(dim=1)[0, 0],
                               torch.tensor(1.0))  # fmt: skip


def test_detect__probabilities_are_those_of_the_text_classifier() -> None:
    detector = open_detector(SETTINGS.model_copy(update={"test_score": 0.0, "test_nms": 1.0})).eval()
    image = torch.randint(0, 256, (3, 64, 80), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        features = detector.features([image])
        proposals = [Proposals(boxes=torch.tensor([[8.0, 8, 40, 50]]), objectness=torch.zeros(1))]
        [found] = detector.detect(features, proposals)
        expected = detector.probabilities(features, [proposals[0].boxes])[0]
    assert sorted(found.labels.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(found.scores, expected[found.labels])


def test_background__learned_is_the_same_at_the_start() -> None:
    image = torch.zeros(3, 64, 80).byte()
    found = []
    for background in ("zero", "learned"):
        detector = open_detector(classifier=Classifier(background=background)).eval()
        with torch.no_grad():
            found.append(detector.score_boxes(detector.features([image]), [torch.tensor([[8.0, 8, 40, 50]])])[0])
    assert torch.equal(found[0], found[1])


def test_detector__its_own_classifier_is_frozen_and_classes_fit() -> None:
    detector = open_detector()
    assert [name for name, each in detector.named_parameters() if not each.requires_grad and "cls_score" in name]
    assert detector.num_classes == len(CLASSES) == len(EMBEDDINGS)
    with pytest.raises(TypeError, match="those of its learner"):
        detector.losses(Features(maps={}, sizes=[]), [])


def test_detector__needs_a_pyramid() -> None:
    with pytest.raises(ConfigError, match=r"detector.neck is 'c4'"):
        open_detector(SETTINGS.model_copy(update={"neck": "c4"}))
