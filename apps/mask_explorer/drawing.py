"""Pictures of masks: as layers, and all side by side. Colours show the hidden share of contrast."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from apps.mask_explorer.explorer import Exploration, Image
from vision_core.images.captions import Caption, add_caption, font
from vision_core.images.drawing import colour_map

_PANEL_PX = 192  # approximate: the view is enlarged by a whole factor
_GAP_PX = 8
_CAPTION_PX = 28


def mask_layer(found: Exploration, which: int) -> Image:
    """Colour a mask ``(S, S, 3)`` uint8 by its hidden share of contrast, from its own least to its most."""
    hidden = found.hidden(which)
    return _coloured(hidden, float(hidden.min()), float(hidden.max()))


def draw_sheet(found: Exploration, caption: Caption | None = None) -> Image:
    """Draw the view, and every mask above the view under it, on one scale of colours."""
    scale = scale_of(found)
    panels = [_column("clean image", None, found.view)]
    for which, name in enumerate(found.mask_names()):
        panels.append(_column(name, _coloured(found.hidden(which), *scale), found.masked[which]))
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    joined = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    return joined if caption is None else add_caption(joined, caption)


def sheet_px(found: Exploration) -> int:
    """Return the side of a panel of the sheet."""
    side: int = found.view.shape[0]
    return side * _times(side)


def scale_of(found: Exploration) -> tuple[float, float]:
    """Return the smallest and the largest hidden share over all masks."""
    hidden = 1 - found.masks
    return float(hidden.min()), float(hidden.max())


def _coloured(hidden: NDArray[np.float32], low: float, high: float) -> Image:
    """Colour the hidden shares: ``(S, S, 3)`` uint8; one colour if all are equal."""
    spread = high - low
    steps = np.rint((hidden - low) / spread * 255) if spread > 0 else np.full(hidden.shape, 127.0)
    return colour_map()[steps.astype(np.uint8)]


def _column(title: str, above: Image | None, below: Image) -> Image:
    view = _enlarged(below)
    side = view.shape[0]
    # Between the rows: the page puts buttons over the corners of a picture.
    strip = Pillow.new("RGB", (side, _CAPTION_PX), "white")
    ImageDraw.Draw(strip).text((side / 2, _CAPTION_PX / 2), title, "black", font(15), anchor="mm")
    mask = np.full_like(view, 255) if above is None else _enlarged(above)
    return np.concatenate([mask, np.asarray(strip), view])


def _times(side: int) -> int:
    return max(1, round(_PANEL_PX / side))


def _enlarged(image: Image) -> Image:
    times = _times(image.shape[0])
    return image.repeat(times, axis=0).repeat(times, axis=1)
