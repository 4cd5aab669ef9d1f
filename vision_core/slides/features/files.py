"""Files of features, one a slide: ours written and read, CLAM's, TRIDENT's, ``.pt`` and ``.npy`` read.

Ours is HDF5: ``features`` (N, D) in fp16 or fp32, ``coords`` (N, 2) int64, the upper left corners in pixels of level 0,
and at the root what they were made with, the encoder as JSON. Nothing that a file holds is ever run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.files import atomic_path
from vision_core.slides.features.foreign import foreign_attributes, read_npy, read_pt
from vision_core.slides.features.hdf5 import CHUNK_BYTES, H5Rows, Rows, blocks, dataset, plain, rows_in, writable_h5

FORMAT = "domainsight-features/1"
FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npy")
_AS_JSON = {"encoder", "left_out"}
Attributes = Mapping[str, Any]

_LOOK_LIKE = {
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
    """The features of one slide's tiles.

    Attributes:
        features: ``(N, D)`` floats, in memory, mapped, or read from a file as they are indexed (``H5Rows``).
        coords: ``(N, 2)`` int64, upper left corners ``(x, y)`` in pixels of level 0, where known.
        attributes: What they were made with: ``mpp`` and ``tile_px`` of a tile, ``tile_side`` in pixels of level 0,
            ``slide_mpp``, ``encoder`` (its identity), ``slide``, ``slide_size`` and ``slide_ends`` (its stamp),
            ``storage``, ``fingerprint`` of the settings, ``software``, ``left_out`` (corners of tiles that could not
            be read). Of files made elsewhere, what they say.
        facts: Numbers on how they were made, for tables: seconds, tiles per second.
        notes: What the person should know, each a sentence.
    """

    features: Rows
    coords: NDArray[np.int64] | None = None
    attributes: Attributes = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.features.shape) != 2:
            raise ValueError(f"features: expected shape (tiles, features), found {self.features.shape}")
        if self.coords is not None and (self.coords.shape != (len(self), 2) or self.coords.dtype != np.int64):
            raise ValueError(f"coords: expected int64 ({len(self)}, 2), found {self.coords.dtype} {self.coords.shape}")

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def dim(self) -> int:
        """Features of a tile."""
        return int(self.features.shape[1])


def write_features(path: Path, features: Features) -> None:
    """Write a file of ours, whole or not at all; the rows pass through memory a few megabytes at a time.

    The same features give the same bytes.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    with atomic_path(path) as partial, writable_h5(partial) as file:
        _write(file, features)


def read_features(path: Path, *, check: bool = True) -> Features:
    """Read a file of features; the rows stay in the file until they are indexed.

    Args:
        path: ``.h5`` (ours, CLAM's, TRIDENT's), ``.pt`` or ``.npy``.
        check: Read every row once and refuse NaN and infinity.

    Raises:
        InputError: Damaged, another format, a pickle of objects, rows that lead to other files or are not finite, or
            features and coords of different length.
    """
    suffix = path.suffix.lower()
    if suffix not in FEATURE_SUFFIXES:
        raise InputError(f"'{path}' is no file of features. Give one of {', '.join(FEATURE_SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"'{path}' is not a file. Give a file of features.")
    if suffix in {".h5", ".hdf5"}:
        features = _read_h5(path)
    else:
        rows, coords = read_npy(path) if suffix == ".npy" else read_pt(path)
        features = _checked_lengths(path, rows, coords, {})
    if check:
        check_rows(features.features, path)
    return features


def check_rows(rows: Rows, path: Path) -> None:
    """Refuse rows with NaN or infinity in single precision, in which they are used.

    Raises:
        InputError: Says how many, and which is the first.
    """
    count, first = 0, 0
    for start, block in blocks(rows):
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


def why_again(path: Path, wanted: Attributes) -> str:
    """Why the features at ``path`` must be made again; empty when they are whole and as wanted.

    Args:
        path: A file of ours, or none.
        wanted: Attributes that it must have. Of an encoder, ``precision`` may differ: a machine without bf16 goes on
            with the files of one that has it.
    """
    if not path.exists():
        return "there is no file yet"
    try:
        features = read_features(path, check=False)
    except InputError as error:
        return f"the file cannot be used ({' '.join(error.problems)})"
    if features.attributes.get("format") != FORMAT:
        return f"the file has format '{features.attributes.get('format')}', now '{FORMAT}'"
    changes = (_change(name, features.attributes.get(name), value) for name, value in wanted.items())
    return "; ".join(change for change in changes if change)


def _change(name: str, found: Any, wanted: Any) -> str:  # noqa: ANN401
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        names = [key for key in {**found, **wanted} if key != "precision"]
        changes = (_change(f"{name}.{key}", found.get(key), wanted.get(key)) for key in names)
        return "; ".join(change for change in changes if change)
    if _are_same(found, wanted):
        return ""
    if name in {"slide_size", "slide_ends"}:
        return "the slide has changed since" if name == "slide_ends" else f"the slide had {found} bytes, now {wanted}"
    return f"{name} was {found!r}, now {wanted!r}"


def _are_same(found: Any, wanted: Any) -> bool:  # noqa: ANN401
    if isinstance(found, float) and isinstance(wanted, float | int):
        return math.isclose(found, wanted, rel_tol=1e-9)
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(_are_same, found, wanted))
    return bool(found == wanted)


