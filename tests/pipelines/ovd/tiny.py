"""A real run at the smallest size: 64 x 96 px, four shapes, candidates written by hand."""

from functools import partial
from pathlib import Path

import pytest
import torch

from pipelines.ovd import pipeline
from pipelines.ovd.config import Candidates, OvdData
from pipelines.ovd.data.reading import read_base, read_index
from pipelines.ovd.demo.demo_data import Amount, make_demo_data
from pipelines.ovd.pseudo_labels.label_file import write_labels
from pipelines.ovd.pseudo_labels.making import LABELS_FILE
from pipelines.ovd.pseudo_labels.shards import ScoredImage
from tests.pipelines.contract import TinyTask
from tests.vision_core.detection.synthetic import make_coco
from vision_core.detection.datasets.reading import read_dataset

CLASSES = ("disc", "square", "round", "block")
NOVEL = ("round", "block")
DETECTOR = {
    "backbone": "lite0",
    "freeze_at": 0,
    "fpn_channels": 32,
    "head_channels": 64,
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
TRAINING = (
    *(f"detector.{name}={value}" for name, value in DETECTOR.items()),
    f"data.classes=[{','.join(CLASSES)}]",
    f"data.novel=[{','.join(NOVEL)}]",
    "data.shortest_edges_px=[]",
    "marvel.burn_in_last_iter=1",
    "train.batch_size=2",
    "train.log_every=1",
    "optim.lr=0.01",
    "optim.warmup_steps=2",
    "optim.clip_norm=5",
)


def make_data(folder: Path, count: int = 4) -> Path:
    """A COCO folder, and candidates that lie on the novel objects; one of three is unsure."""
    make_coco(folder, count=count, classes=CLASSES)
    data = OvdData(root=folder, classes=CLASSES, novel=NOVEL)
    dataset, split = read_base(data)
    labelled = read_dataset(data, "train", with_labels=True)
    scored = []
    for record in labelled.records:
        rows = [row for row, label in enumerate(record.labels) if CLASSES[label] in NOVEL]
        scores = [0.99 if row % 3 else 0.7 for row in rows]
        scored.append(
            ScoredImage(
                image_id=record.image_id,
                boxes=[record.boxes[row].tolist() for row in rows],
                rpn_scores=[0.9 for _ in rows],
                clip_scores=[[score, 1 - score] for score in scores],
                classes=[[NOVEL.index(CLASSES[record.labels[row]]), 0] for row in rows],
            )
        )
    embeddings = torch.eye(4, 16)
    header = {"class_names": list(NOVEL), "vlm_fingerprint": "by hand"}
    index = read_index(data, dataset, split)
    write_labels(folder / LABELS_FILE, index, scored, split, embeddings, Candidates(), header)
    return folder


def words(data: Path, *more: str) -> list[str]:
    """The settings of a run of four steps on ``data``; later words win."""
    return [f"data.root={data}", *TRAINING, "train.epochs=2", "data.eval_split=test", *more]


def shorten_demo(patch: pytest.MonkeyPatch) -> None:
    """Two images, and models that have hardly begun to learn."""
    few = Amount(images=2, crops=48, contrastive_steps=2, generator_steps=1, proposals=5)
    patch.setattr(pipeline, "make_demo_data", partial(make_demo_data, amount=few))


TASK = TinyTask(make_data=make_data, words=words, inputs=lambda data: data / "test", shorten_demo=shorten_demo)
