"""Views: weak and strong ones share geometry and targets; sizes and mirrors follow from the key."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.ovd.pseudo_labels.label_file import Candidate
from pipelines.ovd.views import OpenViews
from tests.pipelines.ovd.loops import SETTINGS
from vision_core.detection.datasets.records import ClassList, DetectionDataset, LabelledBox
from vision_core.images.drawing import write_png

CLASSES = ("disc", "square", "ring", "bar")


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    """One picture of 64 x 96 px, its right half white, with a base box, a crowd and an empty box."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 48:] = 255
    write_png(tmp_path / "a.png", picture)
    objects = [
        LabelledBox(name="ring", box=(48.0, 0, 96, 64)),
        LabelledBox(name="disc", box=(0.0, 0, 9, 9), is_crowd=True),
    ]
    record = ClassList(names=CLASSES).record("a", tmp_path / "a.png", objects, (64, 96))
    return DetectionDataset(name="list", classes=CLASSES, records=(record,), has_labels=True)


CANDIDATES = {
    "a": Candidate(
        boxes=np.array([[0, 0, 48, 64], [5, 5, 5, 30]], np.float32),
        labels=np.array([1, 3], np.int64),
        clip_scores=np.array([0.9, 0.8], np.float32),
        confidence=np.array([0.9, 0.8], np.float32),
    )
}


def _views(dataset: DetectionDataset, edges: tuple[int, ...] = (), seed: int = 0) -> OpenViews:
    return OpenViews(dataset, SETTINGS, candidates=CANDIDATES, edges_px=edges, seed=seed)


def test_targets__base_boxes_first_crowds_and_empty_ones_left_out(dataset: DetectionDataset) -> None:
    [targets] = _views(dataset)[0, 0].targets
    assert targets.labels.tolist() == [2, 1]
    assert targets.is_base.tolist() == [True, False]
    torch.testing.assert_close(targets.clip_scores, torch.tensor([0.0, 0.9]))
    torch.testing.assert_close(targets.confidence, torch.tensor([1.0, 0.9]))


@pytest.mark.parametrize("edges", [(), (32,), (48, 80)])
def test_views__boxes_follow_size_and_mirror(edges: tuple[int, ...], dataset: DetectionDataset) -> None:
    views = _views(dataset, edges)
    seen = set()
    for epoch in range(8):
        batch = views[epoch, 0]
        [weak], [strong], [targets] = batch.weak, batch.strong, batch.targets
        assert weak.shape == strong.shape
        seen.add((weak.shape[1], bool(weak[0, 5, 2] > 128)))
        left, top, right, bottom = targets.boxes[0].round().int().tolist()
        assert weak[:, top + 1 : bottom - 1, left + 1 : right - 1].float().mean() > 250
        left, top, right, bottom = targets.boxes[1].round().int().tolist()
        assert weak[:, top + 1 : bottom - 1, left + 1 : right - 1].float().mean() < 5
    assert {height for height, _ in seen} == set(edges or (64,))
    assert {mirrored for _, mirrored in seen} == {True, False}


def test_views__equal_keys_give_equal_bytes(dataset: DetectionDataset) -> None:
    first, again, other = _views(dataset)[3, 0], _views(dataset)[3, 0], _views(dataset, seed=1)[3, 0]
    assert torch.equal(first.strong[0], again.strong[0])
    assert not torch.equal(first.strong[0], other.strong[0])


def test_collate__images_of_a_step(dataset: DetectionDataset) -> None:
    views = _views(dataset)
    batch = views.collate([views[0, 0], views[1, 0]])
    assert (len(batch.weak), len(batch.strong), len(batch.targets), batch.indices) == (2, 2, 2, [0, 0])
