"""What labels say of two detectors on the same images, also where the images were chosen for their differences.

Let a folder hold M images, of which the N that differ most are labelled and n at random among the M - N others. AP50 is
a function of sums over images: of labelled objects, and of right and wrong detections from each score on. The sum over
the folder of a quantity y is estimated without bias by

    sum of y over the N chosen  +  (M - N) / n  times  sum of y over the n drawn,

as the chosen stand for themselves, and each of the others was drawn with chance n / (M - N) (Horvitz and Thompson 1952:
weights are inverse chances). AP50 of both detectors is computed from sums weighted in this way, so that images which
were picked because much changed in them count once, and those that stand for many count as often. The sums are without
bias; AP50, which has steps at eleven recalls, nearly so, and the nearer the more images there are.

The interval is of images like these: the same two kinds are drawn again, in pairs of both detectors, each kind by
itself. Of k images of a kind k - 1 are drawn with replacement and weighted k / (k - 1) times as much, with which the
variance of a sum over few images is not too small (Rao and Wu 1988). A list without a choice is one kind of weight 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.sfod.verdict.comparing import Compared
from vision_core.detection.average_precision import GroundTruth, Matches, match_image
from vision_core.randomness import key
from vision_core.results import Detections

Floats = NDArray[np.float64]
_DRAWS = 1000
_INTERVAL = (2.5, 97.5)
ANYTHING = (-1.0, 1.0)  # what a gain can be
_CELLS = 2_000_000  # draws times detections that are held at once
_POINTS = np.arange(0.0, 1.1, 0.1)
_HOPELESS = 1000  # times as many boxes


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What labels say: VOC-2007 AP50 of both, 0 to 1, and the 95 % interval of the gain, images drawn in pairs.

    Attributes:
        before: Of the first detector.
        after: Of the second.
        interval: Of the difference; -1 to 1 where a single image stands for others.
        images: Labelled images.
        boxes: Labelled objects on them.
        of_images: Images that they stand for.
        of_boxes: Objects that these are estimated to hold.
    """

    before: float
    after: float
    interval: tuple[float, float]
    images: int
    boxes: int
    of_images: int
    of_boxes: float

    @property
    def kind(self) -> str:
        """``helped`` or ``harmful`` where the interval excludes 0, else ``unclear``."""
        low, high = self.interval
        return "helped" if low > 0 else "harmful" if high < 0 else "unclear"

    @property
    def boxes_needed(self) -> int | None:
        """Labelled objects that would settle a gain as large as the one found, if all else stays.

        Half an interval shrinks with the square root of the number of images, hence of boxes: it is as long as the gain
        after ``(half / gain)²`` times as many. None where it is settled, or would take a thousand times as many.
        """
        half, gain = (self.interval[1] - self.interval[0]) / 2, abs(self.after - self.before)
        if self.kind != "unclear" or self.interval == ANYTHING or half > gain * math.sqrt(_HOPELESS):
            return None
        return math.ceil(self.boxes * max(1.0, (half / gain) ** 2)) if gain else None


