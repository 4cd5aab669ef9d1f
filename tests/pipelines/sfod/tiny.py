"""A real detector and real runs at the smallest size: 64 x 96 px, seconds on one thread."""

import io
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from pipelines.sfod import pipeline
from pipelines.sfod.__main__ import main
from pipelines.sfod.demo.demo_data import make_demo_data
from tests.made_once import made_once
from tests.pipelines.contract import TinyTask
from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.bundles.export import export
from vision_core.detection.model.detector import Detector
from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.export import exportable_detector

DETECTOR = {
    "backbone": "lite0",
    "neck": "fpn",
    "freeze_at": 0,
    "fpn_channels": 32,
    "head_channels": 64,
    "pool_size": 7,
    "anchor_sizes": [[16], [32], [64], [128], [256]],
    "channel_order": "rgb",
    "pixel_mean": [127, 127, 127],
    "pixel_std": [128, 128, 128],
    "shortest_edge_px": 0,
    "rpn_batch": 32,
    "rpn_pre_nms_train": 100,
    "rpn_post_nms_train": 30,
    "rpn_pre_nms_test": 100,
    "rpn_post_nms_test": 30,
    "roi_batch": 16,
}
SUPERVISED = (
    "method=source",
    *(f"detector.{name}={value}" for name, value in DETECTOR.items()),
    "strong_view.kind=none",
    "teacher.keep_rate=0",
    "train.batch_size=2",
    "optim.lr=0.01",
    "optim.schedule=warmup_cosine",
    "optim.warmup_steps=10",
    "optim.clip_norm=5",
)
# A detector of 48 steps is sure of few things.
# Comparing before and after takes longer than these runs.
ADAPTATION = ("pseudo_labels.threshold=0.5", "train.batch_size=2", "train.log_every=1", "verdict.images=0")
CLASSES = SHAPES
EXPORTED_PX = 96


@cache
def source_bundle() -> Path:
    """A detector of discs and squares that finds most of them; to be left as it is."""
    return made_once("sfod-tiny", _train_source) / "run" / "model"


def _train_source(folder: Path) -> None:
    data = make_voc(folder / "data", count=8)
    words = [*SUPERVISED, "train.epochs=12", "train.save_every=1000"]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as told:
        code = main(["train", "--out", str(folder / "run"), f"data.root={data}", *words])
    if code:
        raise RuntimeError(told.getvalue())


@cache
def exported_source() -> Path:
    """The tiny bundle as an ONNX file for images of ``EXPORTED_PX``; to be left as it is."""

    def make(folder: Path) -> None:
        export(exportable_detector(source_bundle(), "sfod", EXPORTED_PX), "onnx", folder / "detector.onnx")

    return made_once("sfod-tiny-onnx", make) / "detector.onnx"


def adapt_words(data: Path, *words: str) -> list[str]:
    """The settings of an adaptation to ``data``; later ``words`` win."""
    return [f"data.root={data}", f"source.weights={source_bundle()}", *ADAPTATION, *words]


def adapt(out: Path, data: Path, *words: str) -> int:
    """``train`` from the tiny bundle into ``out``; returns the exit code."""
    return main(["train", "--out", str(out), *adapt_words(data, *words)])


def weights(run: Path) -> bytes:
    """The weights that a run delivered, as bytes: equal bytes are equal bits."""
    return (run / "model" / "weights.safetensors").read_bytes()


def make_foreign(folder: Path) -> tuple[Path, list[str]]:
    """A detector as detectron2 saves it, ``model.pth`` beside ``config.yaml``, and the settings to read it with."""
    settings = DetectorSettings(
        backbone="r18", neck="fpn", fpn_channels=8, head_channels=16, pool_size=7, stride_in_1x1=False, freeze_at=0
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(detectron2_config(settings, len(CLASSES)).dump())
    torch.save({"model": Detector(settings, CLASSES).state_dict()}, folder / "model.pth")
    return folder / "model.pth", ["data.classes=[disc, square]"]


def shorten_demo(patch: pytest.MonkeyPatch) -> None:
    """The images to adapt to alone."""
    patch.setattr(pipeline, "make_demo_data", partial(make_demo_data, parts=("target",)))


TASK = TinyTask(
    make_data=make_voc,
    words=lambda data: adapt_words(data, "method=mt", "train.epochs=2", "data.eval_split=test"),
    inputs=lambda data: data / "JPEGImages",
    shorten_demo=shorten_demo,
    make_foreign=make_foreign,
)
