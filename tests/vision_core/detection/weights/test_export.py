from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.pipelines.sfod.tiny import exported_source, source_bundle
from tests.vision_core.detection.synthetic import make_voc
from vision_core.bundles.export import export
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.bundles import load_detector, save_detector
from vision_core.detection.weights.export import exportable_detector
from vision_core.errors import CheckpointError, UsageError
from vision_core.images.reading import read_image


def test_export__finds_what_the_bundle_finds(tmp_path: Path) -> None:
    exported = onnxruntime.InferenceSession(exported_source(), providers=["CPUExecutionProvider"])
    assert exported.get_inputs()[0].shape == [3, 96, 96]
    detector, _ = load_detector(source_bundle())
    counts = set()
    for path in sorted((make_voc(tmp_path, count=4) / "JPEGImages").iterdir()):
        image = np.zeros((96, 96, 3), np.uint8)
        content = read_image(path)[:96, :96]
        image[: content.shape[0], : content.shape[1]] = content
        given = torch.from_numpy(image).permute(2, 0, 1).float()
        with torch.no_grad():
            [expected] = detector.detect(detector.features([given]))
        boxes, scores, labels = exported.run(["boxes", "scores", "labels"], {"image": given.numpy()})
        np.testing.assert_allclose(boxes, expected.boxes, atol=1e-2)
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
        np.testing.assert_array_equal(labels, expected.labels)
        counts.add(len(boxes))
    assert len(counts) > 1  # so that no count is built in


@pytest.mark.slow
def test_export__nothing_found_is_an_empty_answer(tmp_path: Path) -> None:
    detector, card = load_detector(source_bundle())
    sure = Detector(detector.settings.model_copy(update={"test_score": 1.0}), detector.classes)
    sure.load_state_dict(detector.state_dict())
    save_detector(tmp_path / "model", sure, card)
    export(exportable_detector(tmp_path / "model", "sfod", 96), "onnx", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    boxes, scores, labels = session.run(None, {"image": np.zeros((3, 96, 96), np.float32)})
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


@pytest.mark.slow
def test_export__a_resnet_of_several_classes(tmp_path: Path) -> None:
    settings = DetectorSettings(
        neck="fpn",
        backbone="r18",
        stride_in_1x1=False,
        fpn_channels=8,
        head_channels=16,
        freeze_at=0,
        rpn_pre_nms_test=50,
        rpn_post_nms_test=8,
        anchor_sizes=((16,),),
        pool_size=4,
    )
    _, card = load_detector(source_bundle())
    torch.manual_seed(1)
    save_detector(tmp_path / "model", Detector(settings, ("a", "b", "c")), card)
    done = export(exportable_detector(tmp_path / "model", "sfod", 64), "onnx", tmp_path / "a.onnx")
    assert done.deviation < 1e-4
    assert done.shapes == {"image": (3, 64, 64)}
    assert len(done.compared) == 3


def test_export__torch_says_that_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"cannot be expressed in the format 'torch': the size .* Try --format onnx"
    ):
        export(exportable_detector(source_bundle(), "sfod", 96), "torch", tmp_path / "a.pt2")


def test_exportable__too_small_an_image() -> None:
    with pytest.raises(UsageError, match=r"--size '20': an image of at least 64 px"):
        exportable_detector(source_bundle(), "sfod", 20)


PYRAMID = DetectorSettings(
    neck="fpn",
    backbone="r18",
    stride_in_1x1=False,
    fpn_channels=8,
    head_channels=16,
    freeze_at=0,
    pool_size=7,
    rpn_pre_nms_test=60,
    rpn_post_nms_test=1000,
    anchor_sizes=((16,), (32,), (64,), (128,), (256,)),
    pixel_std=(58.0, 58.0, 58.0),
)
C4 = DetectorSettings(
    anchor_sizes=((16, 32, 64),), rpn_pre_nms_test=60, rpn_post_nms_test=1000, pixel_std=(58.0, 58.0, 58.0)
)


@pytest.mark.parametrize("settings", [PYRAMID, C4], ids=["r18 with a pyramid", "c4"])
@pytest.mark.slow
def test_export__any_number_of_proposals(settings: DetectorSettings, tmp_path: Path) -> None:
    """Few candidates a level: what suppression leaves of them differs from image to image."""
    _, card = load_detector(source_bundle())
    torch.manual_seed(1)
    detector = Detector(settings, ("a", "b", "c")).freeze()
    for name, tensor in detector.state_dict().items():
        if name.endswith(("bbox_pred.weight", "anchor_deltas.weight", "cls_score.weight", "objectness_logits.weight")):
            torch.nn.init.normal_(tensor, std=0.05)
        if name.endswith("conv3.norm.weight"):  # without statistics, the deep network would overflow
            tensor.fill_(0.2)
    save_detector(tmp_path / "model", detector, card)
    given = exportable_detector(tmp_path / "model", "sfod", 160)
    images = [each["image"] for each in (given.inputs, *given.others)]
    assert len({len(detector.propose(detector.features([each]))[0].boxes) for each in images}) > 1
    done = export(given, "onnx", tmp_path / "a.onnx")
    assert done.golden_deviation is not None
    assert done.golden_deviation < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    for image in images:
        [expected] = detector.detect(detector.features([image]))
        boxes, scores, _ = session.run(["boxes", "scores", "labels"], {"image": image.numpy()})
        np.testing.assert_allclose(boxes, expected.boxes, atol=1e-2)
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
