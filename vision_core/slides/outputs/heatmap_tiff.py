"""The heatmap as a pyramidal TIFF that viewers of slides lay beside or over the slide, at its scale."""

import json
import math
from pathlib import Path

import pyvips

from vision_core.files import write_atomic
from vision_core.images.drawing import OPACITY, Picture
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import blend_rows

_MOST_PIXELS = 40_000_000  # 120 MB; at 8 microns a glass slide of 75 x 25 mm has 29 million
_TILE_PX = 256
_QUALITY = 90
_UM_PER_MM = 1000


def overlay_px(result: SlideResult, mpp: float) -> int:
    """The longest side in pixels of an overlay at ``mpp``, or coarser where it would be very large."""
    height, width = result.size
    scale = min(1.0, result.mpp / mpp, math.sqrt(_MOST_PIXELS / (height * width)))
    return max(1, math.ceil(max(height, width) * scale))


def write_overlay(path: Path, thumbnail: Picture, result: SlideResult, opacity: float = OPACITY) -> None:
    """Write the heatmap over the slide as a tiled, pyramidal JPEG TIFF, whole or not at all.

    Microns per pixel are set so that the picture has the slide's field; the notice and the result stand in its
    ImageDescription, since a margin would change the field.

    Args:
        path: Where to.
        thumbnail: ``(H, W, 3)`` uint8 of the whole slide; ``overlay_px`` long for a wanted resolution.
        result: What a model made of it.
        opacity: Of the heatmap over the thumbnail.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    height, width = thumbnail.shape[:2]
    image = pyvips.Image.new_from_array(blend_rows(thumbnail, result, opacity), interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "image-description", _description(result))
    content = image.tiffsave_buffer(
        compression="jpeg",
        Q=_QUALITY,
        tile=True,
        tile_width=_TILE_PX,
        tile_height=_TILE_PX,
        pyramid=True,
        resunit="cm",
        xres=_UM_PER_MM * width / (result.size[1] * result.mpp),
        yres=_UM_PER_MM * height / (result.size[0] * result.mpp),
    )
    # From memory, a few MB: the library would tell of a full disk in words of its own only.
    write_atomic(path, content)


def _description(result: SlideResult) -> str:
    facts = {"notice": RESEARCH_NOTICE, "result": result.category, "model": result.model}
    return json.dumps(facts, ensure_ascii=True)
