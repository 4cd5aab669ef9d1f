"""Adopted feature files: JSON with missing attributes and the original's path."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vision_core.errors import InputError
from vision_core.files import parse_json, write_atomic
from vision_core.slides.features.files import Features, completed, read_features
from vision_core.slides.features.grids import ForeignGrid, read_grid
from vision_core.slides.features.hdf5 import checked_dataset, open_h5

ADOPTED_SUFFIX = ".adopted.json"
_FORMAT = 1


def read_any_features(path: Path, *, check: bool = True) -> Features:
    """Read a feature file, or the original of an adopted one.

    Args:
        path: A feature file, or ``<slide>.adopted.json``.
        check: Read every row once and refuse NaN and infinity.

    Raises:
        InputError: As of ``read_features``, or the original is missing or has changed.
    """
    if not path.name.endswith(ADOPTED_SUFFIX):
        return read_features(path, check=check)
    record = _read_record(path)
    original = path.parent / record["features"]
    if not original.is_file():
        raise InputError(f"'{path}': its features, '{original}', are gone. Put them back, or adopt them again.")
    if original.stat().st_size != record["bytes"]:
        raise InputError(
            f"'{original}' has changed since it was adopted. Adopt it again: python -m pipelines.wsi adopt."
        )
    features = read_features(original, check=check)
    if check and record.get("content") not in {None, features.content}:
        raise InputError(
            f"'{original}' has changed since it was adopted: its sum is another. Adopt it again: "
            "python -m pipelines.wsi adopt."
        )
    attributes = completed({**features.attributes, **record["attributes"]})
    coords, notes = features.coords, features.notes
    if record["coords"]:
        grid = read_patch_grid(path.parent / record["coords"])
        coords, notes = grid.corners, grid.notes
        if grid.stored is not None and len(grid.stored) != len(features):
            raise InputError(
                f"'{original}': {len(features)} rows of features, but {len(grid.stored)} coords in "
                f"'{path.parent / record['coords']}'. Adopt both again."
            )
    return replace(features, coords=coords, attributes=attributes, notes=notes)


def files_behind(path: Path) -> list[Path]:
    """List the files that ``read_any_features`` reads: the file itself, and the originals of an adopted one.

    Raises:
        InputError: The record of an adopted file is damaged.
    """
    if not path.name.endswith(ADOPTED_SUFFIX):
        return [path]
    record = _read_record(path)
    return [path, *(path.parent / name for name in (record["features"], record["coords"]) if name)]


def read_patch_grid(path: Path) -> ForeignGrid:
    """Read corners and attributes of a CLAM or TRIDENT file of tiles.

    Raises:
        InputError: The file is no complete HDF5 file, or holds no corners.
    """
    with open_h5(path) as file:
        checked_dataset(file, "coords")
        return read_grid(file)


def write_adopted(  # noqa: PLR0913 (what a record holds)
    folder: Path,
    slide: str,
    features: Path,
    coords: Path | None,
    attributes: Mapping[str, Any],
    content: str | None = None,
) -> Path:
    """Write ``<slide>.adopted.json``, with paths relative to its folder.

    Args:
        folder: Folder to write to.
        slide: Name of the slide.
        features: Path of the original.
        coords: Path of a file of corners, if the original has none, or others than of level 0.
        attributes: Attributes that the original lacks.
        content: Sum of the original (``Features.content``).
    """
    path = folder / f"{slide}{ADOPTED_SUFFIX}"
    record = {
        "format": _FORMAT,
        "features": _relative_path(folder, features),
        "bytes": features.stat().st_size,
        "coords": _relative_path(folder, coords) if coords else None,
        "attributes": dict(attributes),
        "content": content,
    }
    write_atomic(path, json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return path


def _relative_path(folder: Path, path: Path) -> str:
    return os.path.relpath(path.resolve(), folder.resolve())


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(path.read_bytes())
        is_whole = (
            record["format"] == _FORMAT
            and isinstance(record["features"], str)
            and isinstance(record["bytes"], int)
            and isinstance(record["coords"], str | None)
            and isinstance(record["attributes"], dict)
            and isinstance(record.get("content"), str | None)
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise InputError(f"'{path}' is damaged, or of another version. Adopt the features again.")
    return dict(record)
