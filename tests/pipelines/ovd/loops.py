"""The training step once more, written as loops over views and regions, and a small detector to run it on.

Only the anchors are not written anew: they are detectron2's own, by the losses of a plain detector.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.config import Classifier, Marvel
from pipelines.ovd.detector import OpenDetector
from pipelines.ovd.regions import OpenTargets
from pipelines.ovd.views import OpenBatch
from tests.vision_core.detection.model.test_detector import LITE0
from vision_core.detection.model.detector import Detector, Features, Targets
from vision_core.detection.settings import DetectorSettings
from vision_core.randomness import key, seeded

CLASSES = ("disc", "square", "ring", "bar")
IS_NOVEL = (False, True, False, True)
EMBEDDINGS = functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(3)), dim=1)
SETTINGS = DetectorSettings(
    **LITE0 | {"rpn_post_nms_train": 12, "roi_batch": 10, "test_score": 0.05, "shortest_edge_px": 0}
)

Row = tuple[list[float], int, bool, float]  # box, label, whether it is of a base class, score


def open_detector(settings: DetectorSettings = SETTINGS, classifier: Classifier | None = None) -> OpenDetector:
    """A detector whose probabilities are neither even nor sure, as after some training."""
    with seeded(0):
        detector = OpenDetector(settings, CLASSES, EMBEDDINGS, classifier)
        torch.nn.init.normal_(detector.classifier.projection.weight, std=0.1)
    return detector


def open_targets(*rows: Row) -> OpenTargets:
    """Base boxes and candidates of one image."""
    scores = torch.tensor([score for _, _, _, score in rows], dtype=torch.float32)
    is_base = torch.tensor([base for _, _, base, _ in rows], dtype=torch.bool)
    return OpenTargets(
        boxes=torch.tensor([box for box, _, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([label for _, label, _, _ in rows], dtype=torch.int64),
        is_base=is_base,
        clip_scores=scores.masked_fill(is_base, 0.0),
        confidence=scores.masked_fill(is_base, 1.0),
    )


def open_batch(*targets: OpenTargets, seed: int = 1) -> OpenBatch:
    """Images of different sizes, weak and strong, with the given targets."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(96 - 16 * number, 80 + 16 * number) for number in range(len(targets))]
    images = [
        [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes] for _ in range(2)
    ]
    return OpenBatch(
        weak=images[0], strong=images[1], indices=[10 + number for number in range(len(targets))], targets=[*targets]
    )


