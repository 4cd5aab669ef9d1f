"""Masks and the regions they show: outlines with holes, in pixels of level 0, and back to masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ON_EDGE = 1e-6  # of a pixel


@dataclass(frozen=True, kw_only=True)
class Region:
    """A piece of tissue.

    Attributes:
        outline: ``(n, 2)`` float64, ``(x, y)`` in pixels of level 0; the first point is not repeated at the end.
        holes: Outlines of what is left out, ``(m, 2)`` each.
    """

    outline: Points
    holes: tuple[Points, ...] = ()


def outline_mask(mask: Mask, pixel: tuple[float, float]) -> tuple[Region, ...]:
    """The regions of a mask, along the edges of its pixels, so that ``draw_mask`` gives the mask back.

    Args:
        mask: ``(H, W)`` bool in which no two pixels meet at a corner alone (``join_corners``).
        pixel: Width and height of its pixels in pixels of level 0.

    Returns:
        One region for each connected piece; rings neither cross nor touch.
    """
    # Each quarter of a pixel lies at one corner of it. A contour through the quarters, moved to those corners, runs
    # along the edges of the pixels.
    height, width = mask.shape
    quarters = np.broadcast_to(mask.view(np.uint8)[:, None, :, None], (height, 2, width, 2)).reshape(2 * height, -1)
    found, tree = cv2.findContours(quarters, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = _corners_only([(np.asarray(ring)[:, 0] + 1) // 2 for ring in found], pixel)
    return tuple(
        Region(outline=rings[number], holes=tuple(rings[hole] for hole in holes))
        for number, holes in holes_of_tree(tree).items()
    )


def holes_of_tree(tree: NDArray[Any] | None) -> dict[int, list[int]]:
    """The outer rings of OpenCV's two-level contour tree, each with its holes; by number."""
    nodes = [] if tree is None else np.asarray(tree)[0].tolist()
    holes: dict[int, list[int]] = {number: [] for number, node in enumerate(nodes) if node[3] < 0}
    for number, node in enumerate(nodes):
        if node[3] >= 0:
            holes[node[3]].append(number)
    return holes


def join_corners(mask: Mask) -> Mask:
    """Fill masks where two pixels meet at a corner alone: a ring that touches itself is no valid polygon."""
    joined = mask.copy()
    while True:
        a, b, c, d = joined[:-1, :-1], joined[:-1, 1:], joined[1:, :-1], joined[1:, 1:]
        falling, rising = a & d & ~b & ~c, b & c & ~a & ~d
        if not (falling.any() or rising.any()):
            return joined
        b |= falling
        a |= rising


def draw_mask(regions: Sequence[Region], shape: tuple[int, int], pixel: tuple[float, float]) -> Mask:
    """The pixels whose centres lie in a region and in none of its holes: ``shape`` bool.

    Args:
        regions: May overlap.
        shape: ``(height, width)`` of the mask, which begins at the slide's upper left corner.
        pixel: Width and height of its pixels in pixels of level 0.
    """
    mask = np.zeros(shape, bool)
    for region in regions:
        rows, columns = _window(region.outline, shape, pixel)
        xs = (np.arange(columns.start, columns.stop) + 0.5) * pixel[0]
        ys = (np.arange(rows.start, rows.stop) + 0.5) * pixel[1]
        mask[rows, columns] |= _union([region.outline], xs, ys) & ~_union(region.holes, xs, ys)
    return mask


def locate(ring: Points, xs: Points, ys: Points) -> NDArray[np.int8]:
    """Where the points of a grid lie: 1 inside a ring, 0 on it, -1 outside.

    Args:
        ring: ``(n, 2)``; one that crosses itself has as inside what an odd number of its turns encloses.
        xs: ``(w,)`` ascending.
        ys: ``(h,)`` ascending.

    Returns:
        ``(h, w)`` int8.
    """
    _, rows, crossings, is_end = _crossings(ring, np.roll(ring, -1, axis=0), ys)
    flips = np.zeros((len(ys), len(xs) + 1), np.int8)
    np.bitwise_xor.at(flips, (rows[~is_end], np.searchsorted(xs, crossings[~is_end])), 1)
    place = np.bitwise_xor.accumulate(flips, axis=1)[:, :-1]
    place += place - 1
    _mark(place, rows, np.searchsorted(xs, crossings - _ON_EDGE), np.searchsorted(xs, crossings + _ON_EDGE, "right"))
    rows, left, right = _level_edges(ring, ys)
    _mark(place, rows, np.searchsorted(xs, left - _ON_EDGE), np.searchsorted(xs, right + _ON_EDGE, "right"))
    return place


