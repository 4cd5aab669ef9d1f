"""Feature files, one for each slide.

Files of CLAM and TRIDENT, ``.pt`` and ``.npy`` are read as well. Our format is HDF5: ``features`` (N, D) in fp16 or
fp32, ``coords`` (N, 2) int64, the upper left corners in pixels of level 0, and attributes of the extraction at the
root, the encoder as JSON, and a sum of the content. No content of a file is ever executed.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.files import atomic_path
from vision_core.slides.features.foreign import read_npy, read_pt
from vision_core.slides.features.grids import read_grid, with_inferred_side
from vision_core.slides.features.hdf5 import (
    CHUNK_BYTES,
    H5Rows,
    Rows,
    create_h5,
    read_coords,
    row_blocks,
    rows_within,
    to_python,
)
from vision_core.slides.features.sums import SUM, ContentSum

FORMAT = "domainsight-features/1"
FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npy")
_AS_JSON = {"encoder", "left_out"}
Attributes = Mapping[str, Any]

_ENCODERS_BY_DIM = {
    192: "HIPT or ViT-T",
    320: "the last map of EfficientNet-Lite0",
    384: "ViT-S (Lunit DINO)",
    512: "PLIP, CONCH or ResNet-18",
    768: "CTransPath, CHIEF, CONCH v1.5 or Phikon",
    1024: "ResNet-50 truncated (CLAM), UNI or Phikon-v2",
    1280: "EfficientNet-Lite0 (lite0)",
    1536: "UNI2-h, Prov-GigaPath or H-optimus",
    2048: "ResNet-50",
    2560: "Virchow or Virchow2",
}


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of one slide's tiles.

    Attributes:
        features: ``(N, D)`` floats, in memory, memory-mapped, or read from a file when indexed (``H5Rows``).
        coords: ``(N, 2)`` int64, upper left corners ``(x, y)`` in pixels of level 0, where known.
        attributes: Of the extraction: ``mpp`` and ``tile_px`` of a tile, ``tile_side`` in pixels of level 0,
            ``slide_mpp``, ``encoder`` (its identity), ``slide``, ``slide_size`` and ``slide_ends`` (its stamp),
            ``storage``, ``fingerprint`` of the settings, ``software``, ``left_out`` (corners of tiles that could not
            be read). Of files made elsewhere, those that they have.
        facts: Numbers on the extraction for tables: seconds, tiles per second.
        notes: Remarks, one sentence each.
        content: Sum of rows and coords, where all rows were read.
        means: Means of the first features over all rows (``ContentSum.means``), where all rows were read.
    """

    features: Rows
    coords: NDArray[np.int64] | None = None
    attributes: Attributes = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    content: str = ""
    means: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.features.shape) != 2:
            raise ValueError(f"features: expected shape (tiles, features), found {self.features.shape}")
        if self.coords is not None and (self.coords.shape != (len(self), 2) or self.coords.dtype != np.int64):
            raise ValueError(f"coords: expected int64 ({len(self)}, 2), found {self.coords.dtype} {self.coords.shape}")

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def dim(self) -> int:
        """Return the number of features per tile."""
        return int(self.features.shape[1])


