"""Frames of a cine in one picture: a slider, a strip with a mark for each frame, and words, all in the browser."""

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_core.images.drawing import Colour

MOST_SHOWN = 200  # of a longer cine, so many evenly spaced frames are sent to the browser


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Mark of a frame in the strip; kinds differ in height too, not in colour alone.

    Attributes:
        name: What it says, for the legend.
        colour: Of the bar.
        height: Share of the strip's height.
    """

    name: str
    colour: Colour
    height: float


@dataclass(frozen=True, kw_only=True)
class CineFrame:
    """One frame as the browser shows it.

    Attributes:
        number: Number in the file, from 0.
        base: Picture in the folder of the case.
        values: Its values for window and level, likewise; None: it has no more than 8 bits.
        over: HTML of the layer that the opacity of the page applies to.
        words: Result of the frame, a sentence or two.
        mark: Its mark in the strip.
    """

    number: int
    base: Path
    over: str
    words: str
    mark: Mark
    values: Path | None = None


def shown_numbers(count: int) -> list[int]:
    """Choose the frames of a cine that are shown, evenly spaced, the first and the last among them."""
    if count <= MOST_SHOWN:
        return list(range(count))
    return [round(place * (count - 1) / (MOST_SHOWN - 1)) for place in range(MOST_SHOWN)]


def cine_bar(frames: Sequence[CineFrame], address: Callable[[Path], str], first: int, total: int) -> str:
    """Write slider, strip and words below a picture.

    Args:
        frames: Frames that are shown.
        address: Tells where the browser gets a file.
        first: Place among them of the one that is shown first.
        total: Number of frames of the file.
    """
    told = [f"Frame {each.number + 1} of {total}. {each.words}" for each in frames]
    content = [
        (address(each.base), each.over, words, address(each.values) if each.values else "")
        for each, words in zip(frames, told, strict=True)
    ]
    bars = "".join(
        f'<rect x="{place + 0.08}" y="{1 - each.mark.height:.2f}" width=".84" height="{each.mark.height:.2f}" '
        f'fill="rgb{each.mark.colour}"/>'
        for place, each in enumerate(frames)
    )
    last = len(frames) - 1
    return (
        f'<div class="cine" data-frames="{_escape(json.dumps(content))}" data-first="{first}">'
        f'<svg class="marks" viewBox="0 0 {len(frames)} 1" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>'
        f'<input class="frames" type="range" min="0" max="{last}" value="{first}" step="1" aria-label="Frame" '
        f'aria-valuetext="{_escape(told[first])}"><p class="frame-words" aria-live="polite">{_escape(told[first])}</p>'
        "</div>"
    )


def legend(marks: Sequence[tuple[Mark, int]]) -> str:
    """Write the legend of marks with the number of frames of each, as HTML; kinds without a frame are left out."""
    parts = [
        f'<span><i class="key filled" style="background:rgb{mark.colour};height:{0.25 + 0.75 * mark.height:.2f}em"></i>'
        f"{html.escape(mark.name)} ({count})</span>"
        for mark, count in marks
        if count
    ]
    return f"<small>{' '.join(parts)}</small>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
