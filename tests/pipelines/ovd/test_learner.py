"""A whole step against the same written as loops, in both phases; what it reads, reuses and leaves alone."""

from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from pipelines.ovd.config import Marvel, OvdConfig
from pipelines.ovd.detector import OpenDetector
from pipelines.ovd.learner import OpenLearner, ProposalLearner
from pipelines.ovd.views import OpenBatch
from tests.pipelines.ovd.loops import IS_NOVEL, SETTINGS, open_batch, open_detector, open_targets, step_by_loop
from vision_core.config.loading import load
from vision_core.detection.model.detector import Detector
from vision_core.detection.model.detectron2_parts import KeyedStandardHeads, detectron2_config
from vision_core.randomness import seeded

_IN_BURN_IN, _AFTER = 3, 900
_SETTINGS: dict[str, dict[str, Any]] = {
    "released": {},
    "vl_plm": load(OvdConfig, None, ["method=vl_plm"]).marvel.model_dump(),
    "paper": load(OvdConfig, None, ["profile=paper"]).marvel.model_dump(),
    "weak alone": {"weak_strong": False},
    "one stratum": {"stratified": False},
    "static labels": {"mining": False},
    "unweighted": {"reweighting": False},
    "novelty added": {"reweighting": False, "add_novelty": True},
    "base boxes": {"box_loss_on": "base"},
}


def _batch() -> OpenBatch:
    """Two images: one with base boxes and candidates, some of which overlap, and one without anything."""
    return open_batch(
        open_targets(
            ([5.0, 8, 40, 50], 0, True, 1.0),
            ([44.0, 20, 76, 80], 2, True, 1.0),
            ([6.0, 10, 42, 52], 1, False, 0.97),
            ([50.0, 2, 78, 30], 3, False, 0.93),
            ([2.0, 60, 30, 92], 1, False, 0.82),
            ([20.0, 50, 50, 90], 3, False, 0.55),
        ),
        open_targets(),
    )


def _learner(settings: dict[str, Any] | None = None, step: int = _AFTER) -> OpenLearner:
    learner = OpenLearner(open_detector(), IS_NOVEL, Marvel(**settings or {}))
    learner.step = step
    return learner.train()


