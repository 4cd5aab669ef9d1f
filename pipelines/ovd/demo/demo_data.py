"""Demo data: drawn scenes as a COCO folder, with pseudo-labels that are made where it is written.

The training list is labelled for eight base shapes, the validation list for all twelve. The image–text model is trained
on single objects of all twelve, as one that has seen everything; the generator on base boxes alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.ovd.bundles import GENERATOR
from pipelines.ovd.config import Candidates, ImageText, OvdConfig, OvdData, Proposals
from pipelines.ovd.data.reading import read_base
from pipelines.ovd.demo.shapes import BASE, NOVEL, SHAPES, draw_crop, draw_scene
from pipelines.ovd.detector import ANYTHING
from pipelines.ovd.image_text.compact import METHOD, CompactModel, save_compact
from pipelines.ovd.image_text.contrastive import ContrastiveSettings, train_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.learner import ProposalLearner
from pipelines.ovd.pseudo_labels.making import make_labels
from pipelines.ovd.views import OpenViews
from vision_core.assets import sentence_encoder, sentence_encoder_origin
from vision_core.bundles.card import Card, TrainedOn
from vision_core.console import track
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.bundles import save_detector
from vision_core.detection.weights.detectron2_checkpoint import detector_on_backbone
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.randomness import key, seeded

SIDE_PX = 128
IMAGE_TEXT, GENERATOR_FOLDER = "image-text", "generator"
DETECTOR = DetectorSettings(
    backbone="lite0",
    neck="fpn",
    freeze_at=0,
    fpn_channels=64,
    head_channels=256,
    pool_size=7,
    anchor_sizes=((16,), (32,), (64,), (128,), (256,)),
    channel_order="rgb",
    pixel_mean=(127, 127, 127),
    pixel_std=(128, 128, 128),
    shortest_edge_px=0,
    rpn_pre_nms_train=500,
    rpn_post_nms_train=100,
    rpn_pre_nms_test=500,
    rpn_post_nms_test=100,
    rpn_batch=64,
    roi_batch=64,
)


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much the demo's data cost.

    Attributes:
        images: Training images; a third as many are for validation.
        crops: Single objects for the image–text model.
        contrastive_steps: Steps of its training.
        generator_steps: Steps of four images of the generator.
        proposals: Boxes kept an image.
    """

    images: int = 120
    crops: int = 1200
    contrastive_steps: int = 300
    generator_steps: int = 100
    proposals: int = 40


def make_demo_data(folder: Path, amount: Amount | None = None) -> None:
    """Write ``train.json``, ``val.json``, the images, both models and ``pseudo_labels.json``."""
    amount = amount or Amount()
    for split, count, names in (("train", amount.images, BASE), ("val", max(1, amount.images // 3), SHAPES)):
        _write_split(folder, split, count, names)
    _train_image_text(folder, amount)
    _train_generator(folder, amount)
    config = OvdConfig(
        data=OvdData(root=folder, classes=SHAPES, novel=NOVEL),
        image_text=ImageText(kind="compact", weights=folder / IMAGE_TEXT),
        proposals=Proposals(weights=folder / GENERATOR_FOLDER, count=amount.proposals),
        candidates=Candidates(),
    )
    make_labels(config, folder, torch.device("cpu"))
    text = (
        "Scenes drawn by this program (MIT), and two models trained on them.\n"
        f"{sentence_encoder_origin().line()} It is part of the image–text model and is not stored here.\n"
    )
    write_atomic(folder / "ATTRIBUTION.txt", text)


def _write_split(folder: Path, split: str, count: int, names: tuple[str, ...]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        scene = draw_scene(SIDE_PX, np.random.default_rng(key("shapes", split, number)))
        file = f"{number:04d}.png"
        write_png(folder / split / file, scene.picture)
        images.append({"id": number + 1, "file_name": file, "width": SIDE_PX, "height": SIDE_PX})
        for box, label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
            if SHAPES[label] in names:
                left, top, right, bottom = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number + 1,
                        "category_id": label + 1,
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(SHAPES)]
    index = {"images": images, "annotations": annotations, "categories": categories}
    write_atomic(folder / f"{split}.json", json.dumps(index))


def _train_image_text(folder: Path, amount: Amount) -> None:
    with seeded(key("demo image text")):
        model = CompactModel(MiniLM.read(sentence_encoder()))
    labels = torch.arange(amount.crops) % len(SHAPES)
    crops = np.stack(
        [
            draw_crop(int(label), model.image_size, np.random.default_rng(key("crop", number)))
            for number, label in enumerate(labels)
        ]
    )
    settings = ContrastiveSettings(steps=amount.contrastive_steps)
    train_compact(model, torch.from_numpy(crops).permute(0, 3, 1, 2), labels, SHAPES, settings)
    save_compact(folder / IMAGE_TEXT, model, _card(METHOD, "single drawn shapes of all twelve classes"))


def _train_generator(folder: Path, amount: Amount) -> None:
    dataset, _ = read_base(OvdData(root=folder, classes=SHAPES, novel=NOVEL))
    with seeded(key("demo generator")):
        detector, _ = detector_on_backbone(DETECTOR, ANYTHING, None)
    views, learner = OpenViews(dataset, DETECTOR), ProposalLearner(detector).train()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for step in track(range(amount.generator_steps), amount.generator_steps, "generator", "step"):
        places = [(step, (4 * step + item) % len(views)) for item in range(4)]
        learner.step = step
        loss = torch.stack([*learner(views.collate([views[place] for place in places])).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimizer.step()
    save_detector(folder / GENERATOR_FOLDER, detector.eval(), _card(GENERATOR, "drawn scenes, boxes of base shapes"))


def _card(method: str, description: str) -> Card:
    return Card(
        task=OvdConfig.task,
        method=method,
        config={},
        architecture={},
        preprocessing={},
        classes=SHAPES if method == METHOD else (),
        trained_on=TrainedOn(description=description, synthetic=True),
    )