def _union(rings: Sequence[Points], xs: Points, ys: Points) -> Mask:
    """Which points of a grid lie in any of many rings: tissue may have thousands of holes."""
    if not rings:
        return np.zeros((len(ys), len(xs)), bool)
    points, ring = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(each) for each in rings])
    edge, rows, crossings, is_end = _crossings(points, points[_following(ring)], ys)
    order = np.lexsort((crossings, rows, ring[edge]))
    order = order[~is_end[order]]
    # In a row, a ring is entered and left in turns.
    steps = np.zeros((len(ys), len(xs) + 1), np.int32)
    for first, step in ((0, 1), (1, -1)):
        turns = order[first::2]
        np.add.at(steps, (rows[turns], np.searchsorted(xs, crossings[turns])), step)
    return np.asarray(np.cumsum(steps, axis=1, out=steps)[:, :-1] > 0)


def _crossings(start: Points, end: Points, ys: Points) -> tuple[NDArray[np.int64], NDArray[np.int64], Points, Mask]:
    """Where edges meet rows: number of the edge and of the row, x, and whether the edge's lower end lies on the row.

    The end belongs to the edge when asked what lies on a ring, and not when edges are counted.
    """
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = np.searchsorted(ys, low), np.searchsorted(ys, high, "right")
    edge, row = _spread(first, np.where(low == high, first, last))
    share = (ys[row] - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    return edge, row, start[edge, 0] + share * (end[edge, 0] - start[edge, 0]), ys[row] == high[edge]


def _level_edges(ring: Points, ys: Points) -> tuple[NDArray[np.int64], Points, Points]:
    """Edges that lie in a row: its number, their left and right ends."""
    start, end = ring, np.roll(ring, -1, axis=0)
    first, last = np.searchsorted(ys, start[:, 1]), np.searchsorted(ys, start[:, 1], "right")
    edge = np.flatnonzero((start[:, 1] == end[:, 1]) & (last > first))
    ends = np.sort(np.stack([start[edge, 0], end[edge, 0]]), axis=0)
    return first[edge], ends[0], ends[1]


def _spread(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of ranges, ends excluded, one after the other: which range, and the number."""
    counts = last - first
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts - first, counts)


def _mark(place: NDArray[np.int8], rows: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> None:
    which, column = _spread(first, last)
    place[rows[which], column] = 0


def _corners_only(rings: Sequence[NDArray[Any]], pixel: tuple[float, float]) -> list[Points]:
    """Rings of a grid without points that repeat or lie on a straight line, in pixels of level 0."""
    if not rings:
        return []
    points, ring = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(each) for each in rings])
    is_new = (points != points[np.argsort(_following(ring))]).any(axis=1)
    points, ring = points[is_new], ring[is_new]
    after = points[_following(ring)] - points
    before = points - points[np.argsort(_following(ring))]
    is_corner = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    ends = np.searchsorted(ring[is_corner], np.arange(1, len(rings)))
    return np.split((points[is_corner] * np.array(pixel)).round(2), ends)


def _following(ring: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of the next point along its ring, of the points of many rings one after the other."""
    following = np.arange(1, len(ring) + 1)
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    following[np.append(first[1:], len(ring)) - 1] = first
    return following


def _window(ring: Points, shape: tuple[int, int], pixel: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of a mask that hold a ring."""
    first = np.clip(np.floor(ring.min(axis=0) / pixel), 0, shape[::-1]).astype(int)
    last = np.clip(np.ceil(ring.max(axis=0) / pixel), 0, shape[::-1]).astype(int)
    return slice(first[1], last[1]), slice(first[0], last[0])