def write_features(path: Path, features: Features) -> None:
    """Write a file in our format atomically, in blocks of rows.

    Equal features give equal bytes.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    with atomic_path(path) as partial, create_h5(partial) as file:
        _write(file, features)


def read_features(path: Path, *, check: bool = True) -> Features:
    """Read a feature file; its rows are read when they are indexed.

    Args:
        path: ``.h5`` (ours, CLAM's, TRIDENT's), ``.pt`` or ``.npy``.
        check: Read every row once, refuse NaN and infinity, and compare the sum that was written with them.

    Raises:
        InputError: The file is damaged or has changed, is of another format or a pickle of objects, its rows refer to
            other files or are not finite, or features and coords differ in length.
    """
    suffix = path.suffix.lower()
    if suffix not in FEATURE_SUFFIXES:
        raise InputError(f"'{path}' is no file of features. Give one of {', '.join(FEATURE_SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"'{path}' is not a file. Give a file of features.")
    stated = None
    if suffix in {".h5", ".hdf5"}:
        features, stated = _read_h5(path)
    else:
        rows, coords = read_npy(path) if suffix == ".npy" else read_pt(path)
        features = _with_side(_build_features(path, rows, coords, {}))
    if not check:
        return features
    content, means = check_rows(features.features, path, stored_corners(features) if stated else None)
    if stated not in {None, content}:
        raise InputError(
            f"'{path}' does not have the sum that was written with it: it has changed, or is damaged. Fetch it again, "
            "or extract the features again."
        )
    return replace(features, content=content, means=means)


def check_finite(rows: Rows, path: Path) -> None:
    """Refuse rows with NaN or infinity in single precision.

    Raises:
        InputError: With the number of such rows and the first of them.
    """
    for _ in _finite_blocks(rows, path):
        pass


def check_rows(rows: Rows, path: Path, corners: NDArray[np.int64] | None = None) -> tuple[str, tuple[float, ...]]:
    """Read all rows once: check them as ``check_finite`` does; return the sum of rows and corners, and the means.

    Raises:
        InputError: As ``check_finite``.
    """
    content = ContentSum(rows.dtype, int(rows.shape[1]))
    for block in _finite_blocks(rows, path):
        content.add(block)
    return content.close(corners), content.means


def _finite_blocks(rows: Rows, path: Path) -> Iterator[NDArray[Any]]:
    """Iterate over the rows by blocks; at the end refuse those that are not finite."""
    count, first = 0, 0
    for start, block in row_blocks(rows):
        yield block
        if block.dtype.itemsize > np.dtype(np.float32).itemsize:
            with np.errstate(over="ignore"):
                block = block.astype(np.float32)
        if np.isfinite(block).all():
            continue
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        first = first if count else start + int(bad[0])
        count += len(bad)
    if count:
        raise InputError(f"'{path}': NaN or infinity in {count} of {len(rows)} rows, first {first}. Extract it again.")


def reason_not_reusable(path: Path, expected: Attributes) -> str:
    """Explain why existing features cannot be reused; empty if they can.

    Args:
        path: A file in our format; it may be missing.
        expected: Attributes that it must have. ``precision`` of an encoder may differ, so that a machine without bf16
            reuses the files of one that has it.
    """
    if not path.exists():
        return "there is no file yet"
    try:
        features = read_features(path, check=False)
    except InputError as error:
        return f"the file cannot be used ({' '.join(error.problems)})"
    if features.attributes.get("format") != FORMAT:
        return f"the file has format '{features.attributes.get('format')}', now '{FORMAT}'"
    changes = (_describe_change(name, features.attributes.get(name), value) for name, value in expected.items())
    return "; ".join(change for change in changes if change)


def _describe_change(name: str, found: Any, expected: Any) -> str:  # noqa: ANN401
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        names = [key for key in {**found, **expected} if key != "precision"]
        changes = (_describe_change(f"{name}.{key}", found.get(key), expected.get(key)) for key in names)
        return "; ".join(change for change in changes if change)
    if _is_equal(found, expected):
        return ""
    if name in {"slide_size", "slide_ends"}:
        return "the slide has changed since" if name == "slide_ends" else f"the slide had {found} bytes, now {expected}"
    return f"{name} was {found!r}, now {expected!r}"


def _is_equal(found: Any, expected: Any) -> bool:  # noqa: ANN401
    if isinstance(found, float) and isinstance(expected, float | int):
        return math.isclose(found, expected, rel_tol=1e-9)
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_is_equal, found, expected))
    return bool(found == expected)


def _write(file: Any, features: Features) -> None:  # noqa: ANN401
    rows = features.features
    for name, value in sorted({**features.attributes, "format": FORMAT}.items()):
        file.attrs[name] = json.dumps(value, sort_keys=True) if name in _AS_JSON else value
    chunks = (min(rows_within(rows, CHUNK_BYTES), len(rows)), features.dim) if len(rows) and features.dim else None
    stored = file.create_dataset("features", rows.shape, rows.dtype, chunks=chunks)
    content = ContentSum(stored.dtype, features.dim)
    for first, block in row_blocks(rows):
        stored[first : first + len(block)] = block
        content.add(block)
    if features.coords is not None:
        file.create_dataset("coords", data=features.coords)
    file.attrs[SUM] = content.close(features.coords)


def _read_h5(path: Path) -> tuple[Features, str | None]:
    """Read a file of HDF5, and the sum that it states."""
    rows = H5Rows(path)
    if to_python(rows.file.attrs.get("format")) != FORMAT:
        grid = read_grid(rows.file)
        _check_lengths(path, rows, grid.stored)
        features = Features(features=rows, coords=grid.corners, attributes=completed(grid.attributes), notes=grid.notes)
        return features, None
    coords = read_coords(rows.file) if "coords" in rows.file else None
    attributes = _own_attributes(rows.file, path)
    stated = attributes.pop(SUM, None)
    encoder = attributes.get("encoder")
    dim = encoder.get("dim", rows.shape[1]) if isinstance(encoder, Mapping) else rows.shape[1]
    if dim != rows.shape[1]:
        raise InputError(f"'{path}': {rows.shape[1]} features a tile, but its encoder gives {dim}. Extract it again.")
    return _with_side(_build_features(path, rows, coords, attributes)), stated


def stored_corners(features: Features) -> NDArray[np.int64] | None:
    """Return the corners as they stand in the file, also those that are of no use as pixels of level 0."""
    rows = features.features
    if not isinstance(rows, H5Rows) or "coords" not in rows.file:
        return features.coords
    return read_coords(rows.file)


def _with_side(features: Features) -> Features:
    """Complete the side of tiles whose corners are known."""
    if features.coords is None or features.attributes.get("tile_side"):
        return features
    grid = with_inferred_side(features.coords, features.attributes)
    return replace(features, coords=grid.corners, attributes=grid.attributes, notes=grid.notes)


def completed(attributes: Attributes) -> dict[str, Any]:
    """Add the slide's microns per pixel at level 0 where they follow from those of a tile."""
    stated = [attributes.get(name) for name in ("mpp", "tile_px", "tile_side")]
    numbers = [float(each) for each in stated if isinstance(each, int | float) and each > 0]
    if len(numbers) < len(stated) or attributes.get("slide_mpp"):
        return dict(attributes)
    mpp, tile_px, side = numbers
    return {**attributes, "slide_mpp": mpp * tile_px / side}


