"""What a training step of each method costs beside one of the mean teacher.

On the published C4-R50 with eight classes, random weights are made sure of themselves, so that labels and candidates
exist. LPLD pools the selected regions alone: a smaller image and fewer sampled regions than published (512) make the
mean teacher's step cheaper and its ratio harder to meet. WSCoL pools all proposals: image, proposals (300) and sampled
regions are shrunk alike, to two fifths of what is published; the memory is full, which does not shrink and makes the
ratio harder to meet. On the demo's EfficientNet-Lite0 with a pyramid a step takes two tiles.
All are in the first epoch, where WSCoL clusters twice. Seconds are those of the processor on one thread, without the
update; methods run in turn, a ratio is the median over the rounds. ``make bench-sfod-step``; ``ARGS=--write`` writes
the result file.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies import RESULTS, write_result
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.demo.shifts import fog
from pipelines.sfod.initial_weights import DEMO_BUNDLE
from pipelines.sfod.learners.adaptation import adaptation_learner
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from pipelines.sfod.learners.wscol import WscolLearner
from pipelines.sfod.methods.lpld import teacher_boxes
from vision_core.assets import tree_crowns
from vision_core.config.loading import replace
from vision_core.detection.boxes import largest_iou
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.views import Batch
from vision_core.detection.weights.bundles import load_detector
from vision_core.environment import quiet_libraries, reuse_memory
from vision_core.images.augmentation import StrongView
from vision_core.images.reading import read_image

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
PIXEL_STD = (60.0, 60.0, 60.0)  # pixels of unit spread, which random weights need
LABELS = 5
RESULT = RESULTS / "sfod_step.json"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Methods on one detector, with the largest ratio allowed to each (none: it is printed alone)."""

    name: str
    targets: dict[str, float | None]
    image: tuple[int, int] = (256, 256)
    regions: int = 64
    proposals: int = 300


SETUPS = (
    Setup(name="c4-few-regions", targets={"lpld": 1.25}, image=(304, 608), regions=64),
    Setup(name="c4", targets={"wscol_core": 2.0, "wsco_full": 3.2}, image=(384, 752), regions=205, proposals=120),
    Setup(name="lite0", targets={"wscol_core": 1.6, "wsco_full": None}),
)


def make_detector(regions: int, proposals: int = 300) -> Detector:
    """Build a C4-R50 whose random features stay bounded and whose head is sure of something."""
    torch.manual_seed(0)
    settings = DetectorSettings(pixel_std=PIXEL_STD, roi_batch=regions, rpn_post_nms_test=proposals)
    detector = Detector(settings, CLASSES)
    with torch.no_grad():
        for name, buffer in detector.named_buffers():
            if name.endswith("conv3.norm.weight"):
                buffer.fill_(0.2)
        detector.roi_heads.box_predictor.cls_score.weight.mul_(60)
    return detector


@torch.no_grad()
def thresholds(detector: Detector, image: Tensor, kept: int) -> dict[str, float]:
    """Choose settings under which random weights give five pseudo labels and about ``kept`` regions."""
    frozen = copy.deepcopy(detector).freeze()
    features = frozen.features([image])
    proposals = frozen.propose(features)
    logits, deltas = frozen.score(frozen.embed(frozen.pool(features, [proposals[0].boxes])))
    found = frozen.select(features, proposals, logits, deltas)[0]
    confident = found.boxes[:LABELS]
    boxes = teacher_boxes(proposals[0].boxes, logits, frozen.decode(deltas, proposals[0].boxes))
    far = largest_iou(boxes, confident) <= SfodConfig().lpld.iou
    sure = logits[far, :-1].softmax(dim=1).amax(dim=1).sort(descending=True).values
    foreground = sure[min(kept, len(sure)) - 1]
    return {"pseudo_labels.threshold": float(found.scores[LABELS]), "lpld.foreground": float(foreground) - 1e-7}


def make_learner(method: str, detector: Detector, settings: dict[str, float]) -> MeanTeacherLearner:
    """Build a learner of the method with the same weights; a memory is full."""
    config = replace(SfodConfig(), {"method": method, **settings})
    learner = adaptation_learner(config, copy.deepcopy(detector), num_images=1000)
    if not isinstance(learner, MeanTeacherLearner):
        raise TypeError(f"'{method}' has no teacher")
    if isinstance(learner, WscolLearner):
        bank = learner.memory.bank
        bank.maps.copy_(torch.rand_like(bank.maps))
        bank.pushed.fill_(bank.maps.shape[1])
    return learner.train()


