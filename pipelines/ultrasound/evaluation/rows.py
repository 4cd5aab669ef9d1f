"""Scores of screen, segmenter and gate on a list, each frame read once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.config import FrameLabel
from pipelines.ultrasound.data.frames import MOST_REPEATS, Frame, Ranges, refuse, repeats
from pipelines.ultrasound.data.lists import FrameList
from pipelines.ultrasound.data.observers import is_present, vote
from pipelines.ultrasound.evaluation.band import LEVEL, Bands, compare_bands
from pipelines.ultrasound.evaluation.scores import Segmented, by_subject, interval_over_subjects
from pipelines.ultrasound.screening.gate import FrameCounts, accepted, count_frames
from pipelines.ultrasound.screening.scope_guard import Guard, outside_frames
from pipelines.ultrasound.segment import Masking, Masks, masks_of
from pipelines.ultrasound.weights.bundles import Frames, ScreenModel, SegmentModel
from vision_core.console import track
from vision_core.evaluation.classification import binary_auc
from vision_core.evaluation.rows import Row
from vision_core.segmentation.metrics import average_precision, overlaps, surface_distances

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_AT_ONCE = 16  # frames


@dataclass(frozen=True, kw_only=True)
class ListScores:
    """Frames of a list with what the models make of them, arrays ``(n,)``.

    Attributes:
        name: Name of the list.
        subjects: Subject of each frame; None where they are not known.
        present: Whether the organ is there.
        has_consensus: Whether most observers agree on a pixel of it.
        scores: Probability of the screen; NaN without one.
        dice: Dice of the mask against the consensus, both empty counting 1; NaN without a segmenter, as all below.
        precision: Share of the mask that is right; NaN without a mask.
        recall: Share of the consensus that is found; NaN where it is empty.
        areas: Pixels of the mask.
        confidence: Mean probability within the mask.
        hausdorff_95: 95th percentile of the distances of the outlines in pixels; not finite where one is empty.
        surface: Their mean.
        true_areas: Pixels of the consensus.
        bands: Of the model and the observers; None where distances are not compared.
        outside: Whether the frame lies outside the scope of the screen; None without a guard.
        unjudged: Whether it holds a single value or is of a frozen cine, as frames that predict turns away.
        coloured: Whether colours lie over its grey, likewise.
    """

    name: str
    subjects: tuple[str, ...] | None
    present: Flags
    has_consensus: Flags
    scores: NDArray[np.float32]
    dice: Floats
    precision: Floats
    recall: Floats
    areas: Floats
    confidence: Floats
    hausdorff_95: Floats
    surface: Floats
    true_areas: Floats | None = None
    bands: Bands | None = None
    outside: Flags | None = None
    unjudged: Flags | None = None
    coloured: Flags | None = None

    @property
    def turned_away(self) -> Flags:
        """Tell which frames predict turns away, whatever their score."""
        known = [each for each in (self.outside, self.unjudged, self.coloured) if each is not None]
        return np.asarray(np.any([np.zeros(len(self.present), bool), *known], axis=0))

    def judged(self) -> "ListScores":
        """Return the frames that predict does not turn away, to which a threshold is applied; of some without bands."""
        kept = ~self.turned_away
        if kept.all():
            return self
        some: dict[str, Any] = {name: each[kept] for name, each in vars(self).items() if isinstance(each, np.ndarray)}
        subjects = None if self.subjects is None else tuple(compress(self.subjects, kept))
        return replace(self, subjects=subjects, bands=None, **some)

    @property
    def segmented(self) -> Segmented:
        """Return the frames as the segmenter alone leaves them."""
        return Segmented(
            dice=self.dice, has_mask=self.areas > 0, present=self.present, has_consensus=self.has_consensus
        )


@dataclass(frozen=True, kw_only=True)
class Models:
    """Models to score.

    Attributes:
        screen: Scores the frames, if any.
        masking: Makes the masks of all frames, whatever their score, if any.
        segmenter: Makes the masks by itself, without a screen, in place of ``masking``.
        guard: Scope of the screen, or of such a segmenter, if it has one.
    """

    screen: ScreenModel | None = None
    masking: Masking | None = None
    segmenter: SegmentModel | None = None
    guard: Guard = ()


def score_list(
    frames: FrameList, rule: FrameLabel, models: Models, label: str, *, with_distances: bool = True
) -> ListScores:
    """Read every frame of a list once and score it.

    Args:
        frames: The list.
        rule: What makes the organ present.
        models: Screen, segmenter, or both.
        label: Words beside the progress.
        with_distances: Whether outlines and bands are compared too, which takes longest.

    Raises:
        DataError: Frames of 16 bits are too dark for the screen.
        InputError: A frame cannot be read, or is too small.
    """
    rows: list[dict[str, float]] = []
    bands: list[dict[str, float]] = []
    outside: list[Flags] = []
    before: Frame | None = None
    times, ranges = 0, Ranges()
    for some in track(_alike(frames), _num_parts(frames), label, "part"):
        scores, masks, beyond = _outputs(models, some)
        outside += [beyond] if beyond is not None else []
        for place, frame in enumerate(some):
            is_next = before is not None and frame.name.file != "" and frame.name.file == before.name.file
            times = int(repeats([frame.image], before.image if before and is_next else None, times)[0])
            before = frame
            ranges.add(frame.name.file, frame.name.text, frame.image)
            true_area = float(vote(frame.masks).sum())
            row = {
                "present": is_present(frame.masks, rule),
                "has_consensus": true_area > 0,
                "true_areas": true_area,
                "scores": float(scores[place]),
                "unjudged": times > MOST_REPEATS or bool(frame.image.min() == frame.image.max()),
                "coloured": frame.has_flow,
            }
            if masks and with_distances:
                known = masks.probabilities
                bands.append(compare_bands(None if known is None else known[place], frame.masks))
            rows.append(row | _compared(frame, masks, place, with_distances=with_distances))
    if models.screen:
        refuse(frames.name, ranges.dark(frames.name))
    columns = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    return ListScores(
        name=frames.name,
        subjects=frames.subjects,
        present=columns.pop("present") > 0,
        has_consensus=columns.pop("has_consensus") > 0,
        scores=columns.pop("scores").astype(np.float32),
        bands=Bands(**{name: np.array([each[name] for each in bands]) for name in bands[0]}) if bands else None,
        outside=np.concatenate(outside) if models.guard and outside else None,
        unjudged=columns.pop("unjudged") > 0,
        coloured=columns.pop("coloured") > 0,
        **columns,
    )


def _outputs(models: Models, some: Sequence[Frame]) -> tuple[NDArray[np.float32], Masks | None, Flags | None]:
    """Compute scores, NaN without a screen, masks, and which frames lie outside the scope of the network that tells."""
    seen = Frames(images=[each.image for each in some], white=[each.white for each in some])
    scores = np.full(len(some), np.nan, np.float32)
    masks = models.masking(seen, [each.name.text for each in some]) if models.masking else None
    own = models.screen or models.segmenter
    if own is None:
        return scores, masks, None
    outputs, features = own.with_features(seen)
    outside = outside_frames(models.guard, features)
    return (outputs, masks, outside) if models.screen else (scores, masks_of(outputs), outside)


def validation_scores(frames: FrameList, rule: FrameLabel, models: Models) -> dict[str, float]:
    """Score the network of a run between epochs, first the value that selects the best epoch.

    That is Dice over all frames after postprocessing, or the share of right decisions of a screen at one half.
    """
    found = score_list(frames, rule, models, "validate", with_distances=False)
    if models.masking:
        chosen: dict[str, float] = {"dice": float(found.dice.mean())}
        decided = found.areas > 0
    else:
        decided = accepted(found.scores, 0.5)
        chosen = {"frame_accuracy": float((decided == found.present).mean())}
        chosen["auroc"] = binary_auc(found.present.astype(np.int64), found.scores.astype(np.float64))
    chosen |= _decisions(count_frames(decided, found.present))
    return {name: value for name, value in chosen.items() if not np.isnan(value)}


def screen_row(model: str, found: ListScores, threshold: float) -> Row:
    """Score a screen alone: the order of its scores, and its decisions at a threshold."""
    labels = found.present.astype(np.int64)
    counts = count_frames(accepted(found.scores, threshold), found.present)
    metrics = {
        "auroc": binary_auc(labels, found.scores.astype(np.float64)),
        "average_precision": average_precision(labels, found.scores.astype(np.float64)),
        "frame_accuracy": counts.accuracy,
        **_decisions(counts),
    }
    return _row(model, found, metrics, {}, turned_away_notes(found))


def segment_row(model: str, found: ListScores) -> Row:
    """Score a segmenter alone: Dice by convention, and its mask as a decision about the frame."""
    has_mask = found.areas > 0
    chosen = {
        "dice": found.dice,
        "dice_present": np.where(found.present, found.dice, np.nan),
        "dice_found": np.where(found.present & has_mask, found.dice, np.nan),
        "pixel_precision": found.precision,
        "pixel_recall": found.recall,
    }
    if found.bands:
        chosen |= {"band_coverage": found.bands.coverage, "observers_band_coverage": found.bands.observers_coverage}
    notes = (_distances(found), *_band_widths(found), *turned_away_notes(found))
    return _row(model, found, _decisions(count_frames(has_mask, found.present)), chosen, notes)


def gate_row(model: str, found: ListScores, threshold: float) -> Row:
    """Score a gate beside the segmenter alone (``alone_``); the gain is paired by subject."""
    passed, has_mask = accepted(found.scores, threshold), found.areas > 0
    end_to_end = end_to_end_dice(found, threshold)
    chosen = {
        "dice_end_to_end": end_to_end,
        "alone_dice": found.dice,
        "dice_gain": end_to_end - found.dice,
        "dice_accepted": np.where(passed, found.dice, np.nan),
    }
    gated = _decisions(count_frames(passed & has_mask, found.present))
    alone = _decisions(count_frames(has_mask, found.present))
    both = {key: value for name in gated for key, value in ((name, gated[name]), (f"alone_{name}", alone[name]))}
    share = {"accepted_share": float(passed.mean())}
    note = f"Threshold {threshold:g}. {_distances(found, passed)}"
    return _row(model, found, {**both, **share}, chosen, (note, *turned_away_notes(found)))


def end_to_end_dice(found: ListScores, threshold: float) -> Floats:
    """Compute Dice ``(n,)`` behind a gate: a rejected frame counts 1 where there is nothing to find, else 0."""
    to_find = found.present & found.has_consensus
    return np.where(accepted(found.scores, threshold), found.dice, ~to_find).astype(np.float64)


def _row(
    model: str,
    found: ListScores,
    metrics: Mapping[str, float],
    frames: Mapping[str, Floats],
    notes: tuple[str, ...] = (),
) -> Row:
    """Make a row: values of frames become means over subjects, with an interval, where subjects are known."""
    means, intervals = {}, {}
    for name, values in frames.items():
        units = values if found.subjects is None else by_subject(values, found.subjects)
        known = units[~np.isnan(units)]
        means[name] = float(known.mean()) if len(known) else float("nan")
        if found.subjects is not None and len(known) > 1:
            intervals[name] = interval_over_subjects(units)
    counts = {} if found.subjects is None else {"subjects": len(set(found.subjects))}
    told = "Means over frames: the data names no subjects." if found.subjects is None and frames else ""
    return Row(
        model=model,
        split=found.name,
        counts={**counts, "frames": len(found.present)},
        metrics={name: None if np.isnan(value) else value for name, value in {**means, **metrics}.items()},
        intervals=intervals,
        notes=tuple(filter(None, (told, *notes))),
    )


def _decisions(counts: FrameCounts) -> dict[str, float]:
    return {
        "frame_recall": counts.recall,
        "frame_specificity": counts.specificity,
        "frame_precision": counts.precision,
        "frame_f1": counts.f1,
    }


def turned_away_notes(found: ListScores, here: str = "they are scored here") -> tuple[str, ...]:
    """Tell how many frames predict would not segment, whatever their score, and what is done with them ``here``."""
    whose = "segmenter" if np.isnan(found.scores).all() else "screen"
    kinds = {
        f"lie outside the scope of the {whose}: predict does not segment them": found.outside,
        "hold a single value or are of a frozen cine: predict does not segment them": found.unjudged,
        "have colours over grey, as Doppler: predict does not segment them": found.coloured,
    }
    counts = {told: int(each.sum()) for told, each in kinds.items() if each is not None}
    of = len(found.present)
    return tuple(f"{count} of {of} frames {told}; {here}." for told, count in counts.items() if count)


def _distances(found: ListScores, passed: Flags | None = None) -> str:
    is_known = np.isfinite(found.surface) & (True if passed is None else passed)
    if not is_known.any():
        return "No frame has both a mask and a consensus: no distances."
    mean, far = (float(each[is_known].mean()) for each in (found.surface, found.hausdorff_95))
    return (
        f"Distance of the outlines on {int(is_known.sum())} frames where both are there: {mean:.2f} pixels on average, "
        f"{far:.2f} at the 95th percentile."
    )


def _band_widths(found: ListScores) -> tuple[str, ...]:
    """Tell how wide the bands are whose coverage is a metric."""
    if found.bands is None:
        return ()
    words = {
        f"band_coverage: of the band where the probability is between {LEVEL:g} and {1 - LEVEL:g}": found.bands.width,
        "observers_band_coverage: of the band between the other observers": found.bands.observers_width,
    }
    known = {name: values[~np.isnan(values)] for name, values in words.items()}
    return tuple(
        f"{name}, {values.mean():.1f} pixels wide on average over {len(values)} frames."
        for name, values in known.items()
        if len(values)
    )


def _compared(frame: Frame, masks: Masks | None, place: int, *, with_distances: bool) -> dict[str, float]:
    names = ("dice", "precision", "recall", "areas", "confidence", "hausdorff_95", "surface")
    if masks is None:
        return dict.fromkeys(names, float("nan"))
    mask, consensus = masks.masks[place], vote(frame.masks)
    overlap = overlaps(mask[None], consensus[None])
    apart = surface_distances(mask, consensus) if with_distances else None
    return dict(
        zip(
            names,
            (
                float(overlap.dice[0]),
                float(overlap.precision[0]),
                float(overlap.recall[0]),
                float(mask.sum()),
                float(masks.confidence[place]),
                apart.hausdorff_95 if apart else float("nan"),
                apart.mean if apart else float("nan"),
            ),
            strict=True,
        )
    )


def _alike(frames: FrameList) -> Iterator[list[Frame]]:
    """Read the frames in parts of one size."""
    part: list[Frame] = []
    for index in range(len(frames)):
        frame = frames.read(index)
        if part and (len(part) == _AT_ONCE or part[0].image.shape != frame.image.shape):
            yield part
            part = []
        part.append(frame)
    if part:
        yield part


def _num_parts(frames: FrameList) -> int:
    return -(-len(frames) // _AT_ONCE)