def _build_features(path: Path, rows: Rows, coords: NDArray[Any] | None, attributes: Attributes) -> Features:
    _check_lengths(path, rows, coords)
    return Features(features=rows, coords=None if coords is None else coords.astype(np.int64), attributes=attributes)


def _check_lengths(path: Path, rows: Rows, coords: NDArray[Any] | None) -> None:
    if coords is not None and len(coords) != rows.shape[0]:
        raise InputError(f"'{path}': {rows.shape[0]} rows of features, but {len(coords)} coords. Extract it again.")


def _own_attributes(file: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401
    attributes = {name: to_python(value) for name, value in file.attrs.items()}
    for name in _AS_JSON & set(attributes):
        try:
            attributes[name] = json.loads(attributes[name])
        except (ValueError, TypeError) as error:
            raise InputError(f"'{path}': its attribute '{name}' is damaged. Extract the features again.") from error
    return attributes


def check_dim(features: Features, expected: int, path: Path) -> None:
    """Refuse features of another dimension than a model takes.

    Raises:
        InputError: With the encoder of the file, or those known to give such features.
    """
    if features.dim == expected:
        return
    raise InputError(
        f"'{path}' has {features.dim} features a tile, the model takes {expected}: {_describe_source(features)}, the "
        f"model expects {describe_encoder(expected)}. Extract features with the encoder that the model was trained on."
    )


def describe_encoder(dim: int) -> str:
    """Name the encoders known to give features of a dimension."""
    return f"{_ENCODERS_BY_DIM[dim]} ({dim})" if dim in _ENCODERS_BY_DIM else f"an unknown encoder ({dim})"


def _describe_source(features: Features) -> str:
    encoder = features.attributes.get("encoder")
    if isinstance(encoder, Mapping) and "name" in encoder:
        return f"they are of '{encoder['name']}' ({features.dim})"
    return f"features look like {describe_encoder(features.dim)}"
