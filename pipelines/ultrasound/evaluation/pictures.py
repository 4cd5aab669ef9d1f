"""Pictures of a gate at work: its curve against the threshold, and frames that it changes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ultrasound.data.lists import FrameList
from pipelines.ultrasound.data.observers import vote
from pipelines.ultrasound.evaluation.rows import ListScores
from pipelines.ultrasound.result_files import outlined, sheet
from pipelines.ultrasound.screening.gate import accepted
from pipelines.ultrasound.segment import Masking
from pipelines.ultrasound.weights.bundles import Frames
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.results import RESEARCH_NOTICE

CURVE, KEPT, REJECTED = "gate_curve.png", "gate_accepted.png", "gate_rejected.png"
_SHOWN = 8


def draw_curve(path: Path, points: Sequence[Mapping[str, Any]], threshold: float) -> None:
    """Draw errors and Dice of a gate against its threshold, from the points of a calibration."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    places = [each["threshold"] for each in points]
    num_present = [max(each["true_positive"] + each["false_negative"], 1) for each in points]
    num_absent = [max(each["true_negative"] + each["false_positive"], 1) for each in points]
    lines = {
        "missed, of frames with the organ": [e["false_negative"] / n for e, n in zip(points, num_present, strict=True)],
        "false, of frames without it": [e["false_positive"] / n for e, n in zip(points, num_absent, strict=True)],
        "Dice end to end": [np.nan if e["dice_end_to_end"] is None else e["dice_end_to_end"] for e in points],
    }
    for name, values in lines.items():
        axes.plot(places, values, marker="o", markersize=3, label=name)
    axes.axvline(threshold, color="0.4", linestyle="--", linewidth=1, label=f"chosen: {threshold:.3g}")
    axes.set(xlabel="threshold of the screen", ylim=(0, 1.01))
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(RESEARCH_NOTICE, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomic(path, content.getvalue())


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
