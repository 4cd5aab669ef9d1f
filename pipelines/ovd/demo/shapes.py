"""Drawn scenes of twelve shapes on textured ground, with parts of shapes as clutter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.uint8]
BASE = ("disc", "square", "triangle", "ring", "cross", "diamond", "bar", "arrow")
NOVEL = ("star", "moon", "frame", "wedge")
SHAPES = (*BASE, *NOVEL)
_OVERSAMPLING = 4
_SMALLEST, _LARGEST = 0.18, 0.42  # side of an object, of the image's
_ATTEMPTS = 20
_FREE = 0.1  # overlap of two objects at most


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and its objects: ``boxes`` ``(M, 4)`` in pixels, ``labels`` ``(M,)`` index ``SHAPES``."""

    picture: Picture
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def draw_scene(side: int, generator: np.random.Generator) -> Scene:
    """Draw two to five objects and up to three pieces of others on textured ground, ``side`` pixels square."""
    picture = _ground(side, generator)
    for _ in range(int(generator.integers(0, 4))):
        length = int(side * generator.uniform(_SMALLEST, _LARGEST) / 2)
        mask = shape_mask(int(generator.integers(len(SHAPES))), 2 * length, generator)
        quarter = mask[:length, :length] if generator.random() < 0.5 else mask[:, :length]
        left, top = (int(generator.integers(0, side - edge)) for edge in quarter.shape[::-1])
        _paint(picture, quarter, left, top, generator)
    boxes: list[list[float]] = []
    labels: list[int] = []
    for _ in range(int(generator.integers(2, 6))):
        label = int(generator.integers(len(SHAPES)))
        mask = shape_mask(label, int(side * generator.uniform(_SMALLEST, _LARGEST)), generator)
        place = _free_place(mask, side, boxes, generator)
        if place is None:
            continue
        boxes.append(_paint(picture, mask, *place, generator))
        labels.append(label)
    return Scene(
        picture=picture,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
    )


def draw_crop(label: int, side: int, generator: np.random.Generator) -> Picture:
    """Draw a single object that fills most of a picture of ``side`` pixels."""
    picture = _ground(side, generator)
    mask = shape_mask(label, int(side * generator.uniform(0.7, 0.98)), generator)
    left, top = (int(generator.integers(0, side - edge + 1)) for edge in mask.shape[::-1])
    _paint(picture, mask, left, top, generator)
    return picture


def shape_mask(label: int, side: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Draw a shape, turned by a random angle, as coverage ``(h, w)`` in 0 to 1, cut to what it covers."""
    large = side * _OVERSAMPLING
    picture = Image.new("L", (large, large))
    draw = ImageDraw.Draw(picture)
    for outline, value in _outlines(SHAPES[label]):
        draw.polygon([(large * (0.5 + 0.5 * x), large * (0.5 + 0.5 * y)) for x, y in outline], fill=value)
    turned = picture.rotate(float(generator.uniform(-25, 25)), Image.Resampling.BILINEAR)
    mask = np.asarray(turned.resize((side, side), Image.Resampling.BOX), np.float32) / np.float32(255)
    rows, columns = np.flatnonzero(mask.max(axis=1) > 0.5), np.flatnonzero(mask.max(axis=0) > 0.5)
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _outlines(name: str) -> list[tuple[list[tuple[float, float]], int]]:
    """List polygons in -1 to 1 with their fill; later ones lie on top."""
    square = [(-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)]
    cross = [(-0.25, -0.8), (0.25, -0.8), (0.25, -0.25), (0.8, -0.25), (0.8, 0.25), (0.25, 0.25)]
    shapes = {
        "disc": [(_circle(0.8), 255)],
        "square": [(square, 255)],
        "triangle": [([(0, -0.85), (0.8, 0.7), (-0.8, 0.7)], 255)],
        "ring": [(_circle(0.85), 255), (_circle(0.5), 0)],
        "cross": [
            ([*cross, (0.25, 0.8), (-0.25, 0.8), (-0.25, 0.25), (-0.8, 0.25), (-0.8, -0.25), (-0.25, -0.25)], 255)
        ],
        "diamond": [([(0, -0.9), (0.6, 0), (0, 0.9), (-0.6, 0)], 255)],
        "bar": [([(-0.9, -0.22), (0.9, -0.22), (0.9, 0.22), (-0.9, 0.22)], 255)],
        "arrow": [
            ([(-0.9, -0.2), (0.1, -0.2), (0.1, -0.65), (0.9, 0), (0.1, 0.65), (0.1, 0.2), (-0.9, 0.2)], 255),
        ],
        "star": [(_star(), 255)],
        "moon": [(_circle(0.85), 255), (_circle(0.75, 0.45), 0)],
        "frame": [(square, 255), ([(0.6 * x, 0.6 * y) for x, y in square], 0)],
        "wedge": [([(-0.8, 0.8), (-0.8, -0.8), *((x - 0.8, y + 0.8) for x, y in _arc(1.6)), (-0.8, 0.8)], 255)],
    }
    return shapes[name]


def _circle(radius: float, right: float = 0.0) -> list[tuple[float, float]]:
    turns = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return [(right + radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


def _arc(radius: float) -> list[tuple[float, float]]:
    turns = np.linspace(-math.pi / 2, 0, 16)
    return [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


def _star() -> list[tuple[float, float]]:
    radii = [0.9 if point % 2 == 0 else 0.36 for point in range(10)]
    turns = [math.pi * point / 5 - math.pi / 2 for point in range(10)]
    return [(radius * math.cos(turn), radius * math.sin(turn)) for radius, turn in zip(radii, turns, strict=True)]


def _ground(side: int, generator: np.random.Generator) -> Picture:
    """Draw smooth texture in three octaves and some noise."""
    total = np.zeros((side, side, 3), np.float32)
    for cells in (2, 6, 16):
        noise = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 3
    noisy = 128 + 0.5 * (total - 128) + generator.normal(0, 6, total.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def _paint(
    picture: Picture, mask: NDArray[np.float32], left: int, top: int, generator: np.random.Generator
) -> list[float]:
    """Paint a mask in a random colour; returns its box."""
    height, width = mask.shape
    colour = generator.integers(0, 256, 3).astype(np.float32)
    area = picture[top : top + height, left : left + width]
    area[:] = (area * (1 - mask[..., None]) + colour * mask[..., None]).round().astype(np.uint8)
    return [float(left), float(top), float(left + width), float(top + height)]


def _free_place(
    mask: NDArray[np.float32], side: int, boxes: Sequence[Sequence[float]], generator: np.random.Generator
) -> tuple[int, int] | None:
    height, width = mask.shape
    for _ in range(_ATTEMPTS):
        left, top = int(generator.integers(0, side - width + 1)), int(generator.integers(0, side - height + 1))
        box = (left, top, left + width, top + height)
        if all(_shared(box, other) <= _FREE * min(width * height, 1e9) for other in boxes):
            return left, top
    return None


def _shared(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
