"""Regions as polygons with holes, converted from and to masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

_EDGE_TOLERANCE_PX = 1e-6  # of a pixel


@dataclass(frozen=True, kw_only=True)
class Region:
    """Polygon with holes.

    Attributes:
        outline: ``(n, 2)`` float64, ``(x, y)`` in pixels of level 0; the first point is not repeated at the end.
        holes: Outlines of the holes, ``(m, 2)`` each.
    """

    outline: Points
    holes: tuple[Points, ...] = ()


def mask_to_regions(mask: Mask, pixel_size: tuple[float, float]) -> tuple[Region, ...]:
    """Trace the regions of a mask along the edges of its pixels.

    ``regions_to_mask`` is the inverse.

    Args:
        mask: ``(H, W)`` bool in which no two pixels meet at a corner alone (``join_diagonal_pixels``).
        pixel_size: Width and height of a pixel in pixels of level 0.

    Returns:
        One region for each connected component; rings neither cross nor touch.
    """
    # With each pixel divided into quarters, a contour through the centres of quarters, moved to the nearest corners of
    # the pixels, runs along their edges.
    height, width = mask.shape
    quarters = np.broadcast_to(mask.view(np.uint8)[:, None, :, None], (height, 2, width, 2)).reshape(2 * height, -1)
    found, tree = cv2.findContours(quarters, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = _drop_collinear_points([(np.asarray(ring)[:, 0] + 1) // 2 for ring in found], pixel_size)
    return tuple(
        Region(outline=rings[number], holes=tuple(rings[hole] for hole in holes))
        for number, holes in holes_by_outline(tree).items()
    )


def holes_by_outline(tree: NDArray[Any] | None) -> dict[int, list[int]]:
    """Group OpenCV's two-level contour tree: indices of holes by index of outline."""
    nodes = [] if tree is None else np.asarray(tree)[0].tolist()
    holes: dict[int, list[int]] = {number: [] for number, node in enumerate(nodes) if node[3] < 0}
    for number, node in enumerate(nodes):
        if node[3] >= 0:
            holes[node[3]].append(number)
    return holes


def join_diagonal_pixels(mask: Mask) -> Mask:
    """Join pixels that meet at a corner alone.

    Else the outline would touch itself there, which no valid polygon does.
    """
    joined = mask.copy()
    while True:
        a, b, c, d = joined[:-1, :-1], joined[:-1, 1:], joined[1:, :-1], joined[1:, 1:]
        falling, rising = a & d & ~b & ~c, b & c & ~a & ~d
        if not (falling.any() or rising.any()):
            return joined
        b |= falling
        a |= rising


def regions_to_mask(regions: Sequence[Region], shape: tuple[int, int], pixel_size: tuple[float, float]) -> Mask:
    """Rasterize regions: ``shape`` bool, true where a pixel's centre is inside.

    Args:
        regions: They may overlap.
        shape: ``(height, width)`` of the mask, which begins at the slide's upper left corner.
        pixel_size: Width and height of a pixel in pixels of level 0.
    """
    mask = np.zeros(shape, bool)
    for region in regions:
        rows, columns = _bounding_slices(region.outline, shape, pixel_size)
        xs = (np.arange(columns.start, columns.stop) + 0.5) * pixel_size[0]
        ys = (np.arange(rows.start, rows.stop) + 0.5) * pixel_size[1]
        mask[rows, columns] |= _points_in_any([region.outline], xs, ys) & ~_points_in_any(region.holes, xs, ys)
    return mask


def locate_in_polygon(ring: Points, xs: Points, ys: Points) -> NDArray[np.int8]:
    """Locate the points of a grid relative to a polygon (even-odd rule).

    Args:
        ring: ``(n, 2)``, may cross itself.
        xs: ``(w,)`` ascending.
        ys: ``(h,)`` ascending.

    Returns:
        ``(h, w)`` int8: 1 inside, 0 on the edge, -1 outside.
    """
    _, rows, crossings, is_end = _row_crossings(ring, np.roll(ring, -1, axis=0), ys)
    flips = np.zeros((len(ys), len(xs) + 1), np.int8)
    np.bitwise_xor.at(flips, (rows[~is_end], np.searchsorted(xs, crossings[~is_end])), 1)
    location = np.bitwise_xor.accumulate(flips, axis=1)[:, :-1]
    location += location - 1
    _mark_boundary(location, xs, rows, (crossings, crossings))
    rows, left, right = _horizontal_edges(ring, ys)
    _mark_boundary(location, xs, rows, (left, right))
    return location


