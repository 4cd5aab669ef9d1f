"""Results of inference: frozen, validated records of numpy arrays, for apps and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESEARCH_NOTICE = "For research use. Not for diagnosis."
NO_TISSUE = "no tissue"
OUTSIDE = "outside what the model knows"
AS_BEFORE = "as the frame before"  # of a frame that is there twice, which has the result of the first
UNDECIDED = "undecided"
NO_CLASS = "none of the classes"
DECLINED = (NO_TISSUE, OUTSIDE, UNDECIDED, NO_CLASS)
MaskStack = Any  # (F, H, W) bool: an array, or masks on disk that have its shape, dtype and items and become one


def decide_category(
    called: Sequence[str], *, has_tissue: bool = True, is_outside: bool = False, is_undecided: bool = False
) -> str:
    """Decide the category of a result: why no class is called, before any class.

    Every file, table and page asks this function. The order is that of what a reader must know first: there is nothing
    to score; the model does not know such inputs; it does not commit itself; it calls none of the classes. A class with
    the name of one of these categories is quoted, so that neither is taken for the other.

    Args:
        called: Classes that the scores alone would call.
        has_tissue: Whether there was anything to score.
        is_outside: Whether the input lies outside the scope of the model.
        is_undecided: Whether several classes, or none, are possible at the coverage of the calibration.

    Returns:
        One of ``DECLINED``, or the called classes, separated by semicolons.
    """
    if not has_tissue:
        return NO_TISSUE
    if is_outside:
        return OUTSIDE
    if is_undecided:
        return UNDECIDED
    return "; ".join(map(_unmistakable, called)) or NO_CLASS


def _unmistakable(name: str) -> str:
    return f"class '{name}'" if " ".join(name.casefold().split()) in DECLINED else name


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Objects detected in one image.

    Attributes:
        boxes: ``(N, 4)`` float32, ``xyxy`` in pixels of the original image.
        scores: ``(N,)`` float32 in [0, 1], highest first.
        labels: ``(N,)`` int64, index into ``classes``.
        classes: Names of the classes.
        image_size: ``(height, width)`` of the original image in pixels.
        model: Model that made them: method, version, hash of its weights.
        titles: Words for people, by class; may be empty.
        notes: Remarks for the user, a sentence each.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    model: str = "unknown"
    titles: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scores)
        _check("boxes", self.boxes, (count, 4), np.float32)
        _check("scores", self.scores, (count,), np.float32)
        _check("labels", self.labels, (count,), np.int64)
        if count and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise ValueError(
                f"labels: expected 0 to {len(self.classes) - 1}, found {self.labels.min()} to {self.labels.max()}"
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores: expected finite numbers, found NaN or infinity")
        if count and (self.scores.min() < 0 or self.scores.max() > 1):
            raise ValueError(f"scores: expected 0 to 1, found {self.scores.min():g} to {self.scores.max():g}")
        if (np.diff(self.scores) > 0).any():
            raise ValueError("scores: expected the highest first")

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Detections":
        """Select the objects with a score strictly greater than ``score``."""
        keep = self.scores > score
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON-ready record, with one entry an object (box ``xyxy`` in pixels)."""
        objects = [
            {
                "label": self.classes[label],
                "score": round(float(score), 4),
                "box": [round(float(edge), 2) for edge in box],
            }
            for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
        ]
        height, width = self.image_size
        return {
            "width": width,
            "height": height,
            "model": self.model,
            "notice": RESEARCH_NOTICE,
            "objects": objects,
        }


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Class scores of one image.

    Attributes:
        scores: ``(C,)`` float32 in [0, 1]; they sum to one unless ``are_independent``.
        classes: Names of the classes.
        image_size: ``(height, width)`` of the original image in pixels.
        are_independent: Whether an image may have several classes, or none (multi-label).
        notes: Remarks for the user, a sentence each.
        model: Model that made it: method, version, hash of its weights.
        titles: Words for people, by class; may be empty.
    """

    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    are_independent: bool = False
    notes: tuple[str, ...] = ()
    model: str = "unknown"
    titles: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("scores", self.scores, (len(self.classes),), np.float32)
        if not np.isfinite(self.scores).all():
            raise ValueError("scores: expected finite numbers, found NaN or infinity")
        if len(self.scores) and (self.scores.min() < 0 or self.scores.max() > 1):
            raise ValueError(f"scores: expected 0 to 1, found {self.scores.min():g} to {self.scores.max():g}")
        if not self.are_independent and abs(float(self.scores.sum()) - 1) > 1e-3:
            raise ValueError(f"scores: expected a sum of 1, found {self.scores.sum():g}")

    def ranked(self) -> list[tuple[str, float]]:
        """Sort classes by score, highest first; equal ones in the order of ``classes``."""
        order = np.argsort(-self.scores, kind="stable")
        return [(self.classes[place], float(self.scores[place])) for place in order]

    def called(self) -> tuple[str, ...]:
        """Choose the class with the highest score; of independent ones, all from 0.5."""
        if not self.are_independent:
            return (self.ranked()[0][0],)
        return tuple(name for name, score in self.ranked() if score >= 0.5)

    @property
    def category(self) -> str:
        """Category in files: the called classes, or that there is none."""
        return decide_category(self.called())

    @property
    def verdict(self) -> str:
        """Category in words for people."""
        return "; ".join(_unmistakable(self.titles.get(name, name)) for name in self.called()) or self.category

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON-ready record, scores by class from high to low."""
        height, width = self.image_size
        return {
            "width": width,
            "height": height,
            "category": self.category,
            "verdict": self.verdict,
            "called": list(self.called()),
            "scores": {name: as_share(score) for name, score in self.ranked()},
            "notes": list(self.notes),
            "model": self.model,
            "notice": RESEARCH_NOTICE,
        }


