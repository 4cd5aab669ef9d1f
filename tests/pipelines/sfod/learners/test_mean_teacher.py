"""The training steps on a real C4-R50 at 128 px: gradients, absences, batches, and the teacher."""

import copy

import pytest
import torch
from torch import Tensor

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learners.adaptation import adaptation_learner
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from pipelines.sfod.learners.source import SourceLearner
from pipelines.sfod.learners.statistics import StatisticsLearner
from pipelines.sfod.methods.lpld import lpld_loss, teacher_boxes
from vision_core.config.loading import replace
from vision_core.config.schema import Teacher
from vision_core.detection.model.detector import Detector, Targets
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.views import Batch
from vision_core.errors import ConfigError, TrainingError

CLASSES = ("person", "rider", "car")
SMALL = DetectorSettings(
    shortest_edge_px=128, rpn_pre_nms_train=200, rpn_post_nms_train=40, rpn_pre_nms_test=100, rpn_post_nms_test=30,
    roi_batch=32, anchor_sizes=((32, 64, 128),), pool_size=7, pixel_std=(60.0, 60.0, 60.0), test_score=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(3)
    built = Detector(SMALL, CLASSES)
    with torch.no_grad():
        # Random residual branches with frozen norms would grow without bound.
        for name, buffer in built.named_buffers():
            if name.endswith("conv3.norm.weight"):
                buffer.fill_(0.2)
        # A head that is sure of something, so that there are pseudo labels at all.
        built.roi_heads.box_predictor.cls_score.weight.mul_(60)
    return built


def _learner(detector: Detector, **changes: object) -> MeanTeacherLearner:
    learner = adaptation_learner(replace(SfodConfig(), changes), copy.deepcopy(detector)).train()
    assert isinstance(learner, MeanTeacherLearner)
    return learner


def _batch(count: int = 1, first: int = 0) -> Batch:
    views = []
    for index in range(first, first + count):
        generator = torch.Generator().manual_seed(index)
        views.append(torch.randint(0, 256, (3, 128, 160), generator=generator, dtype=torch.uint8))
    strong = [255 - view for view in views]
    return Batch(weak=views, strong=strong, indices=list(range(first, first + count)), targets=[])


LPLD = {
    "pseudo_labels.threshold": 0.5,
    "lpld.foreground": 0.4,
    "lpld.background": 1.0,
    "lpld.iou": 0.9,
}


def test_lpld_step__gradient_reaches_backbone_res5_and_class_layer_alone(detector: Detector) -> None:
    learner = _learner(detector, **LPLD)
    losses = learner(_batch())
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_lpld"}
    losses["loss_lpld"].backward()
    student = learner.student

    def moved(module: torch.nn.Module) -> bool:
        return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())

    assert moved(student.backbone.res3)
    assert moved(student.roi_heads.res5)
    assert moved(student.roi_heads.box_predictor.cls_score)
    assert not moved(student.roi_heads.box_predictor.bbox_pred)
    assert not moved(student.proposal_generator)
    assert not moved(student.backbone.res2)  # freeze_at 2
    assert all(p.grad is None and not p.requires_grad for p in learner.teacher.parameters())


@pytest.mark.slow
def test_lpld_step__two_images_give_the_mean_of_their_terms(detector: Detector) -> None:
    learner = _learner(detector, **LPLD)
    both = learner(_batch(2))["loss_lpld"]
    single = [learner(_batch(1, first))["loss_lpld"] for first in range(2)]
    torch.testing.assert_close(both, sum(single) / 2, atol=1e-6, rtol=1e-5)


def test_lpld_step__is_lpld_loss_over_all_proposals(detector: Detector) -> None:
    """The learner pools the selected regions alone; with the features of all, the loss is the same number."""
    learner, batch = _learner(detector, **LPLD), _batch()
    loss = learner(batch)["loss_lpld"]
    output = learner._run_teacher(batch.weak)
    proposals, logits, deltas = output.proposals[0].boxes, output.logits[0], output.deltas[0]
    student = learner.student
    embedded = student.embed(student.pool(student.features(batch.strong), [proposals]))
    whole = lpld_loss(
        student.score(embedded)[0],
        embedded,
        logits,
        output.embedded[0],
        teacher_boxes(proposals, logits, student.decode(deltas, proposals)),
        confident_targets(output.detections[0], 0.5).boxes,
        iou=0.9,
        foreground=0.4,
        background=1.0,
    )
    assert whole.item() > 0
    torch.testing.assert_close(loss, whole, atol=1e-6, rtol=1e-5)


def test_step__no_pseudo_label_keeps_the_image_as_background(detector: Detector) -> None:
    losses = _learner(detector, **{"pseudo_labels.threshold": 1.0})(_batch())
    assert "loss_lpld" not in losses
    assert losses["loss_rpn_loc"].item() == losses["loss_box_reg"].item() == 0
    assert losses["loss_cls"].item() > 0


def test_step__no_candidate_leaves_the_term_out(detector: Detector) -> None:
    losses = _learner(detector, **{**LPLD, "lpld.background": 0.0})(_batch())
    assert "loss_lpld" not in losses
    assert losses["loss_cls"].item() > 0


def test_step__skip_empty_learns_nothing_and_mixes_nothing(detector: Detector) -> None:
    learner = _learner(detector, **{"pseudo_labels.threshold": 1.0, "pseudo_labels.skip_empty_hpl": True})
    assert learner(_batch(2)) == {}