@dataclass(frozen=True, kw_only=True)
class Design:
    """How labelled images were chosen: kinds, and how many images each kind stands for.

    Attributes:
        kinds: ``(N,)`` number of the kind of each image.
        sizes: Images of each kind, labelled or not.
    """

    kinds: NDArray[np.int64]
    sizes: tuple[int, ...]

    @classmethod
    def all_of(cls, count: int) -> "Design":
        """Describe a list all of which is labelled."""
        return cls(kinds=np.zeros(count, np.int64), sizes=(count,))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Labelled images of each kind."""
        return np.bincount(self.kinds, minlength=len(self.sizes))

    @property
    def weights(self) -> Floats:
        """Images that each labelled one stands for, ``(N,)``."""
        return np.asarray((np.array(self.sizes) / np.maximum(self.counts, 1))[self.kinds])

    def whole_weights(self) -> Floats:
        """Return the weights times what makes all of them whole, ``(1, N)``: of AP only their ratios matter.

        Recall 1 is reached by whole numbers, and missed by rounded ones.
        """
        return np.rint(self.weights * np.prod(self.counts[self.counts > 0], dtype=np.float64))[None]

    def draw(self, seed: int) -> Floats | None:
        """Draw the labelled images again: whole weights ``(B, N)``; None where an image alone stands for others."""
        counts = self.counts[self.counts > 0]
        if (counts < 2).any():
            return None
        drawn = np.zeros((_DRAWS, len(self.kinds)))
        generator = np.random.default_rng(key("compare", seed))
        for kind in np.unique(self.kinds):
            of_kind = np.flatnonzero(self.kinds == kind)
            count = len(of_kind)
            times = generator.multinomial(count - 1, np.full(count, 1 / count), _DRAWS)
            drawn[:, of_kind] = times * self.sizes[kind] / (count - 1)  # count / (count - 1) times size / count
        return np.rint(drawn * np.prod(counts - 1, dtype=np.float64))


def gain_by_labels(
    images: Sequence[Compared],
    truths: Sequence[GroundTruth],
    classes: tuple[str, ...],
    design: Design | None = None,
    seed: int = 0,
) -> Labelled | None:
    """Score both detectors by labels; None where no object is labelled.

    Args:
        images: The compared images.
        truths: Their labels, in the same order.
        classes: Names that the labels index.
        design: How the images were chosen; None: they are all there are.
        seed: Of the draws.
    """
    design = design or Design.all_of(len(images))
    matched = [
        _match(truths, [getattr(each, name) for each in images], classes) for name in ("before_all", "after_all")
    ]
    counts = np.array([[each.num_truths for each in of_class] for of_class in matched[0]])
    if not counts.sum():
        return None
    before, after = (float(mean_precision(each, design.whole_weights())[0]) for each in matched)
    drawn = design.draw(seed)
    interval = ANYTHING
    if drawn is not None:
        gains = mean_precision(matched[1], drawn) - mean_precision(matched[0], drawn)
        low, high = np.nanpercentile(gains, _INTERVAL)
        interval = float(low), float(high)
    return Labelled(
        before=before,
        after=after,
        interval=interval,
        images=len(images),
        boxes=int(counts.sum()),
        of_images=sum(design.sizes),
        of_boxes=float(counts.sum(axis=0) @ design.weights),
    )


def mean_precision(matched: Sequence[Sequence[Matches]], weights: Floats) -> Floats:
    """Compute VOC-2007 AP50, a mean over the classes with a labelled object, of weighted images.

    Args:
        matched: Of each class, one per image.
        weights: ``(B, N)``, how often each image counts in each of B draws.

    Returns:
        ``(B,)``; NaN of a draw without an object.
    """
    values = np.stack([_precision(of_class, weights) for of_class in matched])
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.asarray(np.divide(total, counts, out=np.full(len(weights), np.nan), where=counts > 0))


def _precision(matches: Sequence[Matches], weights: Floats) -> Floats:
    """Compute average precision of a class ``(B,)``; NaN without an object."""
    truths = weights @ np.array([each.num_truths for each in matches], np.float64)
    scores = np.concatenate([each.scores for each in matches])
    order = np.argsort(-scores, kind="stable")
    outcomes = np.concatenate([each.outcomes for each in matches])[order]
    image = np.repeat(np.arange(len(matches)), [len(each.scores) for each in matches])[order]
    found = np.full(len(weights), np.nan)
    step = max(1, _CELLS // max(1, len(order)))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[part] = np.where(
                truths[part] > 0, _eleven_points(weights[part, image], outcomes, truths[part]), np.nan
            )
    return found


def _eleven_points(weights: Floats, outcomes: NDArray[np.int64], truths: Floats) -> Floats:
    """Average the best precision at recall >= 0, 0.1, ... 1, as ``average_precision.eleven_points`` of one draw."""
    if not len(outcomes):
        return np.zeros(len(weights))
    true, false = (np.cumsum(weights * of_kind, axis=1) for of_kind in (outcomes > 0, outcomes < 0))
    recall = true / truths[:, None]
    precision = true / np.maximum(true + false, np.finfo(np.float64).eps)
    best = [np.where(recall >= point, precision, 0).max(axis=1) for point in _POINTS]
    return np.asarray(np.mean(best, axis=0))


def _match(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]) -> list[list[Matches]]:
    """Match each class in each image, once for all draws."""
    return [
        [match_image(truth, each, label, name) for truth, each in zip(truths, found, strict=True)]
        for label, name in enumerate(classes)
    ]