def _write(file: Any, features: Features) -> None:  # noqa: ANN401
    rows = features.features
    for name, value in sorted({**features.attributes, "format": FORMAT}.items()):
        file.attrs[name] = json.dumps(value, sort_keys=True) if name in _AS_JSON else value
    chunks = (min(rows_in(rows, CHUNK_BYTES), len(rows)), features.dim) if len(rows) and features.dim else None
    stored = file.create_dataset("features", rows.shape, rows.dtype, chunks=chunks)
    for first, block in blocks(rows):
        stored[first : first + len(block)] = block
    if features.coords is not None:
        file.create_dataset("coords", data=features.coords)


def _read_h5(path: Path) -> Features:
    rows = H5Rows(path)
    coords = _coords(rows.file, path) if "coords" in rows.file else None
    is_ours = plain(rows.file.attrs.get("format")) == FORMAT
    attributes = _own_attributes(rows.file, path) if is_ours else foreign_attributes(rows.file)
    encoder = attributes.get("encoder") if is_ours else None
    dim = encoder.get("dim", rows.shape[1]) if isinstance(encoder, Mapping) else rows.shape[1]
    if dim != rows.shape[1]:
        raise InputError(f"'{path}': {rows.shape[1]} features a tile, but its encoder gives {dim}. Extract it again.")
    return _checked_lengths(path, rows, coords, attributes)


def _checked_lengths(path: Path, rows: Rows, coords: NDArray[Any] | None, attributes: Attributes) -> Features:
    if coords is not None and len(coords) != rows.shape[0]:
        raise InputError(f"'{path}': {rows.shape[0]} rows of features, but {len(coords)} coords. Extract it again.")
    return Features(features=rows, coords=None if coords is None else coords.astype(np.int64), attributes=attributes)


def _coords(file: Any, path: Path) -> NDArray[Any]:  # noqa: ANN401
    found = dataset(file, "coords")
    if len(found.shape or ()) != 2 or found.shape[1] != 2 or found.dtype.kind not in "iuf":
        raise InputError(f"'{path}': coords have shape {found.shape} and type {found.dtype}; expected (tiles, 2).")
    coords = np.asarray(found[:])
    if coords.dtype.kind == "f" and not (np.isfinite(coords).all() and (coords == np.round(coords)).all()):
        raise InputError(f"'{path}': coords are no whole pixels of level 0. Write corners (x, y) in pixels.")
    return coords


def _own_attributes(file: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401
    attributes = {name: plain(value) for name, value in file.attrs.items()}
    for name in _AS_JSON & set(attributes):
        try:
            attributes[name] = json.loads(attributes[name])
        except (ValueError, TypeError) as error:
            raise InputError(f"'{path}': its attribute '{name}' is damaged. Extract the features again.") from error
    return attributes


def check_dim(features: Features, expected: int, path: Path) -> None:
    """Refuse features of another width than a model takes.

    Raises:
        InputError: Names the encoder that the file says, else those that give such features.
    """
    if features.dim == expected:
        return
    raise InputError(
        f"'{path}' has {features.dim} features a tile, the model takes {expected}: {_source(features)}, "
        f"the model expects {described(expected)}. Extract features with the encoder that the model was trained on."
    )


def described(dim: int) -> str:
    """The encoders known to give so many features, with the number."""
    return f"{_LOOK_LIKE[dim]} ({dim})" if dim in _LOOK_LIKE else f"an unknown encoder ({dim})"


def _source(features: Features) -> str:
    encoder = features.attributes.get("encoder")
    if isinstance(encoder, Mapping) and "name" in encoder:
        return f"they are of '{encoder['name']}' ({features.dim})"
    return f"features look like {described(features.dim)}"