@pytest.mark.parametrize(
    ("name", "step"),
    [("released", _IN_BURN_IN), ("paper", _IN_BURN_IN), *((name, _AFTER) for name in _SETTINGS)],
)
def test_step__equals_the_loop(name: str, step: int) -> None:
    learner = _learner(_SETTINGS[name], step)
    found = learner(_batch())
    expected = step_by_loop(learner.detector, _batch(), learner.marvel, step)
    assert found.keys() == expected.keys()
    for loss in found:
        torch.testing.assert_close(found[loss], expected[loss], atol=1e-5, rtol=1e-5, msg=lambda text: f"{name} {text}")
    weight = learner.detector.classifier.projection.weight
    ours, theirs = (torch.autograd.grad(torch.stack([*each.values()]).sum(), weight)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_step__mining_changes_the_targets() -> None:
    learner = _learner({"min_novelty": 0.0})
    learner(_batch())
    mined = learner.metrics
    assert mined["candidates"] == 4
    assert 0 < mined["mined"] < 4
    assert mined["mined_score"] >= 0.9
    strict = _learner({"min_novelty": 1.0})
    strict(_batch())
    assert strict.metrics["mined"] == 0


def test_learned__base_boxes_and_what_a_step_would_mine() -> None:
    learner, batch = _learner(), _batch()
    kept, none = learner.learned_boxes(learner.detector.features(batch.weak), batch)
    learner(batch)
    assert int(kept.is_base.sum()) == 2 and len(none) == 0
    assert int((~kept.is_base).sum()) == learner.metrics["mined"] < 4


def test_step__phases_follow_the_number_of_updates() -> None:
    learner = _learner(step=500)
    assert learner.is_burn_in
    learner.step = 501
    assert not learner.is_burn_in
    assert not _learner({"mining": False}, step=0).is_burn_in


def test_step__the_weak_half_is_what_a_pass_of_its_own_gives() -> None:
    detector, batch = open_detector(), _batch()
    with torch.no_grad():
        joint = detector.features([*batch.weak, *batch.strong])
        alone = detector.features(batch.weak)
    for level, maps in alone.maps.items():
        torch.testing.assert_close(joint.maps[level][:2], maps, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", [_IN_BURN_IN, _AFTER])
def test_step__the_backbone_runs_once(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, counted = _learner(step=step), list[int]()
    forward = learner.detector.backbone.forward

    def counting(images: Tensor) -> Any:  # noqa: ANN401
        counted.append(len(images))
        return forward(images)

    monkeypatch.setattr(learner.detector.backbone, "forward", counting)
    learner(_batch())
    assert counted == [4]


def test_step__scoring_leaves_no_gradient_and_the_mode_alone() -> None:
    learner = _learner()
    chosen = learner._choose(learner.detector.features(_batch().weak), _batch().targets)
    assert not chosen[0].confidence.requires_grad
    torch.stack([*learner(_batch()).values()]).sum().backward()
    assert learner.detector.training
    unused = [name for name, each in learner.named_parameters() if each.requires_grad and each.grad is None]
    assert unused == []


def test_step__without_candidates_adaptive_weights_do_nothing() -> None:
    base = open_batch(open_targets(([5.0, 8, 40, 50], 0, True, 1.0)), open_targets())
    whole, bare = _learner(), _learner({"mining": False, "reweighting": False, "stratified": False})
    for name, loss in whole(base).items():
        assert torch.equal(loss, bare(base)[name])


def _as_detectron2(detector: OpenDetector) -> KeyedStandardHeads:
    """The region heads of detectron2 with class-agnostic boxes, and the text classifier as a plain linear layer."""
    config = detectron2_config(detector.settings, detector.num_classes)
    config.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    config.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT = True
    heads = KeyedStandardHeads(config, detector.backbone.output_shape())
    heads.box_head.load_state_dict(detector.roi_heads.box_head.state_dict())
    heads.box_predictor.bbox_pred.load_state_dict(detector.roi_heads.box_predictor.bbox_pred.state_dict())
    matrix, projection = detector.classifier.class_matrix(), detector.classifier.projection
    linear = {"weight": matrix @ projection.weight, "bias": matrix @ projection.bias}
    heads.box_predictor.cls_score.load_state_dict({name: each.detach() for name, each in linear.items()})
    return heads.train()  # type: ignore[no-any-return]


def test_step__without_candidates_is_a_plain_faster_r_cnn_on_both_views() -> None:
    batch = open_batch(
        open_targets(([5.0, 8, 40, 50], 0, True, 1.0), ([44.0, 20, 76, 80], 2, True, 1.0)), open_targets()
    )
    learner = _learner()
    found = learner(batch)
    detector, keys = learner.detector, learner._keys(batch.indices, 4)
    features = detector.features([*batch.weak, *batch.strong])
    targets = [each.plain() for each in batch.targets * 2]
    anchors, proposals = detector.anchor_losses(features, targets, [seed for seed, _ in keys])
    heads = _as_detectron2(detector)
    heads.seeds = [seed for _, seed in keys]
    rows = zip(proposals, targets, features.sizes, strict=True)
    given = [
        (
            Instances(size, proposal_boxes=Boxes(each.boxes), objectness_logits=each.objectness),
            Instances(size, gt_boxes=Boxes(target.boxes), gt_classes=target.labels),
        )
        for each, target, size in rows
    ]
    with EventStorage():
        _, plain = heads(None, features.maps, [each for each, _ in given], [target for _, target in given])
    for name, loss in (anchors | plain).items():
        torch.testing.assert_close(found[name], loss, atol=1e-5, rtol=1e-5)


def test_step__neutral_weights_are_none() -> None:
    neutral = {"score_weight": 1.0, "weight_scale": 1.0, "delta": 0.0, "clip_weight": 1.0}
    sure = _batch()
    sure.targets[0].clip_scores.fill_(1.0)
    weighted, plain = _learner(neutral), _learner({"mining": False, "reweighting": False})
    sure.targets[0].confidence.fill_(1.0)
    for name, loss in weighted(sure).items():
        torch.testing.assert_close(loss, plain(sure)[name])


def test_step__order_of_base_boxes_and_candidates_does_not_matter() -> None:
    """The same regions are drawn where all are, and appended boxes come in another order."""
    all_regions = SETTINGS.model_copy(update={"roi_batch": 100, "roi_positive_fraction": 1.0})
    turned = _batch()
    turned.targets[0] = turned.targets[0].kept(torch.tensor([5, 4, 3, 2, 1, 0]))
    learner = _learner()
    learner.detector = open_detector(settings=all_regions)
    first, second = learner(_batch()), learner(turned)
    for name, loss in first.items():
        torch.testing.assert_close(loss, second[name], atol=1e-5, rtol=1e-5)


def test_step__permuted_classes_give_the_same_losses() -> None:
    order = torch.tensor([2, 0, 3, 1])
    learner = _learner()
    first = learner(_batch())
    permuted = _batch()
    for each in permuted.targets:
        each.labels.copy_(order.argsort()[each.labels])
    learner.detector.classifier.set_class_embeddings(learner.detector.classifier.embeddings[order])
    learner.is_novel = learner.is_novel[order]
    for name, loss in learner(permuted).items():
        torch.testing.assert_close(loss, first[name], atol=1e-5, rtol=1e-5)


def test_step__legacy_flag_takes_sure_candidates_for_base_boxes() -> None:
    batch = _batch()
    batch.targets[0].confidence[2] = 1.0
    marked = _learner({"legacy_base_from_confidence": True})._marked(batch.targets[0])
    assert marked.is_base.tolist() == [True, True, True, False, False, False]
    assert _learner()._marked(batch.targets[0]).is_base.tolist() == [True, True] + [False] * 4


def test_step__a_batch_without_any_target() -> None:
    for step in (_IN_BURN_IN, _AFTER):
        losses = _learner(step=step)(open_batch(open_targets(), open_targets()))
        assert all(loss.isfinite() for loss in losses.values())
        assert losses["loss_box_reg"].item() == 0


def test_average__judges_as_the_weights_while_it_equals_them_and_then_follows() -> None:
    plain, averaged = _learner(), _learner({"ema_keep_rate": 0.75})
    for name, loss in plain(_batch()).items():
        torch.testing.assert_close(averaged(_batch())[name], loss, atol=1e-5, rtol=1e-5)
    assert averaged.teacher is not None
    weight, average = averaged.detector.classifier.projection.weight, averaged._judge.classifier.projection.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1.0)
    averaged.after_step(_AFTER)
    torch.testing.assert_close(average, before + 0.25)
    assert not average.requires_grad
    assert averaged.product() is averaged.detector
    averaged.step = _IN_BURN_IN
    averaged.after_step(_IN_BURN_IN)
    assert torch.equal(average, weight)


def test_vocabulary__a_trained_detector_takes_another() -> None:
    detector = open_detector().eval()
    trained = {name: each.clone() for name, each in detector.named_parameters()}
    detector.set_vocabulary(("bar",), detector.classifier.embeddings[3:])
    with torch.no_grad():
        [found] = detector.detect(detector.features(_batch().weak[:1]))
    assert set(found.labels.tolist()) <= {0}
    assert all(torch.equal(each, trained[name]) for name, each in detector.named_parameters())
    with pytest.raises(ValueError, match="'2' names have '1' embeddings"):
        detector.set_vocabulary(("bar", "ring"), detector.classifier.embeddings)


def test_proposals__learn_base_boxes_as_one_class() -> None:
    with seeded(0):
        detector = Detector(SETTINGS, ("object",))
    learner = ProposalLearner(detector).train()
    with_candidates = learner(_batch())
    base = _batch()
    base.targets[0] = base.targets[0].kept(base.targets[0].is_base)
    assert all(torch.equal(loss, with_candidates[name]) for name, loss in learner(base).items())
    assert set(with_candidates) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
