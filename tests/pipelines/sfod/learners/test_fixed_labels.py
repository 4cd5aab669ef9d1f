"""Training on fixed labels: the source writes them once, and nothing that moves afterwards changes them."""

import copy

import pytest
import torch

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learners.adaptation import adaptation_learner
from pipelines.sfod.learners.fixed_labels import FixedLabelsLearner
from tests.pipelines.sfod.tiny import DETECTOR
from vision_core.config.loading import load
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.views import Batch
from vision_core.errors import TrainingError


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(3)
    built = Detector(DetectorSettings.model_validate(DETECTOR), ("disc", "square"))
    with torch.no_grad():
        built.roi_heads.box_predictor.cls_score.weight.mul_(60)
    return built


def _learner(detector: Detector, method: str, *words: str) -> torch.nn.Module:
    config = load(SfodConfig, None, [f"method={method}", "pseudo_labels.threshold=0.4", *words])
    return adaptation_learner(config, copy.deepcopy(detector), num_images=4).train()


def _batch(*indices: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8) for _ in range(4)]
    views = [views[index] for index in indices]
    return Batch(weak=views, strong=[255 - view for view in views], indices=list(indices), targets=[])


def test_step__first_is_that_of_the_mean_teacher(detector: Detector) -> None:
    fixed, teacher = _learner(detector, "fixed_pl"), _learner(detector, "mt")
    found, expected = fixed(_batch(0, 2)), teacher(_batch(0, 2))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert fixed.metrics["hpl_per_image"] == teacher.metrics["hpl_per_image"] > 0  # type: ignore[index]
    assert torch.equal(fixed.watch.window, teacher.watch.window)  # type: ignore[arg-type, union-attr]


def test_step__labels_are_written_once(detector: Detector) -> None:
    learner = _learner(detector, "fixed_pl", "teacher.every=step", "teacher.keep_rate=0")
    assert isinstance(learner, FixedLabelsLearner)
    learner(_batch(0, 2))
    written = learner.table.rows.clone()
    assert (written[:, 0] >= 0).tolist() == [True, False, True, False]
    with torch.no_grad():
        for each in (*learner.student.parameters(), *learner.source.parameters()):
            each.zero_()  # nothing would be found any more
    learner.after_step(1)
    assert not any(each.any() for each in learner.product().parameters())
    losses = learner(_batch(2, 0))
    assert torch.equal(learner.table.rows, written)
    assert losses["loss_rpn_loc"] > 0
    assert learner.metrics["hpl_per_image"] == written[[0, 2], 0].mean()


def test_guard__is_none_and_a_source_that_finds_nothing_ends_the_run(detector: Detector) -> None:
    learner = _learner(detector, "fixed_pl", "pseudo_labels.threshold=1")
    assert isinstance(learner, FixedLabelsLearner)
    assert learner.guard is None
    learner(_batch(0))
    with pytest.raises(TrainingError, match=r"threshold 1 is too high"):
        learner.after_epoch(1)


def test_discard__labels_of_a_step_left_out_are_written_anew(detector: Detector) -> None:
    learner = _learner(detector, "fixed_pl")
    assert isinstance(learner, FixedLabelsLearner)
    learner._written = torch.tensor([1]), torch.full_like(learner.table.rows[:1], 7.0)
    learner.discard()
    learner.exchange()
    assert learner.table.read([1]) == [None]
