"""Wording of a cine: scope before presence, presence before numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from apps.cine import Mark
from vision_core.images.drawing import ORANGE, SKY_BLUE
from vision_core.results import AS_BEFORE, OUTSIDE, CineResult
from vision_core.segmentation.metrics import size_of

NOT_CALLED = "not called, since the model has only seen made images"
PRESENT = Mark(name="present", colour=ORANGE, height=1.0)
REMOVED = Mark(name="not present; the gate removes a mask", colour=SKY_BLUE, height=0.6)
ABSENT = Mark(name="not present", colour=(156, 163, 175), height=0.25)
TURNED_AWAY = Mark(name="turned away", colour=(156, 163, 175), height=0.12)
UNKNOWN = Mark(name="outside what the model knows", colour=(204, 121, 167), height=0.45)
SILENT = Mark(name="not called", colour=(156, 163, 175), height=0.12)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the models make of a file.

    Attributes:
        gated: Result behind the gate.
        alone: Result of the segmenter without the gate; its masks are shown beside.
        may_call: Whether presence, masks and sizes may be told: not by a model of made images on files of others.
    """

    gated: CineResult
    alone: CineResult
    may_call: bool = True

    def removed(self, number: int) -> bool:
        """Tell whether the gate removes a mask of the segmenter from a frame."""
        is_outside = self.gated.outside is not None and self.gated.outside[number]
        return bool(self.alone.present[number]) and not self.gated.present[number] and not is_outside

    def mark(self, number: int) -> Mark:
        """Choose the mark of a frame."""
        if self.gated.outside is not None and self.gated.outside[number]:
            return UNKNOWN
        if not self.may_call:
            return SILENT
        if self.gated.present[number]:
            return PRESENT
        if self.gated.reasons and self.gated.reasons[number] not in ("", AS_BEFORE):
            return TURNED_AWAY
        return REMOVED if self.removed(number) else ABSENT

    def marks(self) -> list[tuple[Mark, int]]:
        """Count the frames of each mark."""
        found = [self.mark(number) for number in range(len(self.gated))]
        return [(mark, found.count(mark)) for mark in (PRESENT, REMOVED, ABSENT, TURNED_AWAY, UNKNOWN, SILENT)]

    def first(self) -> int:
        """Choose the frame to open at: where the gate removes most, else the largest mask, else the middle."""
        if not self.may_call:
            return len(self.gated) // 2
        areas = [self.alone.masks[number].sum() * self.removed(number) for number in range(len(self.gated))]
        if not any(areas):
            areas = [mask.sum() for mask in self.gated.masks]
        return int(np.argmax(areas)) if any(areas) else len(self.gated) // 2


def headline(reading: Reading) -> str:
    """Tell what a file shows: scope, then presence."""
    found, count = reading.gated, len(reading.gated)
    if found.category == OUTSIDE:
        return f"Outside what the model knows{'' if reading.may_call else '; ' + NOT_CALLED}."
    if not reading.may_call:
        return f"{NOT_CALLED[:1].upper()}{NOT_CALLED[1:]}."
    title, shown = _title(found), int(found.present.sum())
    if count == 1:
        return f"{title} present." if shown else f"{title} not present."
    return (
        f"{title} present on {shown} of {count} frames." if shown else f"{title} not present on any of {count} frames."
    )


def lines(reading: Reading) -> list[str]:
    """Tell what the gate changed, and the largest area."""
    found = reading.gated
    if not reading.may_call:
        return []
    told = []
    if removed := sum(reading.removed(number) for number in range(len(found))):
        frames = "1 frame" if removed == 1 else f"{removed} frames"
        told.append(f"Without the gate, the segmenter would mark {frames} more.")
    if found.present.any() and len(found) == 1:
        told.append(f"Area: {area_words(found, 0)}.")
    elif found.present.any():
        areas = [int(mask.sum()) for mask in found.masks]
        largest = int(np.argmax(areas))
        told.append(f"Largest area: {area_words(found, largest)}, on frame {largest + 1}.")
    return told


def frame_words(reading: Reading, number: int) -> str:
    """Tell what a frame shows, in a sentence or two."""
    found, mark = reading.gated, reading.mark(number)
    if mark in (UNKNOWN, SILENT):
        return f"{mark.name[:1].upper()}{mark.name[1:]}."
    if mark == TURNED_AWAY:
        return f"Turned away: {found.reasons[number]}."
    title = _title(found)
    if mark == PRESENT:
        return f"{title} present: {area_words(found, number)}."
    if mark == REMOVED:
        return f"{title} not present. The segmenter alone would mark {area_words(reading.alone, number)} here."
    return f"{title} not present."


def area_words(found: CineResult, number: int) -> str:
    """Write the area of a frame's mask: in mm² where the spacing is known, else in pixels, which is said."""
    mask = found.masks[number]
    if found.spacing_mm:
        return f"{size_of(mask, found.spacing_mm).area:.0f} mm²"
    return f"{int(mask.sum())} px, spacing unknown"


def numbers_table(reading: Reading, shown: Sequence[int]) -> str:
    """Format the scores of the shown frames as an HTML table; empty where nothing is called."""
    found = reading.gated
    if not reading.may_call:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{number + 1}</th><td>{_percent(found.scores[number])}</td>'
        f"<td>{_percent(found.confidence[number])}</td><td>{reading.mark(number).name}</td></tr>"
        for number in shown
    )
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("frame", "screen's score, %", "mean in the mask, %", "organ")
    )
    caption = "Scores of the frames; they are not probabilities that were checked on patients"
    head = f"<caption>{caption}</caption><thead><tr>{heads}</tr></thead>"
    return f'<table class="numbers">{head}<tbody>{rows}</tbody></table>'


def facts(reading: Reading, name: str, series: str, digits: str) -> Mapping[str, str]:
    """List what the result is of; the series where there is one."""
    found = reading.gated
    height, width = found.size
    spacing = "unknown"
    if found.spacing_mm and reading.may_call:
        spacing = f"{found.spacing_mm[0]:.4g} × {found.spacing_mm[1]:.4g} mm"
    return {
        "File": f"{name}, {len(found)} × {width} × {height} px",
        **({"Series": series} if series else {}),
        "Pixel": spacing,
        "Input hash": f"{digits} (SHA-256, first digits)",
        "Model": found.model,
    }


def _title(found: CineResult) -> str:
    name = found.titles.get(found.classes[0], found.classes[0])
    return f"{name[:1].upper()}{name[1:]}"


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.0f}"
