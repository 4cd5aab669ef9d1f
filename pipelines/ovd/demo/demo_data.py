"""Demo data: scenes of real clothing as a COCO folder, with pseudo-labels that are made where it is written.

200 photographs of clothing come with this program and lie on an aerial image of woods. They are divided in three before
scenes are composed: for the image–text model, which is trained on single pieces of all ten classes as one that has seen
everything; for generator and detector, which learn boxes of seven base classes alone; and for validation.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.ovd.bundles import GENERATOR
from pipelines.ovd.config import Candidates, ImageText, OvdConfig, OvdData, Proposals
from pipelines.ovd.data.reading import read_base
from pipelines.ovd.detector import ANYTHING
from pipelines.ovd.image_text.compact import METHOD, CompactModel, save_compact
from pipelines.ovd.image_text.contrastive import ContrastiveSettings, train_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.learner import ProposalLearner
from pipelines.ovd.pseudo_labels.making import make_labels
from pipelines.ovd.views import OpenViews
from vision_core.assets import sentence_encoder, sentence_encoder_origin, tree_crowns_origin
from vision_core.bundles.card import Card, TrainedOn
from vision_core.console import track
from vision_core.detection.cut_outs import CLOTHES, Pool, clothes_sheet, divide
from vision_core.detection.scenes import CLOTHES_SCENES, compose_crop, write_scenes
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.bundles import save_detector
from vision_core.detection.weights.detectron2_checkpoint import detector_on_backbone
from vision_core.files import write_atomic
from vision_core.randomness import key, seeded

NOVEL = ("trousers", "sneaker", "bag")
SHEET = Path(__file__).with_name("clothes.png")
SHEET_ORIGIN = (
    "200 photographs of clothing of Fashion-MNIST, copyright 2017 Zalando SE (Xiao et al. 2017, arXiv 1708.07747), "
    "licence MIT."
)
PARTS = ("image_text", "train", "val")
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
    parts = divide(clothes_sheet(SHEET), PARTS)
    for split, count in (("train", amount.images), ("val", max(1, amount.images // 3))):
        write_scenes(folder, split, parts[split], CLOTHES_SCENES, count=count)
    _keep_base_boxes(folder / "train.json")
    _train_image_text(folder, parts["image_text"], amount)
    _train_generator(folder, amount)
    config = OvdConfig(
        data=OvdData(root=folder, classes=CLOTHES, novel=NOVEL),
        image_text=ImageText(kind="compact", weights=folder / IMAGE_TEXT),
        proposals=Proposals(weights=folder / GENERATOR_FOLDER, count=amount.proposals),
        candidates=Candidates(),
    )
    make_labels(config, folder, torch.device("cpu"))
    text = (
        "Scenes composed by this program, and two models trained on them.\n"
        f"{SHEET_ORIGIN}\nGrounds: {tree_crowns_origin().line()}\n"
        f"{sentence_encoder_origin().line()} It is part of the image–text model and is not stored here.\n"
    )
    write_atomic(folder / "ATTRIBUTION.txt", text)


def _keep_base_boxes(path: Path) -> None:
    """Take the boxes of novel classes out of the training list."""
    index = json.loads(path.read_text(encoding="utf-8"))
    novel = {each["id"] for each in index["categories"] if each["name"] in NOVEL}
    index["annotations"] = [each for each in index["annotations"] if each["category_id"] not in novel]
    write_atomic(path, json.dumps(index))


def _train_image_text(folder: Path, part: Pool, amount: Amount) -> None:
    with seeded(key("demo image text")):
        model = CompactModel(MiniLM.read(sentence_encoder()))
    labels = torch.arange(amount.crops) % len(CLOTHES)
    crops = []
    for number, label in enumerate(labels.tolist()):
        generator = np.random.default_rng(key("crop", number))
        members = part.of_label(label)
        each = members[int(generator.integers(len(members)))]
        crops.append(compose_crop(each, part, model.image_size, CLOTHES_SCENES, generator))
    pictures = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    settings = ContrastiveSettings(steps=amount.contrastive_steps)
    train_compact(model, pictures, labels, CLOTHES, settings)
    save_compact(folder / IMAGE_TEXT, model, _card(METHOD, "single pieces of clothing of all ten classes, composed"))


def _train_generator(folder: Path, amount: Amount) -> None:
    dataset, _ = read_base(OvdData(root=folder, classes=CLOTHES, novel=NOVEL))
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
    save_detector(
        folder / GENERATOR_FOLDER, detector.eval(), _card(GENERATOR, "composed scenes, boxes of base classes")
    )


def _card(method: str, description: str) -> Card:
    return Card(
        task=OvdConfig.task,
        method=method,
        config={},
        architecture={},
        preprocessing={},
        classes=CLOTHES if method == METHOD else (),
        trained_on=TrainedOn(description=description, synthetic=True),
    )
