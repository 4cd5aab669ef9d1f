"""Captions below a picture, with colour bar and research notice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vision_core.results import RESEARCH_NOTICE

MIN_WIDTH_PX = 480  # narrower text would break into too many lines


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Caption of a picture, from the top.

    Attributes:
        headline: The result.
        lines: Further text, one paragraph each.
        colours: ``(K, 3)`` uint8 for a bar from low to high; None: no bar.
        ends: Words at both ends of the bar.
        model: Identity of the model.
        um_per_px: Microns per pixel of the picture, for a scale bar; 0: unknown, which is said; None: neither.
    """

    headline: str
    lines: Sequence[str] = ()
    colours: NDArray[np.uint8] | None = None
    ends: tuple[str, str] = ("low", "high")
    model: str
    um_per_px: float | None = None


def add_caption(picture: NDArray[np.uint8], caption: Caption) -> NDArray[np.uint8]:
    """Add a white strip with a caption below a picture.

    Args:
        picture: ``(H, W, 3)`` uint8.
        caption: Text and colours of the strip; the research notice always follows.

    Returns:
        ``(H + strip, max(W, 480), 3)`` uint8; the picture's own pixels are unchanged, at the upper left.
    """
    height, width = picture.shape[:2]
    strip = _strip(caption, max(width, MIN_WIDTH_PX))
    whole = np.full((height + strip.shape[0], strip.shape[1], 3), 255, np.uint8)
    whole[:height, :width] = picture
    whole[height:] = strip
    return whole


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, ``size`` pixels high; Pillow's own font has ASCII alone."""
    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _strip(caption: Caption, width: int) -> NDArray[np.uint8]:
    size = min(26, max(13, width // 64))
    rows = [(font(round(1.4 * size)), caption.headline)]
    rows += [(font(size), line) for line in (*caption.lines, f"{RESEARCH_NOTICE} Model: {caption.model}")]
    rows = [(face, line) for face, text in rows for line in wrap_lines(text, face, width - 2 * size)]
    heights = [round(1.4 * face.size) for face, _ in rows]
    scale_px = 0 if caption.um_per_px is None else 2 * size
    bar_px = scale_px + (0 if caption.colours is None else 2 * size)
    image = Image.new("RGB", (width, bar_px + sum(heights) + size), "white")
    if caption.um_per_px is not None:
        _draw_scale(image, caption.um_per_px, size)
    if caption.colours is not None:
        _draw_bar(image, caption.colours, caption.ends, size, scale_px)
    draw, y = ImageDraw.Draw(image), bar_px + size / 2
    for (face, line), height in zip(rows, heights, strict=True):
        draw.text((size, y + height / 2), line, "black", face, anchor="lm")
        y += height
    return np.asarray(image)


def scale_bar(um_per_px: float, longest_px: float) -> tuple[float, str]:
    """Choose a round length, 1, 2 or 5 times a power of ten, for a scale bar of at most ``longest_px`` pixels.

    Returns:
        Its length in pixels, and in words.
    """
    longest = um_per_px * longest_px
    power = 10.0 ** math.floor(math.log10(longest))
    um = next(step for step in (5 * power, 2 * power, power) if step <= longest)
    unit, divisor = next((unit, size) for unit, size in (("cm", 1e4), ("mm", 1e3), ("µm", 0.0)) if um >= size)
    return um / um_per_px, f"{um / (divisor or 1):g} {unit}"


def _draw_scale(image: Image.Image, um_per_px: float, size: int) -> None:
    draw, face = ImageDraw.Draw(image), font(size)
    if not um_per_px:
        draw.text((size, size), "Scale unknown", "black", face, anchor="lm")
        return
    length, words = scale_bar(um_per_px, image.width / 4)
    draw.rectangle((size, size - size // 4, size + round(length), size + size // 4), fill="black")
    draw.text((size + length + size / 2, size), words, "black", face, anchor="lm")


def _draw_bar(image: Image.Image, colours: NDArray[np.uint8], ends: tuple[str, str], size: int, top: int) -> None:
    draw, face = ImageDraw.Draw(image), font(size)
    bar = Image.fromarray(np.ascontiguousarray(colours[None])).resize((12 * size, size), Image.Resampling.BILINEAR)
    words = image.width - bar.width - 3 * size
    low, high = (_shortened(text, face, words / 2) for text in ends)
    left, middle = round(1.5 * size + face.getlength(low)), top + size
    draw.text((size, middle), low, "black", face, anchor="lm")
    image.paste(bar, (left, top + size // 2))
    draw.rectangle((left, top + size // 2, left + bar.width, top + size // 2 + size), outline="grey")
    draw.text((left + bar.width + size / 2, middle), high, "black", face, anchor="lm")


def _shortened(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a text that is wider than ``width`` pixels."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def wrap_lines(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text into lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if face.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += _break_word(word, face, width)
    return [line for line in lines if line]


def _break_word(word: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    parts = [""]
    for letter in word:
        if face.getlength(parts[-1] + letter) > width and parts[-1]:
            parts.append("")
        parts[-1] += letter
    return parts
