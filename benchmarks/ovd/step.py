"""What mining and reweighting add to a training step, and what scoring crops in batches saves.

A step is forward and backward on weak and strong views of the same images, base boxes matched first in both; the full
method mines the candidates and weighs the regions as well. On the published R50 with a pyramid and 65 classes the image
is two fifths as large as published in each direction, and proposals (1000) and sampled regions (512) are as many as
published, which makes the judged regions dearer beside the backbone and the ratio harder to meet. On the demo's
EfficientNet-Lite0 a step takes four composed scenes. Weights are random.

Crops are those of 50 boxes of a composed scene of 128 pixels at both scales, scored one in a pass and all in one
pass, from the picture to the probabilities: by ViT-B/32 of open_clip with random weights, and by the compact model.

Seconds are those of the processor on one thread; the sides run in turn, a ratio is the median over the rounds.
``make bench-ovd-step``; ``ARGS=--write`` writes the result file.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.sfod.step import PIXEL_STD, write_rows
from benchmarks.studies import RESULTS
from pipelines.ovd.config import PYRAMID, ImageText, Marvel
from pipelines.ovd.demo.demo_data import DETECTOR, SHEET
from pipelines.ovd.demo.demo_data import NOVEL as NOVEL_CLOTHES
from pipelines.ovd.detector import OpenDetector
from pipelines.ovd.image_text.clip import OpenClipModel
from pipelines.ovd.image_text.compact import CompactModel
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.image_text.model import ImageTextModel
from pipelines.ovd.learner import OpenLearner
from pipelines.ovd.pseudo_labels.crop_scores import score_crops
from pipelines.ovd.regions import OpenTargets
from pipelines.ovd.views import OpenBatch
from vision_core.assets import sentence_encoder
from vision_core.detection.cut_outs import CLOTHES, clothes_sheet
from vision_core.detection.scenes import CLOTHES_SCENES, Scene, compose
from vision_core.environment import quiet_libraries, reuse_memory
from vision_core.images.augmentation import StrongView
from vision_core.randomness import key

RESULT = RESULTS / "ovd_step.json"
STEP_TARGET, CROP_TARGETS = 1.35, {"clip": 1.5, "compact": 4.0}
IMAGE = (320, 528)
CLASSES, NOVEL = 65, 17
BASE_BOXES, CANDIDATES = 7, 20  # an image
BOXES = 50
WEAK_STRONG = Marvel(mining=False, reweighting=False, burn_in_last_iter=-1)
FULL = Marvel(burn_in_last_iter=-1)


def targets(boxes: Tensor, labels: Tensor, is_base: Tensor) -> OpenTargets:
    """Base boxes first, and candidates of which some are surer than others."""
    order = (~is_base).long().argsort(stable=True)
    boxes, labels, is_base = boxes[order], labels[order], is_base[order]
    scores = torch.where(is_base, 0.0, torch.linspace(0.75, 1.0, len(boxes)))
    confidence = torch.where(is_base, 1.0, scores)
    return OpenTargets(boxes=boxes, labels=labels, is_base=is_base, clip_scores=scores, confidence=confidence)


def published() -> tuple[OpenDetector, list[bool], OpenBatch]:
    """The published detector with random weights, and one image of noise; the first 17 classes are novel."""
    settings = PYRAMID.model_copy(update={"pixel_std": PIXEL_STD})
    detector = OpenDetector(settings, tuple(map(str, range(CLASSES))), functional.normalize(torch.randn(CLASSES, 512)))
    with torch.no_grad():  # random features stay bounded
        for name, buffer in detector.named_buffers():
            if name.endswith("conv3.norm.weight"):
                buffer.fill_(0.2)
    corners = torch.rand(BASE_BOXES + CANDIDATES, 2) * torch.tensor([IMAGE[1] - 200.0, IMAGE[0] - 200.0])
    boxes = torch.cat([corners, corners + 20 + 180 * torch.rand_like(corners)], dim=1)
    is_base = torch.arange(len(boxes)) < BASE_BOXES
    labels = torch.where(is_base, NOVEL, 0) + torch.arange(len(boxes)) % NOVEL
    weak = torch.randint(0, 256, (3, *IMAGE), dtype=torch.uint8)
    batch = OpenBatch(weak=[weak], strong=[255 - weak], indices=[0], targets=[targets(boxes, labels, is_base)])
    return detector, [number < NOVEL for number in range(CLASSES)], batch


def scenes(count: int) -> list[Scene]:
    """Scenes of the demo's clothing."""
    pool = clothes_sheet(SHEET)
    return [compose(pool, CLOTHES_SCENES, np.random.default_rng(key("step", number))) for number in range(count)]