def step_by_loop(
    detector: OpenDetector, batch: OpenBatch, marvel: Marvel, step: int, seed: int = 0
) -> dict[str, Tensor]:
    """The four losses, a region after the other."""
    views = batch.weak + batch.strong if marvel.weak_strong else batch.weak
    features = detector.features(views)
    with torch.no_grad():
        weak = detector.features(batch.weak)
    is_burn_in = marvel.mining and step <= marvel.burn_in_last_iter
    chosen = [
        _chosen(detector, _only(weak, image), rows, marvel, is_burn_in) for image, rows in enumerate(_rows(batch))
    ]
    keys = [
        (name, key(name, seed, step, batch.indices[view % len(batch.weak)], view // len(batch.weak)))
        for view in range(len(views))
        for name in ("rpn", "roi")
    ]
    truth = [_plain(chosen[view % len(batch.weak)]) for view in range(len(views))]
    anchors = [each for name, each in keys if name == "rpn"]
    plain = Detector.losses(detector, features, truth, [(each, 0) for each in anchors], append_truth=False)
    proposals = detector.propose(features)
    total_cls, total_box, count = torch.zeros(()), torch.zeros(()), 0
    for view in range(len(views)):
        image = view % len(batch.weak)
        rows = chosen[image]
        boxes = [*proposals[view].boxes.tolist(), *(row[0] for row in rows)]
        matches = [_match(box, rows, marvel) for box in boxes]
        for place in _sampled(matches, detector.settings, [each for name, each in keys if name == "roi"][view]):
            box, row = boxes[place], matches[place]
            logits, deltas = detector.score_boxes(_only(features, view), [torch.tensor([box])])
            with torch.no_grad():
                seen = detector.score_boxes(_only(weak, image), [torch.tensor([box])])[0].softmax(dim=1)[0]
            weight = _weight(row, seen, marvel, is_burn_in)
            label = len(CLASSES) if row is None else row[1]
            total_cls = total_cls - weight * logits.log_softmax(dim=1)[0, label]
            count += 1
            if row is not None and (row[2] or marvel.box_loss_on == "all"):
                wanted = torch.tensor(_encoded(box, row[0]))
                factor = weight if marvel.weight_box_loss else 1.0
                total_box = total_box + factor * (deltas[0] - wanted).abs().sum()
    losses = {name: plain[name] for name in ("loss_rpn_cls", "loss_rpn_loc")}
    return losses | {"loss_cls": total_cls / count, "loss_box_reg": total_box / count}


def _rows(batch: OpenBatch) -> list[list[Row]]:
    return [
        [
            (box, int(label), bool(base), float(clip if not base else 1.0))
            for box, label, base, clip in zip(
                each.boxes.tolist(), each.labels, each.is_base, each.clip_scores, strict=True
            )
        ]
        for each in batch.targets
    ]


@torch.no_grad()
def _chosen(detector: OpenDetector, weak: Features, rows: list[Row], marvel: Marvel, is_burn_in: bool) -> list[Row]:
    if not marvel.mining:
        return rows
    if is_burn_in:
        return [row for row in rows if row[2] or row[3] >= marvel.theta_burn]
    novelties = []
    for row in rows:
        probabilities = detector.score_boxes(weak, [torch.tensor([row[0]])])[0].softmax(dim=1)[0]
        novelties.append(sum(float(probabilities[label]) for label, novel in enumerate(IS_NOVEL) if novel))
    counted = [novel for novel, row in zip(novelties, rows, strict=True) if marvel.novelty_norm == "all" or not row[2]]
    found = []
    for row, novel in zip(rows, novelties, strict=True):
        if row[2]:
            found.append(row)
            continue
        score = marvel.clip_weight * row[3] + (1 - marvel.clip_weight) * novel / max(counted)
        if score >= marvel.delta:
            found.append((row[0], row[1], False, score))
    return found


def _plain(rows: Sequence[Row]) -> Targets:
    boxes = torch.tensor([row[0] for row in rows]).reshape(-1, 4)
    return Targets(boxes=boxes, labels=torch.zeros(len(rows), dtype=torch.int64))


def _match(box: list[float], rows: Sequence[Row], marvel: Marvel) -> Row | None:
    strata = [[row for row in rows if row[2] is base] for base in (True, False)] if marvel.stratified else [list(rows)]
    for stratum in strata:
        if stratum:
            best = max(stratum, key=lambda row: _iou(row[0], box))
            if _iou(best[0], box) >= marvel.roi_iou:
                return best
    return None


def _sampled(matches: Sequence[Row | None], settings: DetectorSettings, seed: int) -> list[int]:
    positive = [place for place, row in enumerate(matches) if row is not None]
    negative = [place for place, row in enumerate(matches) if row is None]
    count = min(len(positive), int(settings.roi_batch * settings.roi_positive_fraction))
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(len(positive), generator=generator)[:count].tolist()
    second = torch.randperm(len(negative), generator=generator)[: settings.roi_batch - count].tolist()
    return [positive[place] for place in first] + [negative[place] for place in second]


def _weight(row: Row | None, seen: Tensor, marvel: Marvel, is_burn_in: bool) -> float:
    if row is None or row[2]:
        return 1.0
    extra = sum(float(seen[label]) for label, novel in enumerate(IS_NOVEL) if novel) if marvel.add_novelty else 0.0
    if not marvel.reweighting or (is_burn_in and not marvel.reweight_in_burn_in):
        return row[3] + extra
    share = marvel.score_weight
    return marvel.weight_scale * (share * row[3] + (1 - share) * (1 - float(seen[-1]))) + extra


def _only(features: Features, image: int) -> Features:
    maps = {level: each[image : image + 1] for level, each in features.maps.items()}
    return Features(maps=maps, sizes=features.sizes[image : image + 1])


def _iou(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def _encoded(box: Sequence[float], target: Sequence[float]) -> list[float]:
    (left, top, right, bottom), wanted = box, target
    width, height = right - left, bottom - top
    other_width, other_height = wanted[2] - wanted[0], wanted[3] - wanted[1]
    return [
        10 * ((wanted[0] + wanted[2]) / 2 - (left + right) / 2) / width,
        10 * ((wanted[1] + wanted[3]) / 2 - (top + bottom) / 2) / height,
        5 * math.log(other_width / width),
        5 * math.log(other_height / height),
    ]
