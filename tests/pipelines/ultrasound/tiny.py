"""Real runs at the smallest size: discs in noise of 32 px, a U-Net of two layers, seconds on one thread."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.phantom import study
from pipelines.ultrasound.weights.bundles import Network, describe, save_networks
from tests.pipelines.contract import TinyTask
from vision_core.bundles.card import Card, TrainedOn
from vision_core.config.loading import load
from vision_core.randomness import key

SIZE = (32, 36)
SUBJECTS = {"train": 4, "val": 2, "calibration": 3, "test": 2}
FRAMES = 4
SMALL = (
    "data.frames_per_subject=all",
    "segmenter.layers=2",
    "segmenter.first=4",
    "screen.network=resnet10t",
    "train.batch_size=8",
    "train.epochs=2",
    "train.eval_every=1",
    "train.log_every=1",
    "train.patience=0",
    "optim.lr=0.01",
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The data, and the folder of the runs ``segment`` and ``screen`` of one command."""

    data: Path
    out: Path

    @property
    def screen(self) -> Path:
        return self.out / "screen" / "model"

    @property
    def segment(self) -> Path:
        return self.out / "segment" / "model"


def frame(subject: int, number: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A frame and the masks ``(3, H, W)`` of three observers: a disc on odd frames, which the third sees smaller."""
    generator = np.random.default_rng(key("tiny ultrasound", subject, number))
    image = generator.integers(0, 90, size)
    rows, columns = np.mgrid[: size[0], : size[1]]
    place = generator.uniform(10, 22, 2)
    away = np.hypot(rows - place[0], columns - place[1])
    masks = np.stack([away <= radius * (number % 2) - 1 for radius in (8, 8, 6)])
    image[masks[0]] += 120
    return image.astype(np.uint8), masks


def make_h5(folder: Path, subjects: Mapping[str, int] = SUBJECTS, *, layout: str = "nested") -> Path:
    """``frames.h5`` nested by subject with ``splits.json``; or flat, a file for each list."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    lists: dict[str, list[str]] = {}
    for name, count in subjects.items():
        numbers = range(first, first + count)
        lists[name] = [f"{number:04d}" for number in numbers]
        path = folder / ("frames.h5" if layout == "nested" else f"{name}.h5")
        with h5py.File(path, "a") as file:
            for place, (subject, number) in enumerate((s, n) for s in numbers for n in range(FRAMES)):
                text = f"{subject:04d}_{number:03d}" if layout == "nested" else f"{place:05d}"
                image, masks = frame(subject, number)
                file[f"frame_{text}"] = image
                for observer, mask in enumerate(masks):
                    file[f"label_{text}_{observer:02d}"] = mask.astype(np.uint8)
        first += count
    if layout == "nested":
        content = {"seed": 0, "subjects": lists, "keys_sha256": ""}
        (folder / "splits.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def make_pictures(folder: Path, count: int = 3) -> Path:
    """Frames as PNG files, to predict."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(frame(90, number)[0]).save(folder / f"f{number}.png")
    return folder


def make_data(folder: Path) -> Path:
    """The frames of all lists, and pictures below them."""
    make_pictures(make_h5(folder) / "pictures")
    return folder


def words(data: Path, *more: str) -> list[str]:
    """The settings of a small run on ``data``; later words win."""
    return [f"data.root={data}", *SMALL, *more]


def train(out: Path, data: Path, *more: str) -> int:
    """``train`` into ``out``; returns the exit code."""
    return main(["train", "--out", str(out), *words(data, *more)])


def make_bundle(folder: Path, network: Network, *more: str) -> Path:
    """A bundle of a network that nobody has trained."""
    config = load(UltrasoundConfig, None, more)
    card = Card(
        task="ultrasound",
        method=config.method,
        config=config.model_dump(mode="json"),
        architecture={},
        preprocessing={},
        classes=config.data.classes,
        trained_on=TrainedOn(description="nothing: random weights", synthetic=True),
    )
    save_networks(folder, [network.eval()], describe(card, network, config))
    return folder


def shorten_demo(patch: pytest.MonkeyPatch) -> None:
    """Four frames of a subject of each list."""
    patch.setattr(study, "DEMO_LISTS", dict.fromkeys(study.DEMO_LISTS, 1))
    patch.setattr(study, "_DEMO_FRAMES", 4)
    patch.setattr(study, "_SHOWN", 1)


TASK = TinyTask(make_data=make_data, words=words, inputs=lambda data: data / "pictures", shorten_demo=shorten_demo)
