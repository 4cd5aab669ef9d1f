"""Slides and feature files so small that a run takes seconds, made by code."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pyvips
import tifffile
import torch
from numpy.typing import NDArray

from pipelines.wsi.config import WsiConfig
from pipelines.wsi.demo import demo_data
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.models.build import build_model
from pipelines.wsi.weights.bundles import architecture, save_network
from tests.pipelines.contract import TinyTask
from vision_core.bundles.card import Card, TrainedOn
from vision_core.config import loading as config
from vision_core.randomness import key
from vision_core.slides.features.files import Features, write_features

CLASSES = ("normal", "tumour")
SPLITS = ("train", "train", "train", "train", "val", "val", "test", "test")
DIM = 6
LITE0_DIM = 1280
SIDE_PX, TILE_PX = 512, 64

SLIDE_WORDS = (
    f"tiles.tile_px={TILE_PX}",
    "encoder.input_px=64",
    "encoder.batch_size=16",
    "model.embedding.dim=16",
    "mhim_v1.masking.random=0.3",
    "optim.lr=0.01",
    "train.epochs=2",
    "train.patience=0",
    "train.log_every=1",
)
FEATURE_WORDS = (
    "data.format=features",
    "model.embedding.dim=16",
    "optim.lr=0.01",
    "train.epochs=2",
    "train.patience=0",
    "train.log_every=1",
)


def make_slides(folder: Path, splits: Sequence[str] = SPLITS) -> Path:
    """``labels.csv`` and a pyramid of half a micron a pixel per row, every second one with dark spots."""
    for number in range(len(splits)):
        write_pyramid(folder / "slides" / f"s{number}.tif", picture(number, is_spotted=number % 2 == 1))
    _write_labels(folder, splits)
    return folder


def make_features(folder: Path, splits: Sequence[str] = SPLITS, dim: int = DIM) -> Path:
    """``labels.csv`` and ``features/<slide>.h5`` per row; in every second one a third of the tiles is shifted."""
    for number in range(len(splits)):
        generator = np.random.default_rng(key("tiny features", number))
        rows = generator.normal(size=(12 + 3 * number, dim)).astype(np.float32)
        rows[: len(rows) // 3, 0] += 3 * (number % 2)
        corners = np.stack([np.arange(len(rows)) % 4, np.arange(len(rows)) // 4], axis=1) * TILE_PX
        attributes = {"mpp": 0.5, "tile_px": TILE_PX, "tile_side": TILE_PX, "slide_mpp": 0.5}
        made = Features(features=rows, coords=corners.astype(np.int64), attributes=attributes)
        write_features(folder / "features" / f"s{number}.h5", made)
    _write_labels(folder, splits)
    return folder


def make_bundle(folder: Path, dim: int = LITE0_DIM, **changes: Any) -> Path:  # noqa: ANN401
    """A random ABMIL over features of lite0 on the tiny slides, calibrated by nobody; ``changes`` are of its card."""
    settings = config.load(WsiConfig, None, SLIDE_WORDS)
    network = MHIM(build_model(settings.model, dim, len(CLASSES)))
    card: dict[str, Any] = {
        "task": "wsi",
        "method": "plain",
        "config": settings.model_dump(mode="json"),
        "architecture": architecture(settings.model),
        "preprocessing": {"encoder": {"name": "lite0", "input_px": 64}},
        "classes": CLASSES,
        "trained_on": TrainedOn(description="nothing: random weights", synthetic=True),
    }
    save_network(folder, network, Card(**card | changes))
    return folder


def picture(seed: int, *, side_px: int = SIDE_PX, is_spotted: bool = False) -> NDArray[np.uint8]:
    """Glass with one piece of stained tissue: ``(side_px, side_px, 3)``."""
    generator = np.random.default_rng(key("tiny slide", seed))
    image = np.full((side_px, side_px, 3), 243, np.uint8)
    centre, radius = (side_px // 2, side_px // 2), int(0.36 * side_px)
    cv2.circle(image, centre, radius, (205, 130, 185), -1)
    for _ in range(60):
        angle, away = generator.uniform(0, 2 * np.pi), generator.uniform(0, 0.9 * radius)
        place = (int(centre[0] + away * np.cos(angle)), int(centre[1] + away * np.sin(angle)))
        cv2.circle(image, place, 9 if is_spotted else 4, (90, 40, 120), -1)
    noise = generator.normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write_pyramid(path: Path, image: NDArray[np.uint8], *, mpp: float | None = 0.5) -> Path:
    """A tiled JPEG pyramid; without ``mpp`` it does not say how large a pixel is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = {} if mpp is None else {"xres": 1000 / mpp, "yres": 1000 / mpp}
    pyvips.Image.new_from_array(image).tiffsave(
        str(path), compression="jpeg", Q=90, tile=True, tile_width=128, tile_height=128, pyramid=True, **scale
    )
    return path


def damage_tile(path: Path) -> None:
    """Zero the bytes of a tile of level 0 that lies on tissue."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        middle = len(page.dataoffsets) // 2 + 1  # of four by four, the third row's second
        place, count = page.dataoffsets[middle], page.databytecounts[middle]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(count))


def make_foreign(folder: Path) -> tuple[Path, list[str]]:
    """A network as the authors of MHIM-MIL released it, and the settings to read it with."""
    shapes = {
        "patch_to_emb.0.weight": (8, DIM),
        "patch_to_emb.0.bias": (8,),
        "online_encoder.attention.attention.0.weight": (4, 8),
        "online_encoder.attention.attention.2.weight": (1, 4),
        "predictor.weight": (2, 8),
        "predictor.bias": (2,),
    }
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, folder / "model.pt")
    return folder / "model.pt", [f"data.classes=[{', '.join(CLASSES)}]"]


def _write_labels(folder: Path, splits: Sequence[str]) -> None:
    rows = io.StringIO()
    rows.write("slide,patient,label,split\n")
    for number, split in enumerate(splits):
        rows.write(f"s{number},p{number},{CLASSES[number % 2]},{split}\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text(rows.getvalue(), encoding="utf-8")


def shorten_demo(patch: pytest.MonkeyPatch) -> None:
    """One small slide of each group."""
    patch.setattr(demo_data, "_PATIENTS", 1)
    patch.setattr(demo_data, "_PATIENTS_WITH_TWO", 0)
    patch.setattr(demo_data, "make_demo_data", partial(demo_data.make_demo_data, side_px=640))


TASK = TinyTask(
    make_data=make_slides,
    words=lambda data: [f"data.root={data}", "method=mhim_v1", "random_teacher=true", *SLIDE_WORDS],
    inputs=lambda data: data / "slides",
    shorten_demo=shorten_demo,
    make_foreign=make_foreign,
)
