"""Scored tiles as GeoJSON objects for QuPath (0.5 or newer)."""

import gzip
import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.files import atomic_path, origin_text
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import (
    blended_colour,
    colour_legend,
    percentile_ranks,
    scale_of,
    side_names,
    standing,
    tile_strengths,
)

# Names of the measurements; by the rank the import script finds its tiles.
SCORE, RANK, EVIDENCE = "Attention", "Attention rank", "Evidence"

_FEATURES_PER_CHUNK = 1000  # tiles whose text is in memory at a time
_COMPRESSION_LEVEL = 6  # of gzip: half the size of level 1, and no slower than composing the text


def write_tiles(path: Path, result: SlideResult, kind: Literal["tile", "detection"] = "tile") -> None:
    """Write the tiles of a slide as a FeatureCollection, atomically.

    Each tile is a closed ring in pixels of level 0, cut at the edge of the slide, with a class by the scale of the
    heatmap and in its colours, and measurements: ``Attention``, the score, ``Attention rank``, its percentile rank and,
    where the network gives it, ``Evidence``. The file does not name the slide; equal results give equal bytes.

    Args:
        path: File to write; compressed if it ends in ``.gz``.
        result: Tiles and scores.
        kind: Type of the objects in QuPath.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        if path.suffix != ".gz":
            file.writelines(_document(result, kind))
            return
        # Without time and name in the header, so that equal results give equal bytes.
        with gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, file, mtime=0) as packed:
            packed.writelines(_document(result, kind))


def qupath_import_script() -> str:
    """Return the Groovy script that imports tiles into a QuPath project."""
    return files("vision_core.slides.outputs").joinpath("import_tiles.groovy").read_text("utf-8")


def _document(result: SlideResult, kind: str) -> Iterator[bytes]:
    facts = {"notice": RESEARCH_NOTICE, "result": result.category, "model": result.model, "mpp": result.mpp or None}
    facts |= {"origin": origin_text(result.model, result.digits, "level 0")}
    words = {"tiles": standing(result), "scale": colour_legend(result)} if len(result) else {}
    words = {name: text for name, text in words.items() if text}
    head = json.dumps({"type": "FeatureCollection", **facts, **words}, allow_nan=False)
    yield f'{head[:-1]}, "features": ['.encode()
    separator = "\n"
    for features in _features(result, kind):
        yield f"{separator}{features}".encode()
        separator = ",\n"
    yield b"\n]}\n"


def _features(result: SlideResult, kind: str) -> Iterator[str]:
    """Iterate over chunks of features as JSON, separated by commas."""
    boxes, ranks = _boxes(result), percentile_ranks(result.scores)
    names, numbers = _classes(result)
    measured = _measurements(result, ranks)
    is_inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    inside = np.flatnonzero(is_inside)
    for start in range(0, len(inside), _FEATURES_PER_CHUNK):
        part = inside[start : start + _FEATURES_PER_CHUNK]
        yield ",\n".join(
            f'{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":'
            f"[[[{left},{top}],[{right},{top}],[{right},{bottom}],[{left},{bottom}],[{left},{top}]]]}},"
            f'"properties":{{"objectType":"{kind}","classification":{names[numbers[index]]},'
            f'"measurements":{{{measured(index)}}}}}}}'
            for index, (left, top, right, bottom) in zip(part.tolist(), boxes[part].tolist(), strict=True)
        )


def _measurements(result: SlideResult, ranks: NDArray[np.float64]) -> Callable[[int], str]:
    """Return a function that writes the measurements of a tile as JSON."""
    scores, evidence = result.scores, result.evidence
    if evidence is None:
        return lambda tile: f'"{SCORE}":{scores[tile]:.9g},"{RANK}":{ranks[tile]:.4f}'
    return lambda tile: f'"{SCORE}":{scores[tile]:.9g},"{RANK}":{ranks[tile]:.4f},"{EVIDENCE}":{evidence[tile]:.9g}'


def _boxes(result: SlideResult) -> NDArray[np.int64]:
    """Compute the boxes of tiles, cut at the edges of the slide."""
    corners = np.concatenate([result.tiles, result.tiles + result.tile_side], axis=1)
    height, width = result.size
    return np.asarray(np.clip(corners, 0, np.array([width, height, width, height])), np.int64)


def _classes(result: SlideResult) -> tuple[list[str], NDArray[np.int64]]:
    """Build the classes of QuPath as JSON, and the class of each tile ``(N,)``: none, some, strong; of each side."""
    strengths, scale = tile_strengths(result), scale_of(result)
    placed = scale.heat(strengths)
    levels = (placed != 0).astype(np.int64) + (np.abs(strengths) >= scale.stands_out)
    little, positive, negative = "Little attention", "Attention", ""
    if result.evidence is not None:
        little, (positive, negative) = "Little evidence", (f"For {name}" for name in side_names(result))
    some, strong = scale.heat(np.array([scale.stands_out / 2, scale.highest]))
    named = [(little, 0.0), (f"{positive}: some", some), (f"{positive}: strong", strong)]
    named += [(f"{negative}: some", -some), (f"{negative}: strong", -strong)]
    classes = [json.dumps({"name": name, "color": blended_colour(each)}) for name, each in named]
    return classes, np.where((strengths < 0) & (levels > 0), levels + 2, levels)
