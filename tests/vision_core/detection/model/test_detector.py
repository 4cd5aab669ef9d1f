import copy
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from vision_core.detection.model.detector import Detector, Targets
from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.settings import DetectorSettings
from vision_core.randomness import key

CLASSES = ("cat", "dog", "cow")
SMALL: dict[str, Any] = {
    "rpn_pre_nms_train": 200,
    "rpn_post_nms_train": 40,
    "rpn_pre_nms_test": 200,
    "rpn_post_nms_test": 20,
    "rpn_batch": 32,
    "roi_batch": 16,
    "test_score": 0.0,
}
PYRAMID: dict[str, Any] = SMALL | {
    "backbone": "r18",
    "neck": "fpn",
    "fpn_channels": 16,
    "head_channels": 32,
    "pool_size": 7,
    "anchor_sizes": ((16,), (32,), (64,), (128,), (256,)),
    "freeze_at": 0,
}
LITE0 = PYRAMID | {"backbone": "lite0", "channel_order": "rgb", "pixel_mean": (127,) * 3, "pixel_std": (128,) * 3}


def make_detector(values: dict[str, Any], seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return Detector(DetectorSettings(**values), CLASSES)


def make_images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = ((128, 100), (96, 128))
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def make_targets() -> list[Targets]:
    return [
        Targets(boxes=torch.tensor([[10.0, 10, 60, 70], [30, 30, 90, 90]]), labels=torch.tensor([0, 2])),
        Targets(boxes=torch.tensor([[5.0, 20, 50, 60]]), labels=torch.tensor([1])),
    ]


def nothing() -> Targets:
    return Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))


def seeds(step: int, count: int = 2) -> list[tuple[int, int]]:
    return [(key("rpn", 0, step, index), key("roi", 0, step, index)) for index in range(count)]


def values_of(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in losses.items()}


def their_model(detector: Detector) -> nn.Module:
    config = detectron2_config(detector.settings, len(CLASSES))
    config.MODEL.DEVICE = "cpu"
    model: nn.Module = build_model(config)
    model.load_state_dict(detector.state_dict(), strict=True)
    return model


def their_inputs(images: list[Tensor], targets: list[Targets]) -> list[dict[str, Any]]:
    return [
        {
            "image": image.flip(0),  # it expects BGR
            "instances": Instances(tuple(image.shape[1:]), gt_boxes=Boxes(each.boxes), gt_classes=each.labels),
        }
        for image, each in zip(images, targets, strict=True)
    ]


@pytest.mark.parametrize("values", [SMALL, PYRAMID], ids=["c4-r50", "fpn-r18"])
def test_detect__same_bits_as_detectron2(values: dict[str, Any]) -> None:
    detector = make_detector(values).eval()
    model: Any = their_model(detector).eval()
    images = make_images()
    with torch.no_grad():
        ours = detector.detect(detector.features(images))
        theirs = model.inference(their_inputs(images, make_targets()), do_postprocess=False)
    assert sum(len(found.scores) for found in ours) > 0
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.equal(found.boxes, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.labels, expected.pred_classes)


@pytest.mark.parametrize("values", [SMALL, PYRAMID], ids=["c4-r50", "fpn-r18"])
@pytest.mark.parametrize("append_truth", [True, False])
def test_losses__same_bits_as_detectron2(values: dict[str, Any], append_truth: bool) -> None:
    detector = make_detector(values).train()
    model: Any = their_model(detector).train()
    model.roi_heads.proposal_append_gt = append_truth
    images, targets = make_images(), make_targets()
    torch.manual_seed(3)
    with EventStorage():
        theirs = model(their_inputs(images, targets))
    torch.manual_seed(3)
    ours = detector.losses(detector.features(images), targets, append_truth=append_truth)
    assert values_of(ours) == values_of(theirs)
    assert values_of(ours)["loss_rpn_loc"] > 0


