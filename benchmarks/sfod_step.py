"""What a step of LPLD costs beside one of the mean teacher, on C4-R50 with eight classes.

LPLD selects by the teacher alone, so the student pools the selected regions and no others. The detector is the
published one (600 px, 300 teacher proposals, 2000 for the student, 512 regions) with random weights that are made
sure of themselves, so that labels and candidates exist; |K|, the number of distilled regions, is printed. Steps run in
turn; the ratio is the median over the pairs. ``make bench-sfod-step``.
"""

import argparse
import copy
import statistics
import sys
import time

import torch

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learner import MeanTeacherLearner
from pipelines.sfod.views import Batch
from vision_core.config import replace
from vision_core.detection.detector import Detector
from vision_core.detection.settings import DetectorSettings

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
TARGET = 1.25
CANDIDATES = {"lpld.foreground": 0.6, "lpld.background": 0.9999}


def make_detector() -> Detector:
    """A C4-R50 whose random features stay bounded and whose head is sure of something."""
    torch.manual_seed(0)
    detector = Detector(replace_pixels(DetectorSettings()), CLASSES)
    with torch.no_grad():
        for name, buffer in detector.named_buffers():
            if name.endswith("conv3.norm.weight"):
                buffer.fill_(0.2)
        detector.roi_heads.box_predictor.cls_score.weight.mul_(60)
    return detector


def replace_pixels(settings: DetectorSettings) -> DetectorSettings:
    """The same detector for pixels of unit spread, which random weights need."""
    return settings.model_copy(update={"pixel_std": (60.0, 60.0, 60.0)})


def make_learner(method: str, detector: Detector) -> MeanTeacherLearner:
    """A learner of the method with the same weights."""
    config = replace(SfodConfig(), {"method": method, "pseudo_labels.threshold": 0.5, **CANDIDATES})
    return MeanTeacherLearner(config, copy.deepcopy(detector)).train()


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
    parser.add_argument("--height", type=int, default=600)
    parser.add_argument("--width", type=int, default=1200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    image = torch.randint(0, 256, (3, arguments.height, arguments.width), dtype=torch.uint8)
    batch = Batch(weak=[image], strong=[255 - image], indices=[0], targets=[])
    detector = make_detector()
    teacher, distilling = make_learner("mt", detector), make_learner("lpld", detector)
    step(teacher, batch), step(distilling, batch)
    pairs = [(step(teacher, batch), step(distilling, batch)) for _ in range(arguments.pairs)]
    ratios = [lpld / plain for plain, lpld in pairs]
    kept = distilling.metrics.get("lpl_per_image", 0)
    print(f"image {arguments.height} x {arguments.width}, 8 classes, |K| = {kept:.0f}, one thread, {len(pairs)} pairs")
    plain, distilled = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"mean teacher {plain:.2f} s, LPLD {distilled:.2f} s")
    ratio = statistics.median(ratios)
    print(f"sfod_step: {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) (target <= {TARGET})")
    return int(arguments.check and (ratio > TARGET or kept == 0))


if __name__ == "__main__":
    sys.exit(main())