def tiles(count: int) -> list[Tensor]:
    """Make tiles of tree crowns under the demo's fog, ``(3, 256, 256)``."""
    scene = read_image(tree_crowns()["yell_small"].image_path)
    cut = [np.ascontiguousarray(scene[700:956, 900 + 256 * number :][:, :256]) for number in range(count)]
    return [torch.from_numpy(fog(each, 0)).permute(2, 0, 1) for each in cut]


def prepare(setup: Setup, kept: int) -> tuple[dict[str, MeanTeacherLearner], Batch]:
    """Build the mean teacher and the methods of a setup, and their batch."""
    methods = ("mt", *setup.targets)
    if setup.name == "lite0":
        weak = tiles(2)
        view = StrongView()
        strong = [torch.from_numpy(view(each.permute(1, 2, 0).numpy(), seed=7)).permute(2, 0, 1) for each in weak]
        detector, _ = load_detector(DEMO_BUNDLE)
        settings: dict[str, float] = {"pseudo_labels.threshold": 0.6}
    else:
        weak = [torch.randint(0, 256, (3, *setup.image), dtype=torch.uint8)]
        strong = [255 - weak[0]]
        detector = make_detector(setup.regions, setup.proposals)
        settings = thresholds(detector, weak[0], kept)
    batch = Batch(weak=weak, strong=strong, indices=list(range(len(weak))), targets=[])
    detector.requires_grad_(True)
    return {method: make_learner(method, detector, settings) for method in methods}, batch


def step(learner: MeanTeacherLearner, batch: Batch) -> float:
    """Run one forward and backward pass; returns its processor seconds."""
    learner.zero_grad(set_to_none=True)
    start = time.process_time()
    torch.stack(list(learner(batch).values())).sum().backward()
    return time.process_time() - start


def measure(setup: Setup, rounds: int, kept: int) -> dict[str, object]:
    """Measure the ratios of a setup; a first round warms up, unless steps are long."""
    learners, batch = prepare(setup, kept)
    for learner in learners.values() if setup.name == "lite0" else ():
        step(learner, batch)
    seconds = [{method: step(learner, batch) for method, learner in learners.items()} for _ in range(rounds)]
    found: dict[str, object] = {"mt": {"seconds": statistics.median(each["mt"] for each in seconds)}}
    for method, target in setup.targets.items():
        ratios = [each[method] / each["mt"] for each in seconds]
        found[method] = {
            "seconds": statistics.median(each[method] for each in seconds),
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "target": target,
        }
    labels = learners["mt"].metrics["hpl_per_image"]
    distilled = [each.metrics.get("lpl_per_image", 0) for name, each in learners.items() if name == "lpld"]
    return {"rounds": rounds, "labels_an_image": labels, "distilled": distilled[0] if distilled else None, **found}


def report(name: str, row: dict[str, object]) -> bool:
    """Print the ratios of a setup; returns whether one is missed."""
    is_missed = row["labels_an_image"] == 0 or row["distilled"] == 0
    for method, found in row.items():
        if isinstance(found, dict) and "ratio" in found:
            told = "" if found["target"] is None else f" (target <= {found['target']})"
            spread = f"{found['least']:.3f} to {found['most']:.3f}"
            print(f"sfod_step {name} {method}: {found['ratio']:.3f} ({spread}){told}", flush=True)
            is_missed |= found["target"] is not None and found["ratio"] > found["target"]
    return bool(is_missed)


def main() -> int:
    """Measure in turn, print, and write where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}, beside what it holds")
    parser.add_argument("--setups", default=",".join(each.name for each in SETUPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kept", type=int, default=30, help="regions to distil, about")
    arguments = parser.parse_args()
    quiet_libraries()
    reuse_memory()  # as in training
    torch.set_num_threads(1)
    names, missed = arguments.setups.split(","), False
    for setup in (each for each in SETUPS if each.name in names):
        row = measure(setup, arguments.rounds, arguments.kept)
        missed |= report(setup.name, row)
        if arguments.write:
            write_rows({setup.name: row}, RESULT, "make bench-sfod-step ARGS=--write")
    return int(arguments.check and missed)


def write_rows(rows: dict[str, object], path: Path, command: str) -> None:
    """Put the rows into the result file of a command, beside those of other setups."""
    before = json.loads(path.read_text(encoding="utf-8"))["setups"] if path.exists() else {}
    write_result(path, setups={**before, **rows}, command=command)


if __name__ == "__main__":
    sys.exit(main())