def test_losses__keyed_sampling_ignores_the_global_state() -> None:
    detector = make_detector(PYRAMID)
    features = detector.features(make_images())
    torch.manual_seed(1)
    first = detector.losses(features, make_targets(), seeds(step=0))
    torch.manual_seed(2)
    again = detector.losses(features, make_targets(), seeds(step=0))
    other = detector.losses(features, make_targets(), seeds(step=1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["loss_rpn_cls"], other["loss_rpn_cls"])


def test_losses__batch_of_two_is_the_mean_of_two_images() -> None:
    detector = make_detector(PYRAMID)
    images = [make_images()[0], make_images()[0].flip(1)]  # one size: padding is not at stake here
    targets = make_targets()
    both = values_of(detector.losses(detector.features(images), targets, seeds(step=0)))
    alone = [
        values_of(detector.losses(detector.features([image]), [each], [seed]))
        for image, each, seed in zip(images, targets, seeds(step=0), strict=True)
    ]
    for name, value in both.items():
        assert value == pytest.approx((alone[0][name] + alone[1][name]) / 2, rel=1e-5), name


def test_losses__without_targets_nothing_is_regressed() -> None:
    detector = make_detector(PYRAMID)
    losses = detector.losses(
        detector.features(make_images()), [nothing(), nothing()], seeds(step=0), append_truth=False
    )
    values = values_of(losses)
    assert values["loss_rpn_loc"] == values["loss_box_reg"] == 0
    assert values["loss_cls"] > 0
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_propose__mode_decides_how_many() -> None:
    detector = make_detector(PYRAMID)
    features = detector.features(make_images())
    assert [len(each.boxes) for each in detector.eval().propose(features)] == [20, 20]
    assert [len(each.boxes) for each in detector.train().propose(features)] == [40, 40]


@pytest.mark.parametrize(("values", "channels"), [(SMALL, 2048), (PYRAMID, 16)], ids=["c4-r50", "fpn-r18"])
def test_pool__subset_equals_rows_of_the_whole(values: dict[str, Any], channels: int) -> None:
    detector = make_detector(values).eval()
    with torch.no_grad():
        features = detector.features(make_images())
        boxes = [each.boxes[:4] for each in detector.propose(features)]
        boxes = [torch.cat([each, torch.tensor([[0.0, 0, 64, 64], [20, 8, 90, 80]])]) for each in boxes]
        whole = detector.pool(features, boxes)
        keep = [torch.tensor([len(boxes[0]) - 1]), torch.tensor([0, len(boxes[1]) - 1])]
        part = detector.pool(features, [each[rows] for each, rows in zip(boxes, keep, strict=True)])
    rows = torch.cat([keep[0], keep[1] + len(boxes[0])])
    assert whole.shape[1:] == (channels, 7, 7)
    torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-5)


def test_select__reuses_scores_of_all_proposals() -> None:
    detector = make_detector(SMALL).eval()
    with torch.no_grad():
        features = detector.features(make_images())
        proposals = detector.propose(features)
        pooled = detector.pool(features, [each.boxes for each in proposals])
        found = detector.select(features, proposals, *detector.score(detector.embed(pooled)))
        expected = detector.detect(features)
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(found, expected, strict=True))


def test_no_boxes__every_step_is_legal() -> None:
    detector = make_detector(SMALL).eval()
    features = detector.features(make_images()[:1])
    pooled = detector.pool(features, [torch.zeros(0, 4)])
    logits, deltas = detector.score(detector.embed(pooled))
    assert logits.shape == (0, 4)
    assert detector.decode(deltas, torch.zeros(0, 4)).shape == (0, 3, 4)


def test_decode__moves_by_a_tenth_of_a_delta_and_does_not_clip() -> None:
    detector = make_detector(PYRAMID)
    deltas = torch.zeros(1, 12)
    deltas[0, 4] = -30.0  # dx of class 1, weight 10: three widths to the left
    boxes = detector.decode(deltas, torch.tensor([[10.0, 20, 30, 60]]))
    assert boxes[0].tolist() == [[10, 20, 30, 60], [-50, 20, -30, 60], [10, 20, 30, 60]]


def test_features__rgb_is_turned_to_the_order_of_the_weights() -> None:
    detector = make_detector(PYRAMID)
    swapped = Detector(detector.settings.model_copy(update={"channel_order": "rgb"}), CLASSES)
    swapped.load_state_dict(detector.state_dict())
    image = make_images()[0]
    with torch.no_grad():
        ours = detector.features([image]).maps["p3"]
        theirs = swapped.features([image.flip(0)]).maps["p3"]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("values", [SMALL, PYRAMID, LITE0], ids=["c4-r50", "fpn-r18", "fpn-lite0"])
def test_train__normalisation_stays_frozen_and_gradients_flow(values: dict[str, Any]) -> None:
    detector = make_detector(values).train()
    before = {name: tensor.clone() for name, tensor in detector.named_buffers()}
    losses = detector.losses(detector.features(make_images()), make_targets(), seeds(step=0))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.named_buffers())
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)


def test_state_dict__names_are_those_of_detectron2() -> None:
    names = set(make_detector(SMALL).state_dict())
    assert "backbone.res2.0.conv1.norm.running_var" in names
    assert "proposal_generator.rpn_head.objectness_logits.weight" in names
    assert "roi_heads.res5.2.conv3.weight" in names
    assert {name.partition(".")[0] for name in names} == {"backbone", "proposal_generator", "roi_heads"}


def test_copy__a_detector_that_has_trained_can_be_copied() -> None:
    detector = make_detector(PYRAMID)
    detector.losses(detector.features(make_images()), make_targets(), seeds(step=0))
    copied = copy.deepcopy(detector).freeze()
    assert not copied.training
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert any(parameter.requires_grad for parameter in detector.parameters())
