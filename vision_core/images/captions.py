"""The strip below a picture: words, a bar of colours, the notice; they go wherever the picture is copied."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vision_core.results import RESEARCH_NOTICE

LEAST_WIDTH = 480  # pixels; below it the words would stand in a column


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a strip says, from the top.

    Attributes:
        headline: The result.
        lines: What else there is to say.
        colours: ``(K, 3)`` uint8 for a bar from low to high, or none.
        model: What made the picture.
    """

    headline: str
    lines: Sequence[str] = ()
    colours: NDArray[np.uint8] | None = None
    model: str


def with_margin(picture: NDArray[np.uint8], words: Words) -> NDArray[np.uint8]:
    """Lay a white strip with words below a picture; a narrow picture gets white at its right side.

    Args:
        picture: ``(H, W, 3)`` uint8.
        words: What the strip says; the notice stands below it, whatever it says.

    Returns:
        ``(H + strip, max(W, 480), 3)`` uint8; the picture's own pixels are unchanged, at the upper left.
    """
    height, width = picture.shape[:2]
    strip = _strip(words, max(width, LEAST_WIDTH))
    whole = np.full((height + strip.shape[0], strip.shape[1], 3), 255, np.uint8)
    whole[:height, :width] = picture
    whole[height:] = strip
    return whole


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, ``size`` pixels high; Pillow's own font has ASCII only, and names of classes need not be English."""
    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _strip(words: Words, width: int) -> NDArray[np.uint8]:
    size = min(26, max(13, width // 64))
    rows = [(font(round(1.4 * size)), words.headline)]
    rows += [(font(size), line) for line in (*words.lines, f"{RESEARCH_NOTICE} Model: {words.model}")]
    rows = [(face, line) for face, text in rows for line in wrapped(text, face, width - 2 * size)]
    heights = [round(1.4 * face.size) for face, _ in rows]
    bar_px = 0 if words.colours is None else 2 * size
    image = Image.new("RGB", (width, bar_px + sum(heights) + size), "white")
    if words.colours is not None:
        _draw_bar(image, words.colours, size)
    draw, y = ImageDraw.Draw(image), bar_px + size / 2
    for (face, line), height in zip(rows, heights, strict=True):
        draw.text((size, y + height / 2), line, "black", face, anchor="lm")
        y += height
    return np.asarray(image)


def _draw_bar(image: Image.Image, colours: NDArray[np.uint8], size: int) -> None:
    draw, face = ImageDraw.Draw(image), font(size)
    bar = Image.fromarray(np.ascontiguousarray(colours[None])).resize((12 * size, size), Image.Resampling.NEAREST)
    left = round(1.5 * size + face.getlength("low"))
    draw.text((size, size), "low", "black", face, anchor="lm")
    image.paste(bar, (left, size // 2))
    draw.text((left + bar.width + size / 2, size), "high", "black", face, anchor="lm")


def wrapped(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The words of a text in lines of at most ``width`` pixels; a longer word is broken."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if face.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += _broken(word, face, width)
    return [line for line in lines if line]


def _broken(word: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    parts = [""]
    for letter in word:
        if face.getlength(parts[-1] + letter) > width and parts[-1]:
            parts.append("")
        parts[-1] += letter
    return parts