def composed() -> tuple[OpenDetector, list[bool], OpenBatch]:
    """The demo's detector with random weights, and four scenes whose novel objects are candidates."""
    detector = OpenDetector(DETECTOR, CLOTHES, functional.normalize(torch.randn(len(CLOTHES), 64)))
    made, view = scenes(4), StrongView()
    is_novel = [name in NOVEL_CLOTHES for name in CLOTHES]
    weak, strong = (
        [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
        for pictures in ([each.picture for each in made], [view(each.picture, seed=7) for each in made])
    )
    found = [
        targets(torch.from_numpy(each.boxes), torch.from_numpy(each.labels), ~torch.tensor(is_novel)[each.labels])
        for each in made
    ]
    batch = OpenBatch(weak=weak, strong=strong, indices=list(range(len(made))), targets=found)
    return detector, is_novel, batch


def step_row(make: Callable[[], tuple[OpenDetector, list[bool], OpenBatch]], rounds: int) -> dict[str, object]:
    """Seconds of a step of each side, after a round that warms up."""
    torch.manual_seed(0)
    detector, is_novel, batch = make()
    plain, full = (OpenLearner(detector, is_novel, marvel).train() for marvel in (WEAK_STRONG, FULL))
    found = compare(lambda: step(full, batch), lambda: step(plain, batch), rounds)
    return found | {"mined": full.metrics["mined"], "target_at_most": STEP_TARGET}


def step(learner: OpenLearner, batch: OpenBatch) -> None:
    """One forward and backward pass."""
    learner.zero_grad(set_to_none=True)
    torch.stack(list(learner(batch).values())).sum().backward()


def crop_row(model: ImageTextModel, target: float, rounds: int) -> dict[str, object]:
    """Seconds of scoring the crops one in a pass and all in one."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(BOXES, 2, generator=generator) * (CLOTHES_SCENES.side_px - 48)
    boxes = torch.cat([corners, corners + 16 + 32 * torch.rand(BOXES, 2, generator=generator)], dim=1)
    names = functional.normalize(torch.randn(NOVEL, model.embed_dim, generator=generator))
    picture = scenes(1)[0].picture

    def score(batch_size: int) -> None:
        score_crops(model, names, picture, boxes, ImageText(batch_size=batch_size))

    return compare(lambda: score(1), lambda: score(2 * BOXES), rounds) | {"target_at_least": target}


def compare(one: Callable[[], None], other: Callable[[], None], rounds: int) -> dict[str, object]:
    """Ratio of the seconds of two calls, in turn, after a round that warms up."""
    pairs = [(seconds(one), seconds(other)) for _ in range(rounds + 1)][1:]
    ratios = [first / second for first, second in pairs]
    return {
        "rounds": rounds,
        "seconds": [statistics.median(each) for each in zip(*pairs, strict=True)],
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def seconds(call: Callable[[], None]) -> float:
    """Seconds of the processor."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compact_model() -> ImageTextModel:
    """The compact model with random weights."""
    return CompactModel(MiniLM.read(sentence_encoder())).requires_grad_(False).eval()


CASES: dict[str, Callable[[int], dict[str, object]]] = {
    "step_published": lambda rounds: step_row(published, rounds),
    "step_demo": lambda rounds: step_row(composed, rounds),
    "crops_clip": lambda rounds: crop_row(OpenClipModel(), CROP_TARGETS["clip"], rounds),
    "crops_compact": lambda rounds: crop_row(compact_model(), CROP_TARGETS["compact"], rounds),
}


def is_missed(row: dict[str, object]) -> bool:
    """Whether a ratio is beyond its target, or nothing was mined, so that a step says nothing."""
    ratio = float(str(row["ratio"]))
    most, least = float(str(row.get("target_at_most", "inf"))), float(str(row.get("target_at_least", 0)))
    return not least <= ratio <= most or row.get("mined") == 0


def main() -> int:
    """Measure in turn, print, and write where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}, beside what it holds")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    quiet_libraries()
    reuse_memory()  # as in training
    torch.set_num_threads(1)
    missed = False
    for name in arguments.cases.split(","):
        row = CASES[name](arguments.rounds)
        target = {each: value for each, value in row.items() if each.startswith("target")}
        print(f"ovd_step {name}: {row['ratio']:.3f} ({row['least']:.3f} to {row['most']:.3f}) {target}", flush=True)
        missed |= is_missed(row)
        if arguments.write:
            write_rows({name: row}, RESULT, "make bench-ovd-step ARGS=--write")
    return int(arguments.check and missed)


if __name__ == "__main__":
    sys.exit(main())
