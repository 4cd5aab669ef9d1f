"""The steps of WSCoL on real detectors: terms, gradients, absences, batches, and what the memory takes in."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.sfod.config import SfodConfig, Wscol
from pipelines.sfod.learners.adaptation import adaptation_learner
from pipelines.sfod.learners.wscol import WscolLearner
from pipelines.sfod.methods.clustering import find_anchors, plain_cluster, proto_cluster
from pipelines.sfod.methods.contrast import contrast_loss, instance_loss, untrusted_pairs
from pipelines.sfod.methods.uncertainty import proposal_variance
from pipelines.sfod.methods.wscol import categories, consistency_loss
from tests.pipelines.sfod.tiny import DETECTOR
from vision_core.config.loading import load
from vision_core.detection.model.detector import Detector, Targets
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.views import Batch
from vision_core.errors import ConfigError
from vision_core.randomness import key

PYRAMID = DetectorSettings.model_validate(DETECTOR)
SMALL: dict[str, Any] = {
    "freeze_at": 0, "shortest_edge_px": 64, "anchor_sizes": ((32, 64),), "pixel_std": (60.0, 60.0, 60.0),
    "rpn_pre_nms_train": 200, "rpn_post_nms_train": 20, "rpn_pre_nms_test": 100, "rpn_post_nms_test": 20,
    "roi_batch": 16,
}  # fmt: skip
C4, VGG = DetectorSettings(**SMALL), DetectorSettings(backbone="vgg16", head_channels=32, **SMALL)
OTHERS = [pytest.param(C4, id="c4", marks=pytest.mark.slow), pytest.param(VGG, id="vgg", marks=pytest.mark.slow)]
DETECTION = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
CORE = {"loss_consistency", "loss_contrast"}
FULL = CORE | {"loss_instance", "loss_gradient"}
IMAGES = 4  # of an epoch


def make_detector(settings: DetectorSettings, classes: tuple[str, ...]) -> Detector:
    torch.manual_seed(3)
    built = Detector(settings, classes)
    with torch.no_grad():
        for name, buffer in built.named_buffers():
            if name.endswith("conv3.norm.weight"):  # random residual branches with frozen norms would grow
                buffer.fill_(0.2)
        # Sure of something, also where dropout and small features come before.
        built.roi_heads.box_predictor.cls_score.weight.mul_(600 if settings.backbone == "vgg16" else 60)
    return built


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector(PYRAMID, ("person", "rider", "car"))


def _learner(detector: Detector, method: str, *words: str) -> WscolLearner:
    config = load(SfodConfig, None, [f"method={method}", "pseudo_labels.threshold=0.4", *words])
    learner = adaptation_learner(config, copy.deepcopy(detector), num_images=IMAGES).train()
    assert isinstance(learner, WscolLearner)
    return learner


def _batch(*indices: int) -> Batch:
    views = []
    for index in indices:
        generator = torch.Generator().manual_seed(index)
        views.append(torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8))
    return Batch(weak=views, strong=[255 - view for view in views], indices=list(indices), targets=[])


def _moved(module: nn.Module) -> bool:
    return any(each.grad is not None and bool(each.grad.any()) for each in module.parameters())


@pytest.mark.parametrize(
    ("method", "terms", "classes", "settings"),
    [
        pytest.param("wscol_core", CORE, ("car",), PYRAMID, id="core-one-class"),
        pytest.param("wsco_full", FULL, ("person", "rider", "car"), PYRAMID, id="full"),
        pytest.param("wsco_full", FULL, ("car",), PYRAMID, id="full-one-class", marks=pytest.mark.slow),
        pytest.param("wscol_core", CORE, ("person", "rider", "car"), C4, id="core-c4", marks=pytest.mark.slow),
        pytest.param("wsco_full", FULL, ("car",), C4, id="full-one-class-c4", marks=pytest.mark.slow),
        pytest.param("wscol_core", CORE, ("car",), VGG, id="core-one-class-vgg", marks=pytest.mark.slow),
        pytest.param("wsco_full", FULL, ("person", "rider", "car"), VGG, id="full-vgg", marks=pytest.mark.slow),
    ],
)
def test_step__terms_are_finite_and_train_the_mapping(
    method: str, terms: set[str], classes: tuple[str, ...], settings: DetectorSettings
) -> None:
    learner = _learner(make_detector(settings, classes), method)
    for step in range(2):
        learner.step = step
        losses = learner(_batch(step))
        assert set(losses) == DETECTION | terms
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values(), torch.zeros(())).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in learner.mapping.parameters())
    assert _moved(learner.mapping.projection)
    assert _moved(learner.student.roi_heads)
    assert learner.memory.bank.pushed.sum() >= 2
    assert learner.memory.prototypes.known.any()
    assert all(each.grad is None for each in learner.teacher.parameters())


def test_step__gradients_of_each_term(detector: Detector) -> None:
    learner = _learner(detector, "wsco_full")
    losses = learner(_batch(0))
    reached = {}
    for name in FULL:
        learner.zero_grad(set_to_none=True)
        losses[name].backward(retain_graph=True)
        student = learner.student
        parts = {
            "backbone": student.backbone,
            "classes": student.roi_heads.box_predictor.cls_score,
            "boxes": student.roi_heads.box_predictor.bbox_pred,
            "rpn": student.proposal_generator,
            "hidden": learner.mapping.hidden_layer,
            "projection": learner.mapping.projection,
        }
        reached[name] = {part for part, module in parts.items() if _moved(module)}
    assert reached == {
        "loss_consistency": {"backbone", "classes"},
        "loss_contrast": {"backbone", "hidden", "projection"},
        "loss_instance": {"backbone", "hidden", "projection"},
        "loss_gradient": {"backbone", "hidden"},
    }


@pytest.mark.parametrize("step", [1, IMAGES])  # in the first epoch, and behind it
def test_step__terms_are_the_parts_in_turn(step: int, detector: Detector) -> None:
    learner = _learner(detector, "wsco_full", "wscol.variance=0.1")
    learner(_batch(3))  # something to remember
    learner.step = step
    batch, memory = _batch(0), copy.deepcopy(learner.memory)
    losses = learner(batch)

    output = learner._run_teacher(batch.weak)
    proposals, logits = output.proposals[0], output.logits[0]
    labels = confident_targets(output.detections[0], 0.4)
    student, mapping = learner.student, learner.mapping
    with torch.no_grad():
        maps = [student.pool(student.features(view), [proposals.boxes]) for view in (batch.strong, batch.weak)]
        memory.bank.push(student.pool(output.features, [labels.boxes]), labels.labels)
        held, classes = memory.bank.read()
        memory.prototypes.move(mapping(held), classes)
        strong, weak = (mapping(each) for each in maps)
        taught = mapping(output.maps[0])
    assert torch.equal(memory.bank.maps, learner.memory.bank.maps)
    torch.testing.assert_close(memory.prototypes.vectors, learner.memory.prototypes.vectors)
    generator = torch.Generator().manual_seed(key("anchors", 0, step, 0))
    anchors = find_anchors(proposals.boxes, labels, 3, count=4, generator=generator)  # a quarter of the regions
    found = proto_cluster(taught, logits, memory.prototypes.vectors, memory.prototypes.known, anchors)
    plain = None
    if step < IMAGES:
        embedded = learner._teacher.embed(held)
        rows = torch.cat([output.embedded[0], embedded]), torch.cat([logits, learner._teacher.score(embedded)[0]])
        plain = plain_cluster(*rows, anchors)
    chosen = categories(found, anchors, plain, step / IMAGES)
    rows_taken = chosen != 3 if proposal_variance(proposals.boxes, proposals.objectness) > 0.1 else None
    contrast = contrast_loss(strong, chosen, rows=rows_taken, untrusted=untrusted_pairs(taught, chosen, 3))
    expected = {
        "loss_consistency": consistency_loss(student.score(student.embed(maps[0]))[0], logits),
        "loss_contrast": 0.5 * contrast,
        "loss_instance": 0.01 * instance_loss(weak, strong, anchors.instances, len(labels.labels)),
    }
    assert len(labels.labels) > 1
    assert contrast > 0
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-4)
    assert ("mapped_distance_max" in learner.metrics) == (step < IMAGES)


def test_step__two_images_are_the_mean_of_each_alone_and_are_remembered_in_order(detector: Detector) -> None:
    together, apart = _learner(detector, "wsco_full"), _learner(detector, "wsco_full")
    for learner in (together, apart):
        learner(_batch(3))
    both = together(_batch(0, 1))
    single = []
    before = copy.deepcopy(apart.memory)
    for index in (0, 1):
        apart.memory.load_state_dict(before.state_dict())
        single.append(apart(_batch(index)))
    for name in FULL:
        torch.testing.assert_close(both[name], (single[0][name] + single[1][name]) / 2, atol=1e-6, rtol=1e-4)
    apart.memory.load_state_dict(before.state_dict())
    for index in (0, 1):
        apart(_batch(index))
    torch.testing.assert_close(together.memory.bank.maps, apart.memory.bank.maps, atol=1e-5, rtol=1e-5)
    assert torch.equal(together.memory.bank.pushed, apart.memory.bank.pushed)


def _labels_of_second_alone(learner: WscolLearner) -> None:
    """Every other image has no pseudo label."""
    run_teacher = learner._run_teacher

    def run(images: list[Tensor]):  # type: ignore[no-untyped-def] # noqa: ANN202
        output = run_teacher(images)
        output.detections[0].scores.zero_()
        return output

    learner._run_teacher = run  # type: ignore[method-assign]


@pytest.mark.parametrize("skips", [True, False])
def test_step__image_without_pseudo_label_teaches_nothing_to_the_memory(skips: bool, detector: Detector) -> None:
    learner, alone = (_learner(detector, "wsco_full", f"pseudo_labels.skip_empty_hpl={skips}") for _ in range(2))
    _labels_of_second_alone(learner)
    losses, expected = learner(_batch(0, 1)), alone(_batch(1))
    for name in FULL:
        torch.testing.assert_close(losses[name], expected[name] / 2, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(learner.memory.bank.maps, alone.memory.bank.maps, atol=1e-5, rtol=1e-5)
    assert torch.equal(learner.memory.bank.pushed, alone.memory.bank.pushed)


def test_step__without_any_pseudo_label_is_skipped(detector: Detector) -> None:
    learner = _learner(detector, "wsco_full", "pseudo_labels.threshold=1")
    assert learner(_batch(0, 1)) == {}
    assert not learner.memory.bank.pushed.any()
    kept = _learner(detector, "wsco_full", "pseudo_labels.threshold=1", "pseudo_labels.skip_empty_hpl=false")
    losses = kept(_batch(0))
    assert set(losses) == DETECTION
    assert losses["loss_rpn_loc"].item() == losses["loss_box_reg"].item() == 0


@pytest.mark.parametrize("settings", OTHERS)
@pytest.mark.parametrize("method", ["wscol_core", "wsco_full"])
def test_step__images_without_pseudo_label_on_other_detectors(method: str, settings: DetectorSettings) -> None:
    """One class; a step without any pseudo label, one with one image that has some, and one that learns from both."""
    whole = make_detector(settings, ("car",))
    assert _learner(whole, method, "pseudo_labels.threshold=1")(_batch(0, 1)) == {}
    skipping, keeping = (_learner(whole, method, f"pseudo_labels.skip_empty_hpl={skips}") for skips in (True, False))
    for learner in (skipping, keeping):
        _labels_of_second_alone(learner)
        losses = learner(_batch(0, 1))
        assert set(losses) == DETECTION | (FULL if method == "wsco_full" else CORE)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values(), torch.zeros(())).backward()
        assert all(each.grad is None or each.grad.isfinite().all() for each in learner.parameters())
    assert skipping.memory.bank.pushed.sum() > 0
    assert torch.equal(skipping.memory.bank.pushed, keeping.memory.bank.pushed)


def test_step__lpld_on_top_is_that_of_lpld_alone(detector: Detector) -> None:
    words = ("lpld.foreground=0.4", "lpld.background=1", "lpld.iou=0.9")
    both = _learner(detector, "wsco_full+lpld", *words)
    config = load(SfodConfig, None, ["method=lpld", "pseudo_labels.threshold=0.4", *words])
    alone = adaptation_learner(config, copy.deepcopy(detector)).train()
    losses = both(_batch(0, 1))
    assert set(losses) == DETECTION | FULL | {"loss_lpld"}
    expected = alone(_batch(0, 1))["loss_lpld"]
    assert expected > 0
    torch.testing.assert_close(losses["loss_lpld"], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_step__half_precision_leaves_memory_and_losses_in_single(detector: Detector) -> None:
    learner, exact = (_learner(detector, "wsco_full+lpld", "lpld.foreground=0.4") for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = learner(_batch(0))
    expected = exact(_batch(0))
    assert set(losses) >= FULL
    assert all(losses[name].dtype == torch.float32 and losses[name].isfinite() for name in FULL)
    assert losses["loss_consistency"].item() == pytest.approx(expected["loss_consistency"].item(), rel=0.2)
    assert learner.memory.prototypes.vectors.dtype == learner.memory.bank.maps.dtype == torch.float32
    sum(losses.values(), torch.zeros(())).backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in learner.parameters())


def test_learner__what_is_off_is_not_computed(detector: Detector) -> None:
    learner = _learner(detector, "wscol_core")
    seen = []
    features = learner.student.features
    learner.student.features = lambda images: (seen.append(len(images)), features(images))[1]  # type: ignore[method-assign, func-returns-value]
    learner(_batch(0))
    assert seen == [1]  # the strong view alone


def test_learner__begins_with_the_same_mapping_whatever_ran_before(detector: Detector) -> None:
    def weights(seed: int) -> Iterator[Tensor]:
        torch.manual_seed(seed)
        return _learner(detector, "wscol_core").mapping.parameters()

    assert all(torch.equal(one, other) for one, other in zip(weights(1), weights(2), strict=True))


def test_learner__moves_with_its_memory_through_a_checkpoint(detector: Detector) -> None:
    learner, other = (_learner(detector, "wsco_full") for _ in range(2))
    learner(_batch(0))
    other.load_state_dict(learner.state_dict(), strict=True)
    learner.step = other.step = 1
    one, two = learner(_batch(1)), other(_batch(1))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_learner__maps_of_another_size_are_refused() -> None:
    small = Detector(PYRAMID.model_copy(update={"pool_size": 5}), ("car",))
    with pytest.raises(ConfigError, match=r"pool_size is '5', which gives maps of 5 x 5"):
        WscolLearner(small, wscol=Wscol(), steps_per_epoch=1)


def test_discard__forgets_what_no_process_has_taken_in(detector: Detector) -> None:
    learner = _learner(detector, "wscol_core")
    before = learner.memory.bank.pushed.clone()
    learner._seen = learner.memory.bank.maps[0, :1], torch.tensor([1])
    learner.discard()
    learner.exchange()
    assert torch.equal(learner.memory.bank.pushed, before)


def test_targets__of_a_step_are_the_confident_detections(detector: Detector) -> None:
    learner = _learner(detector, "wscol_core")
    output = learner._run_teacher(_batch(0).weak)
    targets: Targets = confident_targets(output.detections[0], 0.4)
    learner(_batch(0))
    assert learner.memory.bank.pushed.tolist() == torch.bincount(targets.labels, minlength=3).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mt", "lpld", "wsco_full", "wsco_full+lpld"])
def test_step__of_vgg_drops_alike_in_any_process(method: str) -> None:
    words = [f"method={method}", "pseudo_labels.threshold=0.4"]
    words += ["lpld.iou=1", "lpld.foreground=0", "lpld.background=1"] if "lpld" in method else []
    config = load(SfodConfig, None, words)
    source = make_detector(VGG, ("person", "rider", "car"))
    found = []
    for state in (1, 2):
        learner = adaptation_learner(config, copy.deepcopy(source), num_images=IMAGES).train()
        torch.manual_seed(state)  # a process with another past
        found.append(learner(_batch(0, 1)))
    assert found[0].keys() == found[1].keys()
    assert ("loss_lpld" in found[0]) == ("lpld" in method)
    for name, loss in found[0].items():
        assert torch.equal(loss, found[1][name]), name