def test_step__mean_teacher_has_no_distillation(detector: Detector) -> None:
    losses = _learner(detector, method="mt", **LPLD)(_batch())
    assert "loss_lpld" not in losses


def test_step__same_key_same_losses_and_another_step_other_samples(detector: Detector) -> None:
    learner = _learner(detector, method="mt", **LPLD)

    def cls_loss(step: int) -> Tensor:
        learner.step = step
        torch.manual_seed(step * 7)  # the global state must not matter
        loss: Tensor = learner(_batch())["loss_rpn_cls"]
        return loss.detach()

    first = cls_loss(0)
    assert torch.equal(first, cls_loss(0))
    assert not torch.equal(first, cls_loss(1))


def test_teacher__moves_per_epoch_alone_and_stays_in_evaluation_mode(detector: Detector) -> None:
    learner = _learner(detector, method="mt")
    before = {name: entry.clone() for name, entry in learner.teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in learner.student.parameters():
            parameter.add_(1.0)
    learner.after_step(1)
    assert all(torch.equal(before[name], entry) for name, entry in learner.teacher.state_dict().items())
    learner.after_epoch(1)
    name = "module.roi_heads.box_predictor.cls_score.bias"
    torch.testing.assert_close(learner.teacher.state_dict()[name], before[name] + 0.25)
    assert not learner.teacher.training
    assert not learner.product().training


def test_guard__a_collapse_delivers_the_teacher_before_it(detector: Detector) -> None:
    learner = _learner(detector, method="mt")
    guard = learner.guard
    assert guard is not None

    def epoch(number: int, labels: int) -> float:
        guard.now.add_(torch.tensor([labels, 0, 0]))
        for model in (learner.student, learner.teacher.module):
            torch.nn.init.constant_(model.roi_heads.box_predictor.cls_score.bias, number)  # type: ignore[union-attr, arg-type]
        learner.after_epoch(number)
        return float(learner.product().roi_heads.box_predictor.cls_score.bias[0])

    assert epoch(1, 100) == 1
    assert epoch(2, 80) == 2
    assert epoch(3, 10) == 2
    assert learner.notes == [
        "ALARM after epoch 3: pseudo labels fell from 100 in the first epoch to 10. The teacher before it is delivered."
    ]
    assert epoch(4, 100) == 2


def test_watch__two_hundred_images_without_pseudo_label_stop_with_the_highest_score(detector: Detector) -> None:
    learner = _learner(detector, method="mt", **{"pseudo_labels.threshold": 1.0})
    learner.watch.window.copy_(torch.tensor([199.0, 0.0, 0.41]))
    learner.step = 19
    with pytest.raises(TrainingError, match=r"threshold 1 is too high.*first 200 images, the highest score was"):
        learner(_batch())


def test_watch__a_checkpoint_from_before_the_windows_is_read(detector: Detector) -> None:
    learner = _learner(detector, method="mt")
    state = learner.state_dict()
    for first, window, past in (([30.0, 2, 0.8], [30.0, 2, 0.8], [0, 0]), ([200.0, 9, 0.9], [0, 0, 0], [1, 0])):
        old = {name: entry for name, entry in state.items() if not name.startswith("watch.")}
        learner.load_state_dict(old | {"first_images": torch.tensor(first)}, strict=True)
        assert learner.watch.window.tolist() == pytest.approx(window)
        assert learner.watch.past.tolist() == past


def test_statistics__one_pass_is_the_mean_over_batches_and_nothing_else_moves(detector: Detector) -> None:
    own = copy.deepcopy(detector)
    own.backbone.stem.conv1.norm.running_mean.add_(0.5)
    learner = StatisticsLearner(own)
    before = {name: parameter.clone() for name, parameter in learner.named_parameters()}
    maps = []
    for index in range(2):
        learner.step = index
        assert learner(_batch(1, index)) == {}
        image = own._normalise(_batch(1, index).weak[0])[None]
        conv = own.backbone.stem.conv1
        maps.append(torch.nn.functional.conv2d(image, conv.weight, None, conv.stride, conv.padding).mean(dim=(0, 2, 3)))
    torch.testing.assert_close(own.backbone.stem.conv1.norm.running_mean, (maps[0] + maps[1]) / 2, atol=1e-3, rtol=1e-4)
    assert all(torch.equal(before[name], parameter) for name, parameter in learner.named_parameters())


def test_statistics__folded_norms_are_refused(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="no normalisation statistics"):
        StatisticsLearner(copy.deepcopy(detector))(_batch())


@pytest.mark.parametrize("keep_rate", [0.0, 0.5])
def test_source__average_leaves_the_run_when_there_is_one(detector: Detector, keep_rate: float) -> None:
    average = Teacher(keep_rate=keep_rate, every="step")
    learner = SourceLearner(copy.deepcopy(detector), average=average).train()
    targets = [Targets(boxes=torch.tensor([[20.0, 20, 90, 100]]), labels=torch.tensor([1]))]
    batch = Batch(weak=[], strong=_batch().strong, indices=[0], targets=targets)
    losses = learner(batch)
    assert all(value.item() > 0 for value in losses.values())
    with torch.no_grad():
        learner.student.roi_heads.box_predictor.cls_score.bias.fill_(1.0)
    learner.after_step(1)
    assert learner.product().roi_heads.box_predictor.cls_score.bias[0].item() == 1 - keep_rate
