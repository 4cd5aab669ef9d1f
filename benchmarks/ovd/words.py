"""Typed names on scenes that hold none of them, and beside other names: ``make bench-ovd-words``.

False boxes a scene and what is found, at the names' own thresholds, of a detector of the demo on its kind of scenes
(synthetic, composed of pieces of clothing that no model was trained on); and how far an added name moves the scores of
others. With --check it exits 1 where more than 0.2 false boxes a scene are left of the names that were learned by name
alone, or a score moves by more than 0.02 in the median or 0.1 at the 95th percentile.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ovd.scenes.measures import Remembering, drift
from benchmarks.ovd.scenes.tables import STUDY
from benchmarks.repack_demos import CHECKPOINTS
from benchmarks.studies import RESULTS, write_result
from pipelines.ovd.bundles import OpenBundle, load_open_detector
from pipelines.ovd.config import ImageText
from pipelines.ovd.demo.demo_data import PARTS, SHEET
from pipelines.ovd.detector import join_rivals
from pipelines.ovd.image_text.loading import load_image_text
from pipelines.ovd.image_text.model import TextModel
from pipelines.ovd.image_text.vocabulary import Vocabulary
from pipelines.ovd.predict import Typed, embed_names
from vision_core.detection.boxes import pairwise_iou
from vision_core.detection.cut_outs import clothes_sheet, divide
from vision_core.detection.datasets.records import ImageRecord
from vision_core.detection.model.detector import DetectionTensors, Features, Proposals
from vision_core.detection.scenes import CLOTHES_SCENES, write_scenes
from vision_core.images.reading import read_image

DEMO = CHECKPOINTS / "ovd-demo"
MOST_FALSE, MOST_MEDIAN, MOST_P95 = 0.2, 0.02, 0.1
_FOUND_IOU = 0.5
_NOBODY = Vocabulary(names=(), synonyms=())


@dataclass(frozen=True, kw_only=True)
class SeenScene:
    """What a detector computes of a scene before it knows what is looked for."""

    record: ImageRecord
    features: Features
    proposals: Proposals
    projected: Tensor
    deltas: Tensor


@torch.no_grad()
def see(content: OpenBundle, records: Sequence[ImageRecord]) -> list[SeenScene]:
    """Compute regions of scenes, which are as large as the detector takes them."""
    detector, seen = content.detector, []
    for record in records:
        image = torch.from_numpy(np.ascontiguousarray(read_image(record.path).transpose(2, 0, 1)))
        features = detector.features([image])
        [proposals] = detector.propose(features)
        embedded = detector.embed(detector.pool(features, [proposals.boxes]))
        _, deltas = detector.score(embedded)
        seen.append(
            SeenScene(
                record=record,
                features=Features(maps={}, sizes=features.sizes),
                proposals=proposals,
                projected=detector.classifier.project(embedded),
                deltas=deltas,
            )
        )
    return seen


@torch.no_grad()
def look_for(content: OpenBundle, seen: SeenScene, typed: Typed) -> DetectionTensors:
    """Detect typed names in a scene as ``OvdPredictor`` does."""
    detector = content.detector
    rivals = typed.rivals if len(typed.rivals) else None
    detector.set_vocabulary(typed.names, typed.embeddings, rivals, typed.thresholds)
    logits = join_rivals(detector.classifier.compare(seen.projected), len(typed.names))
    return detector.select(seen.features, [seen.proposals], logits, seen.deltas)[0]


def count(content: OpenBundle, scenes: Sequence[SeenScene], typed: Typed, labels: Sequence[int]) -> dict[str, float]:
    """Count boxes on scenes without the classes ``labels``, one of each name, and objects found on the others."""
    false = without = found = objects = 0
    for seen in scenes:
        result, record = look_for(content, seen, typed), seen.record
        if not np.isin(record.labels, labels).any():
            false, without = false + len(result.scores), without + 1
        for name, label in enumerate(labels):
            truth = torch.from_numpy(record.boxes[(record.labels == label) & ~record.crowd])
            boxes = result.boxes[result.labels == name]
            objects += len(truth)
            if len(truth) and len(boxes):
                found += int((pairwise_iou(truth, boxes).amax(dim=1) >= _FOUND_IOU).sum())
    return {"false_boxes": false / max(without, 1), "scenes": without, "found": found, "objects": objects}


def measure(
    content: OpenBundle, model: TextModel, records: Sequence[ImageRecord], others: Sequence[str]
) -> dict[str, Any]:
    """Measure a bundle on scenes: names of the training alone and those without boxes together, other names, drift."""
    scenes, classes, split = see(content, records), content.card.classes, content.split
    facts: dict[str, Any] = {"scenes": len(scenes)}
    for on_objects in (False, True)[: 1 + bool(len(content.regions.objects))]:

        def counted(*names: str, on_objects: bool = on_objects) -> dict[str, float]:
            words = Vocabulary.of_classes(names), _NOBODY
            typed = embed_names(content, model, words, is_open=True, on_objects=on_objects)
            labels = [classes.index(name) for name in names if name in classes]
            return {**count(content, scenes, typed, labels), "threshold": float(typed.thresholds.max())}

        alone = {name: counted(name) for name in classes}
        strange = [counted(name)["false_boxes"] for name in others]
        facts["objects" if on_objects else "background"] = {
            "by_name_alone": counted(*split.novel),
            "each_class": alone,
            "each_class_mean": float(np.mean([each["false_boxes"] for each in alone.values()])),
            "found": sum(each["found"] for each in alone.values()),
            "objects": sum(each["objects"] for each in alone.values()),
            "other_names_mean": float(np.mean(strange)),
            "other_names_median": float(np.median(strange)),
            "other_names_at_most_0.2": float(np.mean(np.array(strange) <= MOST_FALSE)),
        }
    content.detector.set_vocabulary(classes, content.embeddings)
    regions = torch.cat([seen.projected for seen in scenes[:50]])
    return facts | {"drift": drift(content, model, regions, classes, others)}


def is_missed(facts: dict[str, Any]) -> bool:
    """Tell whether a target is missed."""
    moved = facts["drift"]
    false = facts["background"]["by_name_alone"]["false_boxes"]
    return bool(false > MOST_FALSE or moved["median"] > MOST_MEDIAN or moved["p95"] > MOST_P95)


def main() -> int:
    """Measure the shipped bundles, or a detector beside its image–text model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=DEMO, help="folder of 'detector' and 'image-text'")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--write", metavar="FILE", help="write the figures to this file of benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pool = divide(clothes_sheet(SHEET), PARTS)["val"]
    model = load_image_text(ImageText(kind="compact", weights=arguments.bundles / "image-text"))
    with tempfile.TemporaryDirectory() as folder:
        scenes = write_scenes(Path(folder), "val", pool, CLOTHES_SCENES, count=arguments.scenes)
        content = load_open_detector(arguments.bundles / "detector")
        facts = measure(content, Remembering(model), scenes.records, STUDY.protocol()["drift"]["names"])
    for on in ("background", "objects"):
        if on in facts:
            row = {name: each for name, each in facts[on].items() if name != "each_class"}
            print(f"ovd_words, thresholds on {on}: {row}")
    print(f"ovd_words, drift: {facts['drift']}")
    if arguments.write:
        command = f"make bench-ovd-words ARGS='--write {arguments.write}'"
        write_result(RESULTS / arguments.write, synthetic=True, command=command, **facts)
    return int(arguments.check and is_missed(facts))


if __name__ == "__main__":
    sys.exit(main())
