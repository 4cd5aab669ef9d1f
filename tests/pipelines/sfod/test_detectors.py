"""Every detector through its life; detectors of detectron2 and torchvision from their file to adaptation and export."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from pipelines.sfod.__main__ import main
from pipelines.sfod.predict import SfodPredictor
from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.settings import DetectorSettings

SIDE = 96
SMALL = (
    "detector.shortest_edge_px=64", "detector.rpn_pre_nms_train=200", "detector.rpn_post_nms_train=20",
    "detector.rpn_pre_nms_test=100", "detector.rpn_post_nms_test=10", "detector.roi_batch=8",
    "detector.pixel_std=[60,60,60]",
)  # fmt: skip
PYRAMID = ("neck=fpn", "pool_size=7", "stride_in_1x1=false", "anchor_sizes=[[16],[32],[64],[128],[256]]")
NARROW = ("fpn_channels=32", "head_channels=32")
C4 = ("anchor_sizes=[[32,64]]",)
DETECTORS = {
    "vgg16": ("backbone=vgg16", "head_channels=32", *C4),
    "r18-fpn": ("backbone=r18", *PYRAMID, *NARROW),
    "r34-fpn": ("backbone=r34", *PYRAMID, *NARROW),
    "r50-fpn": ("backbone=r50", *PYRAMID, *NARROW),
    "r101-fpn": ("backbone=r101", *PYRAMID, *NARROW),
    "r50-c4": ("backbone=r50", *C4),
    "r101-c4": ("backbone=r101", *C4),
}
TEACHING = (
    "method=mt", "pseudo_labels.threshold=0.05", "teacher.every=step", "train.max_steps=2", "optim.clip_norm=5",
    "data.format=images", "strong_view.kind=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc(tmp_path_factory.mktemp("data"), count=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_life__trains_a_step_is_saved_predicts_and_is_exported(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"detector.{each}" for each in DETECTORS[name]]
    train = ["train", "--out", str(tmp_path / "run"), f"data.root={data}", "method=source", *SMALL, *words]
    assert main([*train, "train.max_steps=1", "teacher.keep_rate=0", "optim.clip_norm=1", "strong_view.kind=none"]) == 0
    model = str(tmp_path / "run" / "model")
    assert main(["verify", model]) == 0
    assert (
        main(["predict", "--checkpoint", model, "--input", str(data / "JPEGImages"), "--out", str(tmp_path / "a")]) == 0
    )
    assert export(model, tmp_path / "a.onnx", capsys) < 1e-4


def export(model: str, out: Path, capsys: pytest.CaptureFixture[str]) -> float:
    """Export at ``SIDE``; returns the largest deviation that was printed."""
    capsys.readouterr()
    assert main(["export", "--checkpoint", model, "--out", str(out), "--size", str(SIDE)]) == 0
    printed = re.findall(r"relative deviation ([\d.e+-]+?)\.?\n", capsys.readouterr().out)
    assert len(printed) == 2
    return max(map(float, printed))


def spread(model: nn.Module) -> nn.Module:
    """Give the boxes and scores of random weights some variety."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("bbox_pred.weight", "anchor_deltas.weight", "cls_score.weight", "objectness_logits.weight")):
            nn.init.normal_(tensor, std=0.05)
        if name.endswith(("conv3.norm.weight", "bn3.weight")):  # without statistics, the deep network would overflow
            tensor.fill_(0.2)
    return model.eval()


Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def detectron2_config_of_r50() -> CfgNode:
    """The R50-FPN of detectron2, narrow, for small images."""
    config = get_cfg()
    settings = DetectorSettings(
        neck="fpn", pool_size=7, shortest_edge_px=SIDE, longest_edge_px=200, rpn_post_nms_test=50, fpn_channels=64,
        head_channels=64, anchor_sizes=((32,), (64,), (128,), (256,), (512,)), pixel_std=(58.0, 58.0, 58.0),
    )  # fmt: skip
    config.merge_from_other_cfg(detectron2_config(settings, len(SHAPES)))
    config.MODEL.DEVICE = "cpu"
    return config


def of_detectron2(folder: Path, suffix: str) -> tuple[list[str], Predict]:
    """A file that detectron2 writes, the words to import it with, and detectron2's own predictor."""
    config = detectron2_config_of_r50()
    torch.manual_seed(0)
    tensors = spread(build_model(config)).state_dict()
    path = folder / f"model_final{suffix}"
    if suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    else:
        torch.save({"model": tensors, "iteration": 10}, path)
    (folder / "config.yaml").write_text(config.dump())
    config.MODEL.WEIGHTS = str(path)
    predictor = DefaultPredictor(config)

    def predict(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found: Any = predictor(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))["instances"]
        return found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_classes.numpy()

    return [str(path), "--i-trust-this-file"] if suffix == ".pkl" else [str(path)], predict


def of_torchvision(folder: Path) -> tuple[list[str], Predict]:
    """A file of torchvision's model, the words to import it with, and that model."""
    torch.manual_seed(0)
    given = {"min_size": SIDE, "max_size": 200, "rpn_post_nms_top_n_test": 50}
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=len(SHAPES) + 1, **given)
    spread(model)
    torch.save(model.state_dict(), folder / "model.pth")
    (folder / "arguments.yaml").write_text("\n".join(f"{name}: {value}" for name, value in given.items()))

    def predict(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with torch.no_grad():
            [found] = model([torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255])
        return found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy() - 1

    return [str(folder / "model.pth"), f"source.config={folder / 'arguments.yaml'}"], predict


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detectron2 .pth", "detectron2 .pkl", "torchvision"])
def test_foreign__predicts_as_its_own_program_adapts_and_is_exported(
    kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, predict = of_torchvision(tmp_path) if kind == "torchvision" else of_detectron2(tmp_path, kind[-4:])
    bundle, classes = tmp_path / "bundle", f"data.classes=[{','.join(SHAPES)}]"
    assert main(["import-weights", words[0], "--out", str(bundle), classes, *words[1:]]) == 0
    told = capsys.readouterr().out
    assert "r50 with fpn head" in told
    assert f"classes: 2, in this order: {', '.join(SHAPES)}" in told

    # torchvision resizes floats and without smoothing: its image is of the size that the detector asks for.
    size = (128, SIDE) if kind == "torchvision" else (320, 240)
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    boxes, scores, labels = predict(image)
    found = SfodPredictor.from_checkpoint(bundle, "cpu")(tmp_path / "image.png")
    assert len(boxes) > 10
    np.testing.assert_allclose(found.boxes, boxes, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.labels, labels)

    run = tmp_path / "run"
    start = [f"source.weights={bundle}", f"data.root={data / 'JPEGImages'}"]
    assert main(["train", "--out", str(run), *start, *TEACHING]) == 0
    assert export(str(run / "model"), tmp_path / "adapted.onnx", capsys) < 1e-4