def _points_in_any(rings: Sequence[Points], xs: Points, ys: Points) -> Mask:
    """Find the points of a grid inside any of many rings."""
    if not rings:
        return np.zeros((len(ys), len(xs)), bool)
    points, ring = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(each) for each in rings])
    edge, rows, crossings, is_end = _row_crossings(points, points[_next_in_ring(ring)], ys)
    order = np.lexsort((crossings, rows, ring[edge]))
    order = order[~is_end[order]]
    # Along a row, crossings enter and leave a ring alternately.
    steps = np.zeros((len(ys), len(xs) + 1), np.int32)
    for first, step in ((0, 1), (1, -1)):
        turns = order[first::2]
        np.add.at(steps, (rows[turns], np.searchsorted(xs, crossings[turns])), step)
    return np.asarray(np.cumsum(steps, axis=1, out=steps)[:, :-1] > 0)


def _row_crossings(start: Points, end: Points, ys: Points) -> tuple[NDArray[np.int64], NDArray[np.int64], Points, Mask]:
    """Intersect edges with rows.

    Returns:
        Index of the edge, index of the row, x, and whether the edge's lower end lies on the row. Such an end lies on
        the ring, but is not counted as a crossing: the edge that begins there is.
    """
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = np.searchsorted(ys, low), np.searchsorted(ys, high, "right")
    edge, row = _expand_ranges(first, np.where(low == high, first, last))
    share = (ys[row] - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    return edge, row, start[edge, 0] + share * (end[edge, 0] - start[edge, 0]), ys[row] == high[edge]


def _horizontal_edges(ring: Points, ys: Points) -> tuple[NDArray[np.int64], Points, Points]:
    """Find the edges along a row: its index, left and right ends."""
    start, end = ring, np.roll(ring, -1, axis=0)
    first, last = np.searchsorted(ys, start[:, 1]), np.searchsorted(ys, start[:, 1], "right")
    edge = np.flatnonzero((start[:, 1] == end[:, 1]) & (last > first))
    ends = np.sort(np.stack([start[edge, 0], end[edge, 0]]), axis=0)
    return first[edge], ends[0], ends[1]


def _expand_ranges(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Expand half-open ranges to integers, with the index of their range."""
    counts = last - first
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts - first, counts)


def _mark_boundary(
    location: NDArray[np.int8], xs: Points, rows: NDArray[np.int64], ends: tuple[Points, Points]
) -> None:
    """Set points of rows between two ends to 0, in place."""
    first = np.searchsorted(xs, ends[0] - _EDGE_TOLERANCE_PX)
    last = np.searchsorted(xs, ends[1] + _EDGE_TOLERANCE_PX, "right")
    which, column = _expand_ranges(first, last)
    location[rows[which], column] = 0


def _drop_collinear_points(rings: Sequence[NDArray[Any]], pixel_size: tuple[float, float]) -> list[Points]:
    """Drop repeated and collinear points, and scale rings to level 0."""
    if not rings:
        return []
    points, ring = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(each) for each in rings])
    is_new = (points != points[np.argsort(_next_in_ring(ring))]).any(axis=1)
    points, ring = points[is_new], ring[is_new]
    after = points[_next_in_ring(ring)] - points
    before = points - points[np.argsort(_next_in_ring(ring))]
    is_corner = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    ends = np.searchsorted(ring[is_corner], np.arange(1, len(rings)))
    return np.split((points[is_corner] * np.array(pixel_size)).round(2), ends)


def _next_in_ring(ring: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute the index of the next point along its ring.

    Args:
        ring: ``(n,)`` index of the ring of each point, ascending.
    """
    following = np.arange(1, len(ring) + 1)
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    following[np.append(first[1:], len(ring)) - 1] = first
    return following


def _bounding_slices(ring: Points, shape: tuple[int, int], pixel_size: tuple[float, float]) -> tuple[slice, slice]:
    """Compute the rows and columns of a mask that hold a ring."""
    first = np.clip(np.floor(ring.min(axis=0) / pixel_size), 0, shape[::-1]).astype(int)
    last = np.clip(np.ceil(ring.max(axis=0) / pixel_size), 0, shape[::-1]).astype(int)
    return slice(first[1], last[1]), slice(first[0], last[0])
