"""Real runs at the smallest size: made pictures of 32 px in folders, a ResNet-10t, seconds on one thread."""

from pathlib import Path

import numpy as np
import torch

from pipelines.pretrain.__main__ import main
from tests.pipelines.contract import TinyTask
from vision_core.backbones.networks import build_backbone
from vision_core.images.drawing import write_png
from vision_core.randomness import key

CLASSES = ("bright", "dark", "striped")
PIXELS = 32
COUNTS = {"train": 6, "val": 2, "test": 3}
SMALL = (
    "classifier=resnet10t",
    "policy=reinforce",
    "then=[]",
    f"data.image_px={PIXELS}",
    "data.resize_px=36",
    "data.cache=null",
    "mask.grid=8",
    "mask.kernel=5",
    "mask.sigma=2",
    "train.batch_size=6",
    "train.epochs=2",
    "train.log_every=1",
    "optim.lr=0.01",
    "finetune.epochs=2",
    "finetune.batch_size=6",
    "transfer.epochs=2",
    "transfer.batch_size=6",
)


def make_folders(folder: Path, classes: tuple[str, ...] = CLASSES, *, size: int = 40) -> Path:
    """``<part>/<class>/<number>.png`` of noise whose mean or stripes tell the class."""
    for part, count in COUNTS.items():
        for place, name in enumerate(classes):
            for number in range(count):
                generator = np.random.default_rng(key("tiny", part, place, number))
                grey = generator.integers(0, 90, (size, size)) + 70 * place
                grey[:: 2 + place] += 60
                image = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
                write_png(folder / part / name / f"{number}.png", image)
    return folder


def words(data: Path, *more: str) -> list[str]:
    """The settings of a small run on ``data``; later words win."""
    return [f"data.root={data}", *SMALL, *more]


def train(out: Path, data: Path, *more: str) -> int:
    """``train`` into ``out``; returns the exit code."""
    return main(["train", "--out", str(out), *words(data, *more)])


def weights(run: Path) -> bytes:
    """What a run delivered, as bytes: equal bytes are equal bits."""
    return (run / "model" / "weights.safetensors").read_bytes()


def make_foreign(folder: Path) -> tuple[Path, list[str]]:
    """A ResNet-18 as RadImageNet's PyTorch files have it: cut into a sequence, without a head."""
    names = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    torch.manual_seed(0)
    renamed = {}
    for name, tensor in build_backbone("resnet18", 0).state_dict().items():
        part, _, rest = name.partition(".")
        renamed[f"backbone.{names[part]}.{rest}"] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(renamed, folder / "ResNet18.pt")
    return folder / "ResNet18.pt", []


TASK = TinyTask(
    make_data=make_folders,
    words=words,
    inputs=lambda data: data / "test" / "dark",
    make_foreign=make_foreign,
)
