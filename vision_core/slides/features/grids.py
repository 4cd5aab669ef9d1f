"""Grids of tiles in files made elsewhere: corners in pixels of level 0, side of a tile, microns per pixel.

Programs write corners in pixels of level 0 (CLAM's later versions, TRIDENT), in pixels of the level that was read
(CLAM's first version, whose files hold the pictures ``imgs``) or in microns (STAMP), and say more or less about it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.slides.features.hdf5 import checked_dataset, read_coords, to_python

Corners = NDArray[np.int64]

_IMAGES = "imgs"
_MICRONS = frozenset({"um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"})
_LEAST_SHARE = 0.5  # of neighbours that are as far apart as most
_LEAST_NEIGHBOURS = 3
_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class ForeignGrid:
    """Corners and attributes of tiles.

    Attributes:
        corners: ``(N, 2)`` int64, in pixels of level 0; None where the file does not tell them.
        stored: The corners as they stand in the file, None where they are no whole numbers.
        attributes: What the file says, and ours that follow from it: ``origin``, ``tile_px``, ``tile_side``, ``mpp``,
            ``slide_mpp``.
        notes: What was inferred or cannot be used, one sentence each.
    """

    corners: Corners | None = None
    stored: Corners | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_grid(file: Any) -> ForeignGrid:  # noqa: ANN401 (h5py carries no types)
    """Read the grid of an HDF5 file that another program wrote.

    CLAM: ``patch_size`` in pixels of ``patch_level``, with the level's ``downsample``; with ``custom_downsample``,
    tiles were reduced that often before they were encoded. TRIDENT: ``patch_size`` at the ``target_magnification``,
    ``patch_size_level0``. STAMP: ``tile_size_um`` and ``tile_size_px``, corners in microns. A magnification is nominal,
    so microns per pixel do not follow from it.

    Raises:
        InputError: As of ``read_coords``.
    """
    said = _said(file)
    if str(said.get("unit", "")).lower() in _MICRONS:
        return _grid_in_microns(said)
    stored = read_coords(file) if "coords" in file else None
    if _IMAGES in file:
        return _grid_of_images(file, said, stored)
    ours = _sides(said)
    if stored is None:
        return ForeignGrid(attributes={**said, **ours})
    if stored.min(initial=0) < 0:
        least = stored.min(axis=0)
        note = f"Corners from x {least[0]}, y {least[1]} on lie outside the slide: no tiles are drawn."
        return ForeignGrid(stored=stored, attributes={**said, **ours}, notes=(note,))
    if len(stored) > 1 and bool((stored == stored[0]).all()):
        note = f"All {len(stored)} tiles lie at one place: no tiles are drawn."
        return ForeignGrid(stored=stored, attributes={**said, **ours}, notes=(note,))
    if not ours.get("tile_side"):
        return with_inferred_side(stored, {**said, **ours})
    return _checked(stored, {**said, **ours})


def with_inferred_side(corners: Corners, attributes: Mapping[str, Any]) -> ForeignGrid:
    """Complete the side of a tile by the distance of neighbours; without a regular one, the corners are dropped."""
    step = grid_step(corners)
    if step is None:
        note = "The file does not say how large its tiles are, nor does their grid: no tiles are drawn."
        told = (note,) if len(corners) else ()
        return ForeignGrid(corners=None if len(corners) else corners, stored=corners, attributes=attributes, notes=told)
    note = (
        f"The file does not say how large its tiles are: {step} px of level 0 were inferred from their grid. It would "
        "be wrong of tiles that overlap, or of corners in pixels of another level."
    )
    return ForeignGrid(corners=corners, stored=corners, attributes={**attributes, "tile_side": step}, notes=(note,))


def grid_step(corners: Corners) -> int | None:
    """Compute the distance of most neighbours in rows and columns; None where they have no common one."""
    steps = [_axis_step(corners[:, axis], corners[:, 1 - axis]) for axis in (0, 1)]
    known = {step for step in steps if step}
    return known.pop() if len(known) == 1 else None


def _axis_step(along: NDArray[np.int64], across: NDArray[np.int64]) -> int | None:
    order = np.lexsort((along, across))
    gaps = np.diff(along[order])[np.diff(across[order]) == 0]
    gaps = gaps[gaps > 0]
    if len(gaps) < _LEAST_NEIGHBOURS:
        return None
    values, counts = np.unique(gaps, return_counts=True)
    most = int(np.argmax(counts))
    return int(values[most]) if counts[most] >= _LEAST_SHARE * len(gaps) else None


def _said(file: Any) -> dict[str, Any]:  # noqa: ANN401
    """Collect attributes of the file, its features, pictures and corners; the last say most."""
    holders = [file, *(file[name] for name in ("features", "feats", _IMAGES, "coords") if name in file)]
    return {name: to_python(value) for holder in holders for name, value in holder.attrs.items()}


def _grid_in_microns(said: Mapping[str, Any]) -> ForeignGrid:
    side_um, tile_px = _number(said, "tile_size_um") or _number(said, "tile_size"), _number(said, "tile_size_px")
    ours: dict[str, Any] = {"origin": "STAMP"}
    if tile_px:
        ours |= {"tile_px": round(tile_px), **({"mpp": side_um / tile_px} if side_um else {})}
    note = "The places of the tiles are written in microns, not in pixels of the slide: no tiles are drawn."
    return ForeignGrid(attributes={**said, **ours}, notes=(note,))


def _grid_of_images(file: Any, said: Mapping[str, Any], stored: Corners | None) -> ForeignGrid:  # noqa: ANN401
    """Scale the corners of CLAM's first version, which are in pixels of the level that was read."""
    shape: tuple[int, ...] = checked_dataset(file, _IMAGES).shape or ()
    reduction = _level_downsample(said)
    ratio = _ratio(said.get("level_dim"), said.get("downsampled_level_dim"))
    times = _number(said, "custom_downsample") or ratio or 1.0
    if reduction is None or len(shape) != 4 or stored is None:
        note = "The file holds pictures of tiles, but not of which level they are: no tiles are drawn."
        return ForeignGrid(stored=stored, attributes=said, notes=(note,))
    scale = reduction * times
    ours = {"origin": "CLAM", "tile_px": int(shape[1]), "tile_side": round(shape[1] * scale)}
    corners = np.round(stored * scale).astype(np.int64)
    notes = (f"Corners in pixels of a level {scale:g} times reduced were multiplied.",) if scale != 1 else ()
    return ForeignGrid(corners=corners, stored=stored, attributes={**said, **ours}, notes=notes)


