"""Scoring of one slide into the folder of its case: our own slides here, those of others in a confined child."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from apps.slide_reader.wording import with_cautions, without_call
from pipelines.wsi.predict import WsiPredictor
from vision_core.files import hash_digits, origin_text
from vision_core.images.drawing import write_png
from vision_core.pipeline import Predictor
from vision_core.results import SlideResult
from vision_core.sandbox import Limits, Sandbox
from vision_core.slides.outputs.heatmap import heatmap_layer, not_glass
from vision_core.slides.outputs.top_tiles import TileSelection, draw_tile_sheet
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.overview import thumbnail

DISPLAY_PX = 2048  # bounds the memory of a session
_TOP_TILES = 8
_TILE_PX = 256
_LIMITS = Limits(memory_mib=12_288, seconds=3600.0)
_ARRAYS = ("probabilities", "tiles", "scores")
_SCORE = "apps.slide_reader.scoring:score_in_child"


def score(predictor: Predictor[SlideResult], path: Path, folder: Path, *, may_call: bool) -> SlideResult:
    """Score a slide, and write its pictures and downloads.

    Args:
        predictor: The model.
        path: The slide.
        folder: Folder of the case: gets ``slide.png``, ``heat.png``, ``tiles.png``, and ``files``.
        may_call: Whether classes may be spoken of.

    Raises:
        InputError: The slide cannot be read.
    """
    found = predictor(path)
    result = replace(with_cautions(found if may_call else without_call(found)), digits=hash_digits(path))
    predictor.write(result, path, folder / "files")
    with open_slide(path) as slide:
        display = thumbnail(slide, DISPLAY_PX)
        selection = TileSelection(highest=_TOP_TILES, tile_px=min(_TILE_PX, result.tile_side))
        sheet = draw_tile_sheet(slide, result, selection)
    write_png(folder / "slide.png", display)
    write_png(folder / "tiles.png", sheet, origin_text(result.model, result.digits, "tiles of level 0"))
    layer = heatmap_layer(result, display.shape[:2], not_glass(display))
    Pillow.fromarray(layer).save(folder / "heat.png", compress_level=1)
    return result


class ConfinedScoring:
    """Scoring of slides of unknown origin with the model of a bundle, in a child process.

    Neither a crash of a decoder nor one that a file has taken over reaches the page or the network.

    Args:
        bundle: The model.
    """

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._sandbox = Sandbox(_LIMITS)

    def __call__(self, path: Path, folder: Path, *, may_call: bool) -> SlideResult:
        """Score as ``score``.

        Raises:
            InputError: The slide cannot be read, or ended the child.
        """
        answer = self._sandbox.run(_SCORE, path, bundle=str(self._bundle), folder=str(folder), may_call=may_call)
        fields: dict[str, Any] = {**answer.value, **answer.arrays}
        fields |= {name: tuple(fields[name]) for name in ("size", "classes", "notes")}
        return SlideResult(**fields)


def score_in_child(
    path: Path, *, bundle: str, folder: str, may_call: bool
) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    """Score a slide as the sandbox answers: arrays, and the other fields of the result."""
    result = score(_predictor(bundle), path, Path(folder), may_call=may_call)
    fields = vars(result).copy()
    arrays = {name: np.asarray(fields.pop(name)) for name in _ARRAYS}
    evidence = fields.pop("evidence")
    arrays |= {} if evidence is None else {"evidence": evidence}
    return arrays, {**fields, "facts": dict(result.facts), "titles": dict(result.titles)}


@cache
def _predictor(bundle: str) -> WsiPredictor:
    return WsiPredictor.from_checkpoint(bundle)
