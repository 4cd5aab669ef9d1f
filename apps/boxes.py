"""Boxes over a picture, of all pages that show some: as layers of the page, and as a picture to download."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vision_core.images.captions import Caption, add_caption
from vision_core.images.drawing import Colour, draw_boxes
from vision_core.images.reading import resize_shortest
from vision_core.results import Detections, label_texts

# With orange, sky blue and green, of Okabe and Ito's palette.
YELLOW: Colour = (240, 228, 66)
PURPLE: Colour = (204, 121, 167)
VERMILION: Colour = (213, 94, 0)
_MAX_LABELLED_BOXES = 25  # more labels would hide the objects
_DOWNLOAD_PX = (640, 1600)
_LETTER_WIDTH = 0.6  # of its size, as fonts without serifs have it in the mean
Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Colour and dashes of the boxes of one kind."""

    name: str
    colour: Colour
    dashes: str = ""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Boxes of one kind, ``(N, 4)`` ``xyxy`` in pixels, with their texts."""

    kind: Kind
    boxes: NDArray[np.float32]
    texts: Sequence[str]


def marks_of(found: Detections, kind: Kind, chosen: NDArray[np.int64] | None = None) -> Marks:
    """Mark the boxes of a model, or those of them that are ``chosen``."""
    texts = label_texts(found)
    places = range(len(found)) if chosen is None else chosen.tolist()
    return Marks(kind=kind, boxes=found.boxes[list(places)], texts=[texts[place] for place in places])


def boxes_layer(marks: Sequence[Marks], size: tuple[int, int]) -> str:
    """Write the boxes as a layer of a page, sharp at every zoom.

    Args:
        marks: Boxes by kind.
        size: ``(height, width)`` of the image in pixels.
    """
    height, width = size
    letter_px = min(height, width) / 36
    is_labelled = sum(len(each.boxes) for each in marks) <= _MAX_LABELLED_BOXES
    drawn = "".join(
        _box(mark, place, width, letter_px, is_labelled=is_labelled) for mark in marks for place in _places(mark)
    )
    return f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'


def draw_marks(image: Image, marks: Sequence[Marks], caption: Caption) -> Image:
    """Draw boxes on the image, 640 to 1600 pixels, above a caption with the image's scale."""
    picture = resize_shortest(image, max(_DOWNLOAD_PX[0], min(image.shape[:2])), _DOWNLOAD_PX[1])
    scale = picture.shape[1] / image.shape[1]
    is_labelled = sum(len(each.boxes) for each in marks) <= _MAX_LABELLED_BOXES
    for mark in marks:
        texts = mark.texts if is_labelled else [""] * len(mark.boxes)
        picture = draw_boxes(picture, (mark.boxes * scale).astype(np.float32), texts, mark.kind.colour)
    um_per_px = caption.um_per_px
    return add_caption(picture, replace(caption, um_per_px=None if um_per_px is None else um_per_px / scale))


def legend(marks: Sequence[Marks]) -> str:
    """Write the legend of the kinds that are there, as HTML."""
    parts = [
        f'<span><i class="key" style="border-color:rgb{mark.kind.colour};'
        f'border-style:{"dashed" if mark.kind.dashes else "solid"}"></i>{html.escape(mark.kind.name)} '
        f"({len(mark.boxes)})</span>"
        for mark in marks
        if len(mark.boxes)
    ]
    return f"<small>{' '.join(parts)}</small>" if parts else ""


def _places(mark: Marks) -> range:
    return range(len(mark.boxes))


def _box(mark: Marks, place: int, width: int, letter_px: float, *, is_labelled: bool) -> str:
    left, top, right, bottom = (float(edge) for edge in mark.boxes[place])
    shape = (
        f'x="{left:.2f}" y="{top:.2f}" width="{max(right - left, 0):.2f}" height="{max(bottom - top, 0):.2f}" '
        'fill="none" vector-effect="non-scaling-stroke"'
    )
    colour, dashes = f"rgb{mark.kind.colour}", f'stroke-dasharray="{mark.kind.dashes}"' if mark.kind.dashes else ""
    drawn = (
        f'<rect {shape} stroke="#000" stroke-opacity=".6" stroke-width="4.5"/>'
        f'<rect {shape} stroke="{colour}" stroke-width="2.5" {dashes}/>'
    )
    if not (is_labelled and mark.texts[place]):
        return drawn
    baseline = top - letter_px / 4 if top > letter_px * 1.3 else top + letter_px
    # From the box's right edge to the left where it would else run out of the picture.
    is_cut = left + _LETTER_WIDTH * letter_px * len(mark.texts[place]) > width
    start = f'x="{min(right, width) - 1:.2f}" text-anchor="end"' if is_cut else f'x="{left + 1:.2f}"'
    return drawn + (
        f'<text {start} y="{baseline:.2f}" font-size="{letter_px:.2f}" fill="{colour}" stroke="#000" '
        f'stroke-width="{letter_px / 5:.2f}" paint-order="stroke" font-family="sans-serif">'
        f"{html.escape(mark.texts[place])}</text>"
    )
