"""Pictures of the report: violins of Dice, areas against the consensus, a gate's curve, and frames that it changes."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipelines.ultrasound.data.lists import FrameList
from pipelines.ultrasound.data.observers import vote
from pipelines.ultrasound.evaluation.rows import Floats, ListScores
from pipelines.ultrasound.evaluation.scores import agreement, by_subject
from pipelines.ultrasound.result_files import outlined, sheet
from pipelines.ultrasound.screening.gate import accepted
from pipelines.ultrasound.segment import Masking
from pipelines.ultrasound.weights.bundles import Frames
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.results import RESEARCH_NOTICE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE, KEPT, REJECTED = "gate_curve.png", "gate_accepted.png", "gate_rejected.png"
_SHOWN = 8
_COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#009e73")  # of Okabe and Ito
_GREY = "0.35"
_BANDWIDTH = 0.04  # of Dice, at most: frames that are missed, at 0, shall not run into the others


@dataclass(frozen=True, kw_only=True)
class Violin:
    """Values of frames ``(n,)`` and the means of their subjects ``(m,)``, none where subjects are not known."""

    values: Floats
    means: Floats

    @classmethod
    def of(cls, values: Floats, subjects: Sequence[str] | None) -> Self:
        """Group values ``(n,)``; NaN is left out."""
        means = np.zeros(0) if subjects is None else by_subject(values, subjects)
        return cls(values=values[~np.isnan(values)], means=means[~np.isnan(means)])


def draw_violins(path: Path, groups: Mapping[str, Violin], *, synthetic: bool = False) -> None:
    """Draw the Dice of groups of frames side by side, with a dot for each subject and a bar for the mean."""
    figure = _figure(max(4.5, 1.3 * len(groups) + 1), 4)
    axes = figure.subplots()
    names = []
    for place, (name, group) in enumerate(groups.items()):
        names.append(f"{name}\n{len(group.values)} frames")
        if not len(group.values):
            continue
        scott = len(group.values) ** -0.2  # the usual share of the spread
        smooth = min(scott, _BANDWIDTH / max(float(group.values.std()), 1e-9))
        drawn: Any = axes.violinplot([group.values], [place], widths=0.7, showextrema=False, bw_method=smooth)
        [body] = drawn["bodies"]
        body.set(facecolor=_COLOURS[2], alpha=0.35)
        count = len(group.means)
        if count:
            beside = place + np.linspace(-0.06, 0.06, count) if count > 1 else [place]
            axes.plot(beside, group.means, ".", color=_GREY, markersize=4)
        mean = float((group.means if count else group.values).mean())
        axes.hlines(mean, place - 0.3, place + 0.3, color=_COLOURS[0], linewidth=2)
        axes.annotate(f"{mean:.2f}", (place + 0.32, mean), va="center", fontsize=8)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    least = min((float(group.values.min()) for group in groups.values() if len(group.values)), default=0.0)
    axes.set(ylabel="Dice", ylim=(np.floor(10 * least) / 10 - 0.02, 1.02), xlim=(-0.6, len(names) - 0.2))
    _save(figure, path, synthetic=synthetic)


def draw_areas(path: Path, found: ListScores, *, synthetic: bool = False) -> None:
    """Draw the areas of masks against those of the consensus, after Bland and Altman."""
    assert found.true_areas is not None
    figure = _figure(6, 4)
    axes = figure.subplots()
    both = (found.areas > 0) & (found.true_areas > 0)
    masks, truth = found.areas[both], found.true_areas[both]
    axes.plot((masks + truth) / 2, masks - truth, ".", color=_COLOURS[2], alpha=0.5, markersize=5)
    limits = agreement(masks, truth)
    for value, words in ((limits.high, "+1.96 SD"), (limits.bias, "mean"), (limits.low, "−1.96 SD")):
        if np.isfinite(value):
            axes.axhline(value, color=_COLOURS[0], linestyle="-" if words == "mean" else "--", linewidth=1)
            told = f"{words}\n{value:+.0f}".replace("-", "−")
            axes.annotate(told, (1.01, value), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set(xlabel=f"mean of both areas (pixels), {limits.count} frames", ylabel="mask − consensus (pixels)")
    _save(figure, path, synthetic=synthetic)


def draw_curve(path: Path, points: Sequence[Mapping[str, Any]], threshold: float, *, synthetic: bool = False) -> None:
    """Draw errors and Dice of a gate against its threshold, from the points of a calibration."""
    figure = _figure(6, 4)
    axes = figure.subplots()
    places = [each["threshold"] for each in points]
    num_present = [max(each["true_positive"] + each["false_negative"], 1) for each in points]
    num_absent = [max(each["true_negative"] + each["false_positive"], 1) for each in points]
    lines = {
        "missed, of frames with the organ": [e["false_negative"] / n for e, n in zip(points, num_present, strict=True)],
        "false, of frames without it": [e["false_positive"] / n for e, n in zip(points, num_absent, strict=True)],
        "Dice end to end": [np.nan if e["dice_end_to_end"] is None else e["dice_end_to_end"] for e in points],
        "Dice of accepted frames": [np.nan if e["dice_accepted"] is None else e["dice_accepted"] for e in points],
    }
    for (name, values), colour, mark in zip(lines.items(), _COLOURS, "osD^", strict=True):
        axes.plot(places, values, marker=mark, markersize=3, color=colour, label=name)
    axes.axvline(threshold, color="0.4", linestyle="--", linewidth=1, label=f"chosen: {threshold:.3g}")
    axes.set(xlabel="threshold of the screen", ylabel="share, or Dice", ylim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    _save(figure, path, synthetic=synthetic)


def draw_examples(
    folder: Path, frames: FrameList, found: ListScores, masking: Masking, threshold: float
) -> dict[str, str]:
    """Draw frames that the gate rejects though the segmenter found something, and accepted ones; returns captions."""
    passed, has_mask = accepted(found.scores, threshold), found.areas > 0
    groups = {
        REJECTED: (
            ~passed & has_mask,
            "Rejected by the gate, with the mask (orange) that the segmenter alone would leave",
        ),
        KEPT: (passed & has_mask, "Accepted by the gate, with the mask behind it (orange)"),
    }
    captions = {}
    for name, (chosen, caption) in groups.items():
        numbers = np.flatnonzero(chosen)
        if not len(numbers):
            continue
        some = numbers[np.linspace(0, len(numbers) - 1, min(_SHOWN, len(numbers))).round().astype(int)]
        pictures = []
        for number in some.tolist():
            frame = frames.read(number)
            masks = masking(Frames(images=[frame.image], white=[frame.white]), [frame.name.text])
            pictures.append(outlined(frame.image, masks.masks[0], vote(frame.masks)))
        if len({each.shape for each in pictures}) == 1:
            write_png(folder / name, sheet(pictures))
            captions[name] = f"{caption}; blue: where most observers see the organ. {len(numbers)} such frames."
    return captions


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _save(figure: "Figure", path: Path, *, synthetic: bool) -> None:
    figure.suptitle(f"{'Synthetic frames. ' if synthetic else ''}{RESEARCH_NOTICE}", fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomic(path, content.getvalue())
