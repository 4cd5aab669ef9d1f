"""Data of the study "ovd-scenes": scenes of two worlds, image–text models, and the labels of every row of its ladder.

Objects and grounds are divided in three before anything is composed: for the image–text model, the detector, the test.
``val`` shows objects of the first part, which no detector is trained on; settings are found there.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.ovd.config import Candidates, OvdConfig, OvdData
from pipelines.ovd.data.reading import read_base, read_index
from pipelines.ovd.data.vocabulary_split import split_classes
from pipelines.ovd.image_text.compact import METHOD, CompactModel, save_compact
from pipelines.ovd.image_text.contrastive import ContrastiveSettings, train_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.pseudo_labels.label_file import write_labels
from pipelines.ovd.pseudo_labels.making import LABELS_FILE, make_labels
from pipelines.ovd.pseudo_labels.shards import ScoredImage
from vision_core.assets import clothing, sentence_encoder, stamps
from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.cut_outs import Pool, clothes, divide, photographs
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.scenes import (
    CLOTHES_SCENES,
    PHOTOGRAPH_SCENES,
    SceneSettings,
    compose_crop,
    write_scenes,
)
from vision_core.errors import DataError
from vision_core.randomness import key, seeded

SCENES = {"clothes": CLOTHES_SCENES, "photographs": PHOTOGRAPH_SCENES}
PARTS = ("image_text", "detector", "test")
_PART_OF = {"train": "detector", "val": "image_text", "test": "test"}
_MADE = "made.json"  # stands once a folder is whole


def check_packages(sums: dict[str, str]) -> None:
    """Compare what the packages that a protocol names hold with it.

    Raises:
        MissingDependencyError: One is not installed.
        DataError: One holds other bytes.
    """
    files: dict[str, Callable[[], Sequence[Path]]] = {
        "dataset-fashion-mnist": clothing,
        "tuxpaint-stamps-default": _stamp_files,
    }
    for package, expected in sums.items():
        if (digest := package_sum(files[package]())) != expected:
            raise DataError(
                f"The package '{package}' holds other files than the study was fixed for: '{digest}' instead of "
                f"'{expected}'. Install the version of Debian 12, or fix another study."
            )


def package_sum(paths: Sequence[Path]) -> str:
    """Hash files in order, 16 digits."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _stamp_files() -> list[Path]:
    return sorted(stamps().rglob("*.png"))


def make_scenes(folder: Path, world: str, protocol: dict[str, Any]) -> Path:
    """Write the scenes of a world as a COCO folder, unless they are there; returns it."""
    made = folder / world / "scenes"
    if not (made / _MADE).exists():
        parts = world_parts(world, protocol)
        for split, count in protocol["scenes"].items():
            write_scenes(made, split, parts[_PART_OF[split]], SCENES[world], count=count)
        (made / _MADE).write_text("{}\n", encoding="utf-8")
    return made


def world_parts(world: str, protocol: dict[str, Any]) -> dict[str, Pool]:
    """Read the objects of a world, divided in three."""
    pool = clothes(protocol["per_class"]) if world == "clothes" else photographs()
    return divide(pool, PARTS)


def make_image_text(folder: Path, world: str, seed: int, protocol: dict[str, Any]) -> Path:
    """Train the image–text model of a world and seed on crops of its part, unless it is there; returns the bundle."""
    made = folder / world / f"image-text-{seed}"
    if not made.exists():
        settings = protocol["image_text"]
        part = world_parts(world, protocol)["image_text"]
        crops, labels = object_crops(part, SCENES[world], settings["crops"], seed)
        train_image_text(made, part.classes, (crops, labels), ContrastiveSettings(steps=settings["steps"], seed=seed))
    return made


def object_crops(pool: Pool, scenes: SceneSettings, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compose crops ``(N, 3, 32, 32)`` uint8 of single objects, classes in turn, and their labels ``(N,)``."""
    labels = [number % len(pool.classes) for number in range(count)]
    members = [pool.of_label(label) for label in range(len(pool.classes))]
    pictures = []
    for number, label in enumerate(labels):
        generator = np.random.default_rng(key("object crop", seed, number))
        each = members[label][int(generator.integers(len(members[label])))]
        pictures.append(compose_crop(each, pool, 32, scenes, generator))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), torch.tensor(labels)


def train_image_text(
    folder: Path, classes: tuple[str, ...], items: tuple[torch.Tensor, torch.Tensor], settings: ContrastiveSettings
) -> None:
    """Train a compact image–text model on crops and labels of all classes, and write it as a bundle."""
    with seeded(key("image text", settings.seed)):
        model = CompactModel(MiniLM.read(sentence_encoder()))
    train_compact(model, *items, classes, settings)
    about = TrainedOn(description="crops of single objects of all classes, composed", synthetic=True)
    card = Card(
        task="ovd", method=METHOD, config={}, architecture={}, preprocessing={}, classes=classes, trained_on=about
    )
    save_compact(folder, model, card)


def make_label_files(
    folder: Path, data: OvdData, config: OvdConfig, selections: dict[str, dict[str, Any]]
) -> dict[str, Path]:
    """Write the pseudo-labels of every selection, those without a candidate, and the oracle's; returns the files.

    Args:
        folder: Where.
        data: The scenes with their classes.
        config: Generator, image–text model and number of proposals.
        selections: Settings of ``candidates`` by name.
    """
    files = {name: folder / f"{name}.json" for name in (*selections, "none", "oracle")}
    if all(path.exists() for path in files.values()):
        return files
    for name, settings in {**selections, "none": {"threshold": 1.0}}.items():
        chosen = config.model_copy(update={"data": data, "candidates": Candidates(**settings)})
        make_labels(chosen, folder, torch.device("cpu"))
        (folder / LABELS_FILE).replace(files[name])
    _write_oracle(files["oracle"], files["none"], data)
    return files


def _write_oracle(path: Path, none: Path, data: OvdData) -> None:
    """Write all true boxes of the novel classes as candidates that are certain."""
    split = split_classes(data.classes, data.novel)
    truth = read_dataset(data, data.split, with_labels=True)
    scored = []
    for record in truth.records:
        rows = [row for row in np.flatnonzero(~record.crowd) if split.is_novel[record.labels[row]]]
        names = [split.novel.index(split.classes[record.labels[row]]) for row in rows]
        scored.append(
            ScoredImage(
                image_id=record.image_id,
                boxes=[record.boxes[row].tolist() for row in rows],
                rpn_scores=[1.0 for _ in rows],
                clip_scores=[[1.0] for _ in rows],
                classes=[[name] for name in names],
            )
        )
    content = json.loads(none.read_text(encoding="utf-8"))
    embeddings = torch.tensor([each["text_emb"] for each in content["categories"]])
    dataset, _ = read_base(data)
    header = content["info"]["scored_with"]
    write_labels(path, read_index(data, dataset, split), scored, split, embeddings, Candidates(nms=1.0), header)
