"""Drawing of boxes, labels and colour layers; writing of PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from vision_core.files import atomic_path

Colour = tuple[int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
ORANGE: Colour = (230, 159, 0)  # Okabe and Ito's palette: distinct with every common colour blindness
SKY_BLUE: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
GREY: Colour = (204, 204, 204)
_THUMBNAIL_PX = 240
_GAP_PX = 8
_SUPERSAMPLING = 2

Picture = NDArray[np.uint8]
OPACITY = 0.5


def write_png(path: Path, image: NDArray[np.uint8], told: str = "") -> None:
    """Write ``(H, W, 3)`` uint8 as PNG, atomically; ``told`` says within the file what it is of."""
    info = PngInfo()
    if told:
        info.add_text("Description", told)
    with atomic_path(path) as partial:
        Image.fromarray(image).save(partial, format="PNG", compress_level=1, pnginfo=info)


def write_thumbnail(path: Path, image: NDArray[np.uint8], told: str = "") -> None:
    """Write ``(H, W, 3)`` uint8 as a JPEG of at most 240 pixels, for ``summary.html``. Atomic, as ``write_png``."""
    small = Image.fromarray(image)
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX, reducing_gap=2.0)
    with atomic_path(path) as partial:
        small.save(partial, format="JPEG", quality=85, comment=told)


def side_by_side(panels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Join pictures ``(H, W, 3)`` of one height from left to right, with a white gap."""
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def draw_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], labels_text: Sequence[str], colour: Colour = ORANGE
) -> NDArray[np.uint8]:
    """Draw labelled boxes on a copy of an image.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        boxes: ``(N, 4)`` ``xyxy`` in pixels.
        labels_text: One text per box; an empty one leaves the box unlabelled.
        colour: RGB of lines and label backgrounds; a dark rim keeps them visible on any ground.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    height, width = image.shape[:2]
    layer = Image.new("RGBA", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    line_px = max(2, round(min(height, width) / 250)) * _SUPERSAMPLING
    font = ImageFont.load_default(size=max(11, min(height, width) // 40) * _SUPERSAMPLING)
    edges = [tuple(float(edge) * _SUPERSAMPLING for edge in box) for box in boxes]
    for corners in edges:
        draw.rectangle(corners, outline=(0, 0, 0, 160), width=line_px + _SUPERSAMPLING)
        draw.rectangle(corners, outline=(*colour, 255), width=line_px)
    for corners, text in zip(edges, labels_text, strict=True):
        _write_label(draw, corners[:2], text, font, colour)
    picture = Image.fromarray(image).convert("RGBA")
    picture.alpha_composite(layer.reduce(_SUPERSAMPLING))
    return np.array(picture.convert("RGB"))


def _write_label(draw: ImageDraw.ImageDraw, corner: Sequence[float], text: str, font: _Font, colour: Colour) -> None:
    if not text:
        return
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = _SUPERSAMPLING * 2
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0.0, min(corner[0], draw.im.size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=(*colour, 235))
    draw.text((x + margin - left, y + margin - top), text, font=font, fill=(0, 0, 0, 255))


def blend(picture: Picture, layer: Picture, opacity: float = OPACITY) -> Picture:
    """Blend a colour layer over a picture.

    Args:
        picture: ``(H, W, 3)`` uint8.
        layer: ``(H, W, 4)`` uint8 RGBA.
        opacity: 0 gives the picture bit for bit, 1 the layer's colours.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    alpha = np.rint(np.arange(256) * min(max(opacity, 0.0), 1.0)).astype(np.uint16)[layer[..., 3:]]
    mixed = picture * (255 - alpha) + layer[..., :3] * alpha + np.uint16(128)
    mixed += mixed >> 8
    return np.asarray(mixed >> 8, np.uint8)  # with the line before: divided by 255 and rounded


def colour_map() -> Picture:
    """Return the colours from low to high, ``(256, 3)`` uint8, distinct in grey too."""
    return np.asarray(np.rint(colormaps["viridis"](np.arange(256))[:, :3] * 255), np.uint8)
