"""Scored tiles as objects that QuPath (0.5 or newer) opens: GeoJSON, written piece by piece."""

import gzip
import json
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.files import atomic_path
from vision_core.images.drawing import colour_map
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import are_alike, percentile_ranks

SCORE, RANK = "Attention", "Attention rank"  # names of the measurements; the script for QuPath knows its tiles by them
TILES_SUFFIX = ".geojson.gz"

_CLASSES = 10
_ROWS = 1000  # tiles in memory as text
_ALIKE = "Attention alike"
_LEVEL = 6  # of compression: half the size of the fastest, in the same time as making the text


def write_tiles(path: Path, result: SlideResult, kind: Literal["tile", "detection"] = "tile") -> None:
    """Write the tiles of a slide as a FeatureCollection, whole or not at all, compressed if ``path`` ends in ``.gz``.

    Each is a closed ring in pixels of level 0, cut at the edge of the slide, with a class of ten by its rank, in the
    heatmap's colours, and two measurements: ``Attention``, the score, and ``Attention rank``, the share of the tiles
    that the model looked at less. The file does not name the slide, and has the same bytes for the same result.

    Args:
        path: Where to.
        result: Tiles and scores.
        kind: What the objects are to QuPath.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        if path.suffix != ".gz":
            file.writelines(_document(result, kind))
            return
        # Neither time nor name in the header: the same bytes again.
        with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
            packed.writelines(_document(result, kind))


def qupath_script() -> str:
    """A script in Groovy that imports the files of ``write_tiles`` into all images of an open QuPath project."""
    return files("vision_core.slides.outputs").joinpath("import_tiles.groovy").read_text("utf-8")


def _document(result: SlideResult, kind: str) -> Iterator[bytes]:
    facts = {"notice": RESEARCH_NOTICE, "result": result.category, "model": result.model, "mpp": result.mpp}
    head = json.dumps({"type": "FeatureCollection", **facts}, allow_nan=False)
    yield f'{head[:-1]}, "features": ['.encode()
    separator = "\n"
    for features in _features(result, kind):
        yield f"{separator}{features}".encode()
        separator = ",\n"
    yield b"\n]}\n"


def _features(result: SlideResult, kind: str) -> Iterator[str]:
    """The features as text, some hundreds at a time, divided by commas."""
    boxes = _boxes(result)
    ranks = percentile_ranks(result.scores)
    numbers = np.minimum((ranks * _CLASSES).astype(int), _CLASSES - 1)
    classes = _classes(are_alike(result.scores))
    is_inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    inside = np.flatnonzero(is_inside)
    for start in range(0, len(inside), _ROWS):
        part = inside[start : start + _ROWS]
        rows = zip(boxes[part].tolist(), result.scores[part].tolist(), ranks[part].tolist(), numbers[part], strict=True)
        yield ",\n".join(
            f'{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":'
            f"[[[{left},{top}],[{right},{top}],[{right},{bottom}],[{left},{bottom}],[{left},{top}]]]}},"
            f'"properties":{{"objectType":"{kind}","classification":{classes[number]},'
            f'"measurements":{{"{SCORE}":{score:.9g},"{RANK}":{rank:.4f}}}}}}}'
            for (left, top, right, bottom), score, rank, number in rows
        )


def _boxes(result: SlideResult) -> NDArray[np.int64]:
    """Left, top, right and bottom of the tiles, cut at the edges of the slide."""
    corners = np.concatenate([result.tiles, result.tiles + result.tile_side], axis=1)
    height, width = result.size
    return np.asarray(np.clip(corners, 0, np.array([width, height, width, height])), np.int64)


def _classes(is_alike: bool) -> list[str]:
    """QuPath's classes of the tiles, as JSON, by tenths of rank."""
    steps = colour_map()[np.linspace(0, 255, 2 * _CLASSES + 1).round().astype(int)[1::2]].tolist()
    if is_alike:
        return [json.dumps({"name": _ALIKE, "color": steps[_CLASSES // 2]})] * _CLASSES
    shares = [100 * number // _CLASSES for number in range(_CLASSES + 1)]
    names = [f"Attention {low}-{high} %" for low, high in pairwise(shares)]
    return [json.dumps({"name": name, "color": colour}) for name, colour in zip(names, steps, strict=True)]