@dataclass(frozen=True, kw_only=True)
class SlideResult:
    """Prediction for one whole slide.

    Attributes:
        slide: File name of the slide.
        size: ``(height, width)`` at level 0 in pixels.
        mpp: Microns per pixel at level 0; 0: not known, as of features that do not state it.
        classes: Names of the classes; empty where no class may be spoken of.
        probabilities: ``(C,)`` float32, summing to one; empty for a slide without tissue.
        category: What ``decide_category`` returns: the class called by the model's threshold, or why there is none.
        tiles: ``(N, 2)`` int64, upper left corner ``(x, y)`` of each tile in pixels of level 0.
        tile_side: Side of a tile in pixels of level 0.
        scores: ``(N,)`` float32, attention or score of each tile; finite, in any unit.
        evidence: ``(N,)`` float32, how much each tile speaks for a class (positive) or for the other ones: the log-odds
            that the slide would have if every tile had its attention and its content; their mean is the slide's own, up
            to biases. None where the network does not divide its answer among the tiles.
        evidence_for: Class that positive evidence speaks for; empty without evidence.
        facts: Numbers for ``results.csv`` beside the probabilities: areas, shares of pen and blur, seconds.
        notes: Remarks for the user, a sentence each.
        model: Model that made it: method, version, hash of its weights.
        titles: Words for people, by class; may be empty.
        digits: First digits of the slide's hash; empty where it was not taken.
    """

    slide: str
    size: tuple[int, int]
    mpp: float
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    category: str
    tiles: NDArray[np.int64]
    tile_side: int
    scores: NDArray[np.float32]
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    model: str = "unknown"
    evidence: NDArray[np.float32] | None = None
    evidence_for: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)
    digits: str = ""

    def __post_init__(self) -> None:
        count = len(self.scores)
        _check("tiles", self.tiles, (count, 2), np.int64)
        _check("scores", self.scores, (count,), np.float32)
        if self.evidence is not None:
            _check("evidence", self.evidence, (count,), np.float32)
            if not np.isfinite(self.evidence).all():
                raise ValueError("evidence: expected finite numbers, found NaN or infinity")
            if self.evidence_for not in self.classes:
                raise ValueError(f"evidence_for: expected one of the classes, found '{self.evidence_for}'")
        _check("probabilities", self.probabilities, (len(self.classes) if count else 0,), np.float32)
        if not (np.isfinite(self.scores).all() and np.isfinite(self.probabilities).all()):
            raise ValueError("scores and probabilities: expected finite numbers, found NaN or infinity")
        if count and self.classes and abs(float(self.probabilities.sum()) - 1) > 1e-3:
            raise ValueError(f"probabilities: expected a sum of 1, found {self.probabilities.sum():g}")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def verdict(self) -> str:
        """Category in words for people."""
        return _unmistakable(self.titles[self.category]) if self.category in self.titles else self.category

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON-ready record without the tiles."""
        height, width = self.size
        return {
            "slide": self.slide,
            "width": width,
            "height": height,
            "mpp": self.mpp or None,
            "category": self.category,
            "verdict": self.verdict,
            "probabilities": dict(zip(self.classes, map(as_share, self.probabilities), strict=False)),
            "tiles": len(self),
            "tile_side": self.tile_side,
            "facts": dict(self.facts),
            "notes": list(self.notes),
            **({"input_sha256": self.digits} if self.digits else {}),
            "model": self.model,
            "notice": RESEARCH_NOTICE,
        }


@dataclass(frozen=True, kw_only=True)
class CineResult:
    """Frames of one file: which of them show an object, and where.

    Attributes:
        name: Name of the file.
        frames: Name of each frame.
        size: ``(height, width)`` of all frames in pixels.
        classes: Name of the object, alone.
        scores: ``(F,)`` float32 probability of a screen that the frame shows it; NaN without a screen.
        accepted: ``(F,)`` bool, whether the frame passed the screen and lies in the scope of the model.
        outside: ``(F,)`` bool, whether the frame lies outside that scope; None where there is no guard.
        masks: ``(F, H, W)`` bool, maybe on disk, empty where the frame was not accepted; None without a segmenter.
        confidence: ``(F,)`` float32 mean probability within the mask; NaN where it is not known.
        spacing_mm: Height and width of a pixel; None where it is not known.
        times_ms: ``(F,)`` when each frame begins, from the first; None where it is not known.
        reasons: ``(F,)`` why a frame was turned away whatever its score, or AS_BEFORE; empty for others; may be empty.
        notes: Remarks for the user, a sentence each.
        model: Models that made it: method, version, hash of the weights.
        titles: Words for people, by class; may be empty.
        seconds: Time from reading the first frame to the last mask; None where it was not taken.
        digits: First digits of the file's hash; empty where it was not taken.
    """

    name: str
    frames: tuple[str, ...]
    size: tuple[int, int]
    classes: tuple[str]
    scores: NDArray[np.float32]
    accepted: NDArray[np.bool_]
    masks: MaskStack
    confidence: NDArray[np.float32]
    outside: NDArray[np.bool_] | None = None
    spacing_mm: tuple[float, float] | None = None
    times_ms: Sequence[float] | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    model: str = "unknown"
    titles: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    digits: str = ""

    def __post_init__(self) -> None:
        count = len(self.frames)
        if any(why not in ("", AS_BEFORE) and passed for why, passed in zip(self.reasons, self.accepted, strict=False)):
            raise ValueError("accepted: expected no frame that was turned away, found one")
        _check("scores", self.scores, (count,), np.float32)
        _check("accepted", self.accepted, (count,), np.bool_)
        _check("confidence", self.confidence, (count,), np.float32)
        for name, each in (("times_ms", self.times_ms), ("reasons", self.reasons or None)):
            if each is not None and len(each) != count:
                raise ValueError(f"{name}: expected {count}, found {len(each)}")
        if self.outside is not None:
            _check("outside", self.outside, (count,), np.bool_)
            if (self.outside & self.accepted).any():
                raise ValueError("accepted: expected no frame outside the scope, found one")
        if self.masks is not None:
            _check("masks", self.masks, (count, *self.size), np.bool_)
            if (self.present & ~self.accepted).any():
                raise ValueError("masks: expected none on frames that were not accepted, found one")

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Whether each frame ``(F,)`` is said to show the object: accepted, and with a mask where there are masks."""
        return self.accepted if self.masks is None else np.array([each.any() for each in self.masks], bool)

    @property
    def category(self) -> str:
        """Category in files: the object where any frame shows it; that none does; or that all are out of scope."""
        is_outside = self.outside is not None and len(self) > 0 and bool(self.outside.all())
        return decide_category(self.classes if self.present.any() else (), is_outside=is_outside)

    @property
    def verdict(self) -> str:
        """Category in words for people."""
        shown = int(self.present.sum())
        name = self.classes[0]
        return f"{self.titles.get(name, name)} on {shown} of {len(self)} frames" if shown else self.category

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON-ready record without masks, with one entry a frame."""
        columns = {
            "frame": self.frames,
            "present": self.present.tolist(),
            "accepted": self.accepted.tolist(),
            "outside": [False] * len(self) if self.outside is None else self.outside.tolist(),
            "reason": self.reasons or [""] * len(self),
            "score": [None if np.isnan(each) else as_share(each) for each in self.scores],
            "confidence": [None if np.isnan(each) else as_share(each) for each in self.confidence],
        }
        return {
            "file": self.name,
            "width": self.size[1],
            "height": self.size[0],
            "category": self.category,
            "verdict": self.verdict,
            "spacing_mm": self.spacing_mm,
            "frames": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
            "notes": list(self.notes),
            **({"input_sha256": self.digits} if self.digits else {}),
            "model": self.model,
            "notice": RESEARCH_NOTICE,
        }


def label_texts(found: Detections) -> list[str]:
    """Write class and score of each object; the score alone with one class."""
    if len(found.classes) == 1:
        return [f"{score:.2f}" for score in found.scores]
    names = [found.titles.get(name, name) for name in found.classes]
    return [f"{names[label]} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)]


def as_share(value: float | np.floating) -> float:
    """Round a probability or score for files to six significant digits, so that a small one is not written as 0."""
    return float(f"{float(value):.6g}")


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
    if array.dtype != dtype:
        raise ValueError(f"{name}: expected {np.dtype(dtype)}, found {array.dtype}")
