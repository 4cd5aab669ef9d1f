"""Passes of an image through a detector, plain and disturbed, and the sums that are kept of them."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.sfod.verdict.agreement import Matching, match
from vision_core.detection.boxes import pairwise_iou, scale_boxes
from vision_core.detection.model.detector import DetectionTensors, Detector, Features, Proposals
from vision_core.errors import NotFiniteError
from vision_core.randomness import key

Floats = NDArray[np.float64]
_DRAWS = 3  # of dropout, and of noise on the weights
_DROPOUT = 0.1  # share of the feature maps that is set to zero
_NOISE = 0.02  # length of the step of each filter, as a share of its norm
_SCALES = (0.8, 1.25)
_BACKGROUND = 0.9  # a region is background from this probability on
_LEAST = 1e-12  # probability in a logarithm


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What a plain and a mirrored pass say of one image, cheap enough for a look during training.

    Attributes:
        counts: ``(C,)`` detections from the operating score on, by class.
        mirror: Agreement with the mirrored image, mapped back: a pair ``(2,)`` of a numerator and its denominator.
    """

    counts: Floats
    mirror: Floats


@dataclass(frozen=True, kw_only=True)
class Probe(Glance):
    """What is kept of one image; sums are pairs ``(2,)`` of a numerator and its denominator.

    Attributes:
        stability: Agreement of the plain pass with passes under dropout of the feature maps: box stability (arXiv
            2403.13803).
        geometry: Agreement with the mirrored and the rescaled image, mapped back: views of cumulative consensus (arXiv
            2509.12871) that self-training does not optimise.
        flatness: Agreement with detectors whose weights carry noise, the first part of the flatness index (arXiv
            2412.17284) ...
        divergence: ... and its second, the sum of KL divergences of the class scores of matched boxes.
        consistency: Sum over kept boxes of the mean, over the candidates that they suppressed, of IoU times score:
            prediction consistency and reliability (arXiv 2508.12082) in one; 0 for a box without any.
        confidence: Sum of scores.
        entropy: Sum of the entropies of the class scores, in nats.
        feature_sums: ``(C + 1, D)`` embedded features of kept boxes by class, and of sure background.
        feature_counts: ``(C + 1,)``.
        boxes: ``(K, 4)`` of all detections, also below the operating score, in the image that was given.
        labels: ``(K,)`` int64 of all.
        scores: ``(K,)`` of all.
        stabilities: ``(K,)`` mean IoU of each with its partner under dropout, 0 without one.
    """

    stability: Floats
    geometry: Floats
    flatness: Floats
    divergence: Floats
    consistency: Floats
    confidence: Floats
    entropy: Floats
    feature_sums: Floats
    feature_counts: Floats
    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats
    stabilities: Floats


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """One pass: all detections, those above the operating score, and what they were selected from."""

    features: Features
    proposals: Proposals
    embedded: Tensor
    probabilities: Tensor
    deltas: Tensor
    found: DetectionTensors
    kept: DetectionTensors


