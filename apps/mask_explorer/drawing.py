"""Pictures of masks: one laid over the image, and all beside each other. Colours tell the share that is hidden."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from apps.mask_explorer.explorer import Exploration, Image
from vision_core.images.captions import Words, font, with_margin
from vision_core.images.drawing import blend, colour_map

_OVERLAY_PX, _PANEL_PX = 512, 192  # whole pixels of the view are repeated, so the sides come near these
_GAP_PX = 8
_CAPTION_PX = 28


def draw_overlay(found: Exploration, which: int, opacity: float, words: Words) -> Image:
    """A mask over the view, in colours from the least to the most that it hides, and words below.

    Args:
        found: What to draw.
        which: 0 for the mean mask, then the samples.
        opacity: 0 gives the view bit for bit.
        words: For the strip below.
    """
    hidden = found.hidden(which)
    layer = _coloured(hidden, float(hidden.min()), float(hidden.max()))
    return with_margin(_enlarged(blend(found.view, layer, opacity), _OVERLAY_PX), words)


def draw_sheet(found: Exploration, words: Words) -> Image:
    """The view, and for every mask: itself, on one scale of colours for all, above the view under it."""
    scale = scale_of(found)
    panels = [_column("clean image", None, found.view)]
    for which, name in enumerate(found.names()):
        panels.append(_column(name, _coloured(found.hidden(which), *scale)[..., :3], found.under[which]))
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    joined = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    return with_margin(joined, words)


def colours() -> Image:
    """The scale, from the least to the most that is hidden: ``(256, 3)`` uint8."""
    return colour_map()


def scale_of(found: Exploration) -> tuple[float, float]:
    """The least and the most that any of the masks hides."""
    hidden = 1 - found.masks
    return float(hidden.min()), float(hidden.max())


def _coloured(hidden: NDArray[np.float32], low: float, high: float) -> Image:
    """``(S, S, 4)`` uint8 RGBA, opaque; one colour where nothing varies."""
    spread = high - low
    steps = np.rint((hidden - low) / spread * 255) if spread > 0 else np.full(hidden.shape, 127.0)
    layer = np.full((*hidden.shape, 4), 255, np.uint8)
    layer[..., :3] = colour_map()[steps.astype(np.uint8)]
    return layer


def _column(caption: str, above: Image | None, below: Image) -> Image:
    view = _enlarged(below, _PANEL_PX)
    side = view.shape[0]
    # Between the rows, since the page lays buttons over the corners of a picture.
    words = Pillow.new("RGB", (side, _CAPTION_PX), "white")
    ImageDraw.Draw(words).text((side / 2, _CAPTION_PX / 2), caption, "black", font(15), anchor="mm")
    mask = np.full_like(view, 255) if above is None else _enlarged(above, _PANEL_PX)
    return np.concatenate([mask, np.asarray(words), view])


def _enlarged(image: Image, wanted_px: int) -> Image:
    times = max(1, round(wanted_px / image.shape[0]))
    return image.repeat(times, axis=0).repeat(times, axis=1)
