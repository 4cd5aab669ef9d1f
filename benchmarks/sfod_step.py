"""What a step of LPLD costs beside one of the mean teacher, on C4-R50 with eight classes.

LPLD selects by the teacher alone, so the student pools the selected regions and no others. The detector is the
published one with random weights that are made sure of themselves, so that labels and candidates exist; |K|, the number
of distilled regions, is printed. The image and the number of sampled regions are smaller than published (512), which
makes the mean teacher's step cheaper and the ratio harder to meet. Steps run in turn; the ratio is the median over the
pairs. ``make bench-sfod-step``.
"""

import argparse
import copy
import statistics
import sys
import time

import torch
from torch import Tensor

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from pipelines.sfod.methods.lpld import teacher_boxes
from vision_core.config.loading import replace
from vision_core.detection.boxes import largest_iou
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.views import Batch
from vision_core.environment import quiet_libraries

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
TARGET = 1.25
PIXEL_STD = (60.0, 60.0, 60.0)  # pixels of unit spread, which random weights need
LABELS = 5


def make_detector(regions: int) -> Detector:
    """A C4-R50 whose random features stay bounded and whose head is sure of something."""
    torch.manual_seed(0)
    detector = Detector(DetectorSettings(pixel_std=PIXEL_STD, roi_batch=regions), CLASSES)
    with torch.no_grad():
        for name, buffer in detector.named_buffers():
            if name.endswith("conv3.norm.weight"):
                buffer.fill_(0.2)
        detector.roi_heads.box_predictor.cls_score.weight.mul_(60)
    return detector


@torch.no_grad()
def thresholds(detector: Detector, image: Tensor, kept: int) -> dict[str, float]:
    """Settings under which random weights give five pseudo labels and about ``kept`` regions to distil."""
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
    """A learner of the method with the same weights."""
    config = replace(SfodConfig(), settings)
    return MeanTeacherLearner(
        copy.deepcopy(detector),
        teacher=config.teacher,
        pseudo_labels=config.pseudo_labels,
        lpld=config.lpld if method == "lpld" else None,
        seed=config.train.seed,
    ).train()


def step(learner: MeanTeacherLearner, batch: Batch) -> float:
    """Seconds of one forward and backward pass."""
    learner.zero_grad(set_to_none=True)
    start = time.perf_counter()
    torch.stack(list(learner(batch).values())).sum().backward()
    return time.perf_counter() - start


def main() -> int:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--height", type=int, default=304)
    parser.add_argument("--width", type=int, default=608)
    parser.add_argument("--kept", type=int, default=30, help="regions to distil, about")
    parser.add_argument("--regions", type=int, default=64, help="regions sampled for the student's head")
    arguments = parser.parse_args()
    quiet_libraries()
    image = torch.randint(0, 256, (3, arguments.height, arguments.width), dtype=torch.uint8)
    batch = Batch(weak=[image], strong=[255 - image], indices=[0], targets=[])
    detector = make_detector(arguments.regions)
    settings = thresholds(detector, image, arguments.kept)
    teacher, distilling = make_learner("mt", detector, settings), make_learner("lpld", detector, settings)
    step(teacher, batch), step(distilling, batch)
    pairs = [(step(teacher, batch), step(distilling, batch)) for _ in range(arguments.pairs)]
    ratios = [lpld / plain for plain, lpld in pairs]
    kept = distilling.metrics.get("lpl_per_image", 0)
    size = f"{arguments.height} x {arguments.width}, {arguments.regions} regions"
    print(f"image {size}, 8 classes, |K| = {kept:.0f}, {torch.get_num_threads()} threads, {len(pairs)} pairs")
    plain, distilled = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"mean teacher {plain:.2f} s, LPLD {distilled:.2f} s")
    ratio = statistics.median(ratios)
    print(f"sfod_step: {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) (target <= {TARGET})")
    return int(arguments.check and (ratio > TARGET or kept == 0))


if __name__ == "__main__":
    sys.exit(main())
