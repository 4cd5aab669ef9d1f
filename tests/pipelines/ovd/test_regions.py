"""Sampling of regions: their shares, whom they belong to, and images without anything."""

import torch

from pipelines.ovd.regions import Regions, sample_regions
from tests.pipelines.ovd.loops import SETTINGS, open_targets
from vision_core.detection.model.detector import Proposals

K = 4
TARGETS = open_targets(
    ([0.0, 0, 20, 20], 0, True, 1.0),
    ([2.0, 0, 22, 20], 1, False, 0.95),
    ([60.0, 60, 90, 90], 3, False, 0.91),
)
ALL = SETTINGS.model_copy(update={"roi_batch": 50, "roi_positive_fraction": 1.0})


def _proposals() -> Proposals:
    boxes = torch.tensor([[0.0, 0, 21, 20], [61, 60, 90, 90], [30, 30, 50, 50], [0, 50, 20, 70]])
    return Proposals(boxes=boxes, objectness=torch.zeros(4))


def _by_box(regions: Regions) -> dict[tuple[float, ...], tuple[int, bool, float]]:
    rows = zip(regions.boxes.tolist(), regions.labels, regions.is_pseudo, regions.confidence, strict=True)
    return {tuple(box): (int(label), bool(pseudo), round(float(score), 4)) for box, label, pseudo, score in rows}


def test_sample__a_pseudo_label_on_a_base_box_becomes_a_region_of_it() -> None:
    found = _by_box(sample_regions(_proposals(), TARGETS, ALL, K))
    assert found == {
        (0, 0, 21, 20): (0, False, 1.0),
        (61, 60, 90, 90): (3, True, 0.91),
        (30, 30, 50, 50): (K, False, 1.0),
        (0, 50, 20, 70): (K, False, 1.0),
        (0, 0, 20, 20): (0, False, 1.0),
        (2, 0, 22, 20): (0, False, 1.0),
        (60, 60, 90, 90): (3, True, 0.91),
    }


def test_sample__in_one_stratum_the_pseudo_label_keeps_its_own_box() -> None:
    found = _by_box(sample_regions(_proposals(), TARGETS, ALL, K, stratified=False))
    assert found[2, 0, 22, 20] == (1, True, 0.95)


def test_sample__matched_boxes_are_those_of_the_targets() -> None:
    found = sample_regions(_proposals(), TARGETS, ALL, K)
    wanted = {(61.0, 60, 90, 90): [60.0, 60, 90, 90], (30.0, 30, 50, 50): [30.0, 30, 50, 50]}
    matched = dict(zip(map(tuple, found.boxes.tolist()), found.matched.tolist(), strict=True))
    assert {box: matched[box] for box in wanted} == wanted


def test_sample__share_of_foreground_and_equal_seeds() -> None:
    settings = SETTINGS.model_copy(update={"roi_batch": 4, "roi_positive_fraction": 0.25})
    drawn = [sample_regions(_proposals(), TARGETS, settings, K, seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert all(int((each.labels < K).sum()) == 1 for each in drawn)
    assert all(len(each) == 3 for each in drawn)  # there are two of background
    assert torch.equal(drawn[0].boxes, drawn[1].boxes)
    assert any(not torch.equal(drawn[0].boxes, each.boxes) for each in drawn[2:])


def test_sample__an_image_without_targets_is_background() -> None:
    found = sample_regions(_proposals(), open_targets(), ALL, K)
    assert found.labels.tolist() == [K] * 4
    assert not found.is_pseudo.any()
    assert found.confidence.tolist() == [1.0] * 4
    joined = Regions.joined([found, sample_regions(_proposals(), TARGETS, ALL, K)])
    assert len(joined) == 11