def _sides(said: Mapping[str, Any]) -> dict[str, Any]:
    """Derive the side of a tile in its own pixels, and in pixels of level 0."""
    patch_px, level0_px = _number(said, "patch_size"), _number(said, "patch_size_level0")
    if not patch_px:
        return {}
    if level0_px:
        return {"origin": "TRIDENT", "tile_px": round(patch_px), "tile_side": round(level0_px)}
    target_px = _number(said, "target_patch_size") or patch_px / (_number(said, "custom_downsample") or 1.0)
    reduction = _level_downsample(said)
    if reduction is None:
        return {}
    return {"origin": "CLAM", "tile_px": round(target_px), "tile_side": round(patch_px * reduction)}


def _level_downsample(said: Mapping[str, Any]) -> float | None:
    return _number(said, "downsample") or (1.0 if _number(said, "patch_level") == 0 else None)


def _checked(corners: Corners, attributes: Mapping[str, Any]) -> ForeignGrid:
    """Drop corners that contradict what is said of the slide or of the tiles."""
    side, step = attributes["tile_side"], grid_step(corners)
    patch_px = _number(attributes, "patch_size") or 0
    size = (_number(attributes, "level0_width"), _number(attributes, "level0_height"))
    reach = corners.max(axis=0, initial=0)
    note = ""
    if attributes["origin"] == "CLAM" and step == round(patch_px) != side:
        note = f"Tiles of {side} px of level 0 are only {step} px apart, as if corners were in pixels of another level"
    elif any(limit and reach[axis] >= limit for axis, limit in enumerate(size)):
        note = f"Corners up to x {reach[0]}, y {reach[1]} lie outside the slide that the file states"
    if note:
        return ForeignGrid(stored=corners, attributes=attributes, notes=(f"{note}: no tiles are drawn.",))
    return ForeignGrid(corners=corners, stored=corners, attributes=attributes)


def _ratio(whole: Any, reduced: Any) -> float | None:  # noqa: ANN401
    """Divide two sizes; None unless both are ``(width, height)``."""
    try:
        (width, height), (other_width, other_height) = whole, reduced
        ratios = float(width) / float(other_width), float(height) / float(other_height)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    nearest = max(1, round(ratios[0]))
    return float(nearest) if all(math.isclose(each, nearest, rel_tol=_TOLERANCE) for each in ratios) else None


def _number(said: Mapping[str, Any], name: str) -> float | None:
    """Read a number from 0 on; of a pair of nearly equal ones, as both sides of a tile have, the first."""
    value = said.get(name)
    values: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [float(each) for each in values]
    except (TypeError, ValueError):
        return None
    if not numbers or not all(math.isfinite(each) and each >= 0 for each in numbers):
        return None
    return numbers[0] if max(numbers) <= min(numbers) * (1 + _TOLERANCE) else None
