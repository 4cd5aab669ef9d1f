"""Scored tiles as GeoJSON objects for QuPath (0.5 or newer)."""

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
from vision_core.slides.outputs.heatmap import is_uniform, percentile_ranks

SCORE, RANK = "Attention", "Attention rank"  # names of the measurements, by which the import script finds its tiles

_CLASSES = 10
_FEATURES_PER_CHUNK = 1000  # tiles whose text is in memory at a time
_UNIFORM_CLASS = "Attention alike"
_COMPRESSION_LEVEL = 6  # of gzip: half the size of level 1, and no slower than composing the text


def write_tiles(path: Path, result: SlideResult, kind: Literal["tile", "detection"] = "tile") -> None:
    """Write the tiles of a slide as a FeatureCollection, atomically.

    Each tile is a closed ring in pixels of level 0, cut at the edge of the slide, with one of ten classes by its rank,
    in the colours of the heatmap, and two measurements: ``Attention``, the score, and ``Attention rank``, its
    percentile rank. The file does not name the slide; equal results give equal bytes.

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
    facts = {"notice": RESEARCH_NOTICE, "result": result.category, "model": result.model, "mpp": result.mpp}
    head = json.dumps({"type": "FeatureCollection", **facts}, allow_nan=False)
    yield f'{head[:-1]}, "features": ['.encode()
    separator = "\n"
    for features in _features(result, kind):
        yield f"{separator}{features}".encode()
        separator = ",\n"
    yield b"\n]}\n"


def _features(result: SlideResult, kind: str) -> Iterator[str]:
    """Iterate over chunks of features as JSON, separated by commas."""
    boxes = _boxes(result)
    ranks = percentile_ranks(result.scores)
    numbers = np.minimum((ranks * _CLASSES).astype(int), _CLASSES - 1)
    classes = _classes(is_uniform(result.scores))
    is_inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    inside = np.flatnonzero(is_inside)
    for start in range(0, len(inside), _FEATURES_PER_CHUNK):
        part = inside[start : start + _FEATURES_PER_CHUNK]
        rows = zip(boxes[part].tolist(), result.scores[part].tolist(), ranks[part].tolist(), numbers[part], strict=True)
        yield ",\n".join(
            f'{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":'
            f"[[[{left},{top}],[{right},{top}],[{right},{bottom}],[{left},{bottom}],[{left},{top}]]]}},"
            f'"properties":{{"objectType":"{kind}","classification":{classes[number]},'
            f'"measurements":{{"{SCORE}":{score:.9g},"{RANK}":{rank:.4f}}}}}}}'
            for (left, top, right, bottom), score, rank, number in rows
        )


def _boxes(result: SlideResult) -> NDArray[np.int64]:
    """Compute the boxes of tiles, cut at the edges of the slide."""
    corners = np.concatenate([result.tiles, result.tiles + result.tile_side], axis=1)
    height, width = result.size
    return np.asarray(np.clip(corners, 0, np.array([width, height, width, height])), np.int64)


def _classes(has_one_class: bool) -> list[str]:
    """Build the classes of QuPath for each tenth of rank, as JSON."""
    steps = colour_map()[np.linspace(0, 255, 2 * _CLASSES + 1).round().astype(int)[1::2]].tolist()
    if has_one_class:
        return [json.dumps({"name": _UNIFORM_CLASS, "color": steps[_CLASSES // 2]})] * _CLASSES
    shares = [100 * number // _CLASSES for number in range(_CLASSES + 1)]
    names = [f"Attention {low}-{high} %" for low, high in pairwise(shares)]
    return [json.dumps({"name": name, "color": colour}) for name, colour in zip(names, steps, strict=True)]
