"""Heatmaps as pyramidal TIFFs for slide viewers."""

import json
import math
from pathlib import Path

from vision_core.files import origin_text, write_atomic
from vision_core.images.drawing import OPACITY, Picture
from vision_core.optional import require
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import Mask, colour_legend, overlay_heatmap, standing

_MAX_PIXELS = 40_000_000  # 120 MB; at 8 microns a glass slide of 75 x 25 mm has 29 million
_TILE_PX = 256
_QUALITY = 90
_UM_PER_MM = 1000


def overlay_longest_px(result: SlideResult, mpp: float) -> int:
    """Compute the longest side of an overlay at ``mpp``, in pixels.

    Overlays of more than 40 megapixels become coarser.
    """
    height, width = result.size
    scale = min(1.0, result.mpp / mpp, math.sqrt(_MAX_PIXELS / (height * width)))
    return max(1, math.ceil(max(height, width) * scale))


def write_overlay(
    path: Path, thumbnail: Picture, result: SlideResult, opacity: float = OPACITY, tissue: Mask | None = None
) -> None:
    """Write the heatmap over the slide as a pyramidal TIFF, atomically.

    Its microns per pixel make it cover the same area as the slide. Notice, result and scale are in the
    ImageDescription, since a caption would change that area.

    Args:
        path: File to write.
        thumbnail: ``(H, W, 3)`` uint8 of the whole slide; ``overlay_longest_px`` gives its side for a resolution.
        result: Tiles, scores and category.
        opacity: Of the hottest tiles over the thumbnail.
        tissue: ``(H, W)``, where to colour tiles; None: all of them.

    Raises:
        EnvironmentFault: The disk is full or cannot be written, or pyvips is not installed.
    """
    pyvips = require("pyvips", why="it writes heatmaps as TIFF")
    height, width = thumbnail.shape[:2]
    drawn = overlay_heatmap(thumbnail, result, opacity, tissue=tissue)
    image = pyvips.Image.new_from_array(drawn, interpretation="srgb")
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
    # Through memory, a few MB: libvips reports a full disk only by a text.
    write_atomic(path, content)


def _description(result: SlideResult) -> str:
    facts = {"notice": RESEARCH_NOTICE, "result": result.category, "model": result.model}
    facts["origin"] = origin_text(result.model, result.digits, "whole slide")
    facts |= {"tiles": standing(result), "scale": colour_legend(result)} if len(result) else {}
    return json.dumps({name: text for name, text in facts.items() if text}, ensure_ascii=True)