class Prober:
    """Passes images through a detector, with the same draws for every detector of the same shape.

    Args:
        detector: Frozen.
        operating_score: Detections from this score on count as boxes.
        seed: Of dropout and noise.
    """

    def __init__(self, detector: Detector, operating_score: float, seed: int = 0) -> None:
        self.detector = detector
        self.operating_score = operating_score
        self._seed = seed

    @cached_property
    def _noisy(self) -> list[Detector]:
        return [with_noise(self.detector, key("weight noise", self._seed, draw)) for draw in range(_DRAWS)]

    @torch.inference_mode()
    def glance(self, image: Tensor, name: str) -> Glance:
        """Look at an image plainly and mirrored; arguments and errors as of a call."""
        plain = self._pass(self.detector, self.detector.features([image]), name)
        mirrored = self._mirrored(image, name)
        return Glance(counts=self._counts(plain), mirror=match(plain.kept, mirrored).sums)

    @torch.inference_mode()
    def __call__(self, image: Tensor, name: str) -> Probe:
        """Probe an image.

        Args:
            image: ``(3, H, W)`` uint8 RGB, resized as in inference.
            name: Of the image, which keys its draws and stands in errors.

        Raises:
            NotFiniteError: An output is NaN or infinite.
        """
        plain = self._pass(self.detector, self.detector.features([image]), name)
        dropped = [self._dropped(plain.features, draw, name) for draw in range(_DRAWS)]
        # Every box, also one below the operating score, has a stability: its chance to be right is asked for.
        all_pairs = [match(plain.found, each.found) for each in dropped]
        stabilities = np.zeros(len(plain.found.boxes))
        for pairs in all_pairs:
            stabilities[pairs.first] += pairs.ious / _DRAWS
        noisy = [self._pass(each, each.features([image]), name) for each in self._noisy]
        matched = [match(plain.kept, each.kept) for each in noisy]
        kept = plain.probabilities[_regions(plain.kept)]
        divergences = [_divergence(plain, each, pairs) for each, pairs in zip(noisy, matched, strict=True)]
        mirror, *rescaled = (match(plain.kept, each).sums for each in self._views(image, name))
        return Probe(
            counts=self._counts(plain),
            mirror=mirror,
            stability=_sum(match(plain.kept, each.kept).sums for each in dropped),
            geometry=_sum([mirror, *rescaled]),
            flatness=_sum(pairs.sums for pairs in matched),
            divergence=_sum(divergences),
            consistency=np.array([self._consistency(plain), len(kept)]),
            confidence=np.array([float(plain.kept.scores.sum()), len(kept)]),
            entropy=np.array([float(-(kept * kept.clamp_min(_LEAST).log()).sum()), len(kept)]),
            **self._feature_sums(plain),
            boxes=_numpy(plain.found.boxes),
            labels=plain.found.labels.cpu().numpy(),
            scores=_numpy(plain.found.scores),
            stabilities=stabilities,
        )

    def _pass(self, detector: Detector, features: Features, name: str) -> _Pass:
        proposals = detector.propose(features)
        embedded = detector.embed(detector.pool(features, [proposals[0].boxes]))
        logits, deltas = detector.score(embedded)
        if not all(bool(each.isfinite().all()) for each in (*features.maps.values(), logits, deltas)):
            raise NotFiniteError(f"image '{name}'")
        found = detector.select(features, proposals, logits, deltas)[0]
        return _Pass(
            features=features,
            proposals=proposals[0],
            embedded=embedded,
            probabilities=logits.softmax(dim=1),
            deltas=deltas,
            found=found,
            kept=_above(found, self.operating_score),
        )

    def _dropped(self, features: Features, draw: int, name: str) -> _Pass:
        maps = {
            level: tensor * _mask(tensor, key("feature dropout", self._seed, name, draw, level))
            for level, tensor in features.maps.items()
        }
        return self._pass(self.detector, Features(maps=maps, sizes=features.sizes), name)

    def _views(self, image: Tensor, name: str) -> list[DetectionTensors]:
        """Detect in the mirrored and the rescaled image; boxes lie in the image itself."""
        height, width = image.shape[1:]
        views = [self._mirrored(image, name)]
        for scale in _SCALES:
            size = max(round(height * scale), 1), max(round(width * scale), 1)
            resized = functional.interpolate(
                image[None].float(), size=size, mode="bilinear", antialias=True, align_corners=False
            )[0]
            kept = self._pass(self.detector, self.detector.features([resized]), name).kept
            views.append(_moved(kept, scale_boxes(kept.boxes, size, (height, width))))
        return views

    def _mirrored(self, image: Tensor, name: str) -> DetectionTensors:
        width = image.shape[2]
        kept = self._pass(self.detector, self.detector.features([image.flip(2)]), name).kept
        left, top, right, bottom = kept.boxes.unbind(dim=1)
        return _moved(kept, torch.stack([width - right, top, width - left, bottom], dim=1))

    def _counts(self, plain: _Pass) -> Floats:
        labels = plain.kept.labels.cpu().numpy()
        return np.bincount(labels, minlength=self.detector.num_classes).astype(np.float64)

    def _consistency(self, plain: _Pass) -> float:
        """Sum over kept boxes how well the candidates they suppressed lie on them, and how sure those are."""
        settings, kept = self.detector.settings, plain.kept
        height, width = plain.features.sizes[0]
        boxes = self.detector.decode(plain.deltas, plain.proposals.boxes)
        boxes = boxes.clamp_min(0).minimum(boxes.new_tensor([width, height, width, height]))
        total = 0.0
        for box, label, region in zip(kept.boxes, kept.labels, _regions(kept), strict=True):
            scores = plain.probabilities[:, label]
            overlaps = pairwise_iou(box[None], boxes[:, label])[0]
            suppressed = (scores > settings.test_score) & (overlaps > settings.test_nms)
            suppressed[region] = False
            if suppressed.any():
                total += float((overlaps * scores)[suppressed].mean())
        return total

    def _feature_sums(self, plain: _Pass) -> dict[str, Floats]:
        labels = torch.full((len(plain.embedded),), -1, device=plain.embedded.device)
        labels[plain.probabilities[:, -1] >= _BACKGROUND] = self.detector.num_classes
        labels[_regions(plain.kept)] = plain.kept.labels
        held = labels >= 0
        sums = plain.embedded.new_zeros(self.detector.num_classes + 1, plain.embedded.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels[held], plain.embedded[held].double())
        counts = torch.bincount(labels[held], minlength=len(sums))
        return {"feature_sums": _numpy(sums), "feature_counts": _numpy(counts)}


def with_noise(detector: Detector, seed: int, length: float = _NOISE) -> Detector:
    """Copy a detector and move each filter by ``length`` of its norm in a random direction; biases stay."""
    noisy = copy.deepcopy(detector)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in noisy.parameters():
            if weights.dim() < 2:
                continue
            direction = torch.randn(weights.shape, generator=generator).to(weights)
            norms = [each.flatten(1).norm(dim=1).view(-1, *[1] * (weights.dim() - 1)) for each in (weights, direction)]
            weights.add_(length * norms[0] * direction / norms[1].clamp_min(_LEAST))
    return noisy


def _mask(tensor: Tensor, seed: int) -> Tensor:
    """Draw a mask of dropout ``(B, C, H, W)``, on the CPU, so that it is the same on every device."""
    kept = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed)) >= _DROPOUT
    return kept.to(tensor) / (1 - _DROPOUT)


def _above(found: DetectionTensors, score: float) -> DetectionTensors:
    sure = found.scores >= score
    return DetectionTensors(
        boxes=found.boxes[sure], scores=found.scores[sure], labels=found.labels[sure], regions=_regions(found)[sure]
    )


def _moved(found: DetectionTensors, boxes: Tensor) -> DetectionTensors:
    return DetectionTensors(boxes=boxes, scores=found.scores, labels=found.labels, regions=found.regions)


def _regions(found: DetectionTensors) -> Tensor:
    if found.regions is None:
        raise TypeError("these detections do not say which proposals they come from")
    return found.regions


def _divergence(plain: _Pass, noisy: _Pass, pairs: Matching) -> Floats:
    """Sum KL divergences of the class scores of matched boxes, in nats, and count the pairs."""
    before, after = (
        each.probabilities[_regions(each.kept)[torch.as_tensor(places, device=each.embedded.device)]].clamp_min(_LEAST)
        for each, places in ((plain, pairs.first), (noisy, pairs.second))
    )
    return np.array([float((before * (before.log() - after.log())).sum()), len(before)])


def _sum(pairs: Iterable[Floats]) -> Floats:
    return np.sum(list(pairs), axis=0)  # type: ignore[no-any-return]


def _numpy(tensor: Tensor) -> Floats:
    return tensor.cpu().numpy().astype(np.float64)
