"""Lists of slides and their files, made for tests."""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.wsi.cohort.labels import Labels, read_labels
from pipelines.wsi.config import WsiConfig, WsiData
from vision_core.slides.features.files import Features, write_features

DIM = 6


def write_list(folder: Path, rows: Iterable[str], name: str = "labels.csv") -> Path:
    """A CSV of lines."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def labelled(folder: Path, rows: Iterable[str], classes: tuple[str, ...] = ()) -> Labels:
    """The list of lines, read."""
    return read_labels(write_list(folder, rows), classes)


def cohort_rows(num_patients: int, slides_each: int = 1) -> list[str]:
    """A header, and patients of the classes ``a`` and ``b`` by turns."""
    rows = ["slide,label,patient"]
    rows += [
        f"s{patient:02d}-{number},{'ab'[patient % 2]},p{patient:02d}"
        for patient in range(num_patients)
        for number in range(slides_each)
    ]
    return rows


def write_tiles(path: Path, num_tiles: int, dim: int = DIM, **attributes: Any) -> Path:  # noqa: ANN401
    """A feature file of fp16 in which row r is all r, counted anew from 2048 on; each file's tiles lie elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.repeat((np.arange(num_tiles) % 2048).astype(np.float16)[:, None], dim, axis=1)
    top = zlib.crc32(str(path).encode()) % 2**20
    corners = np.stack([np.arange(num_tiles) * 256, np.full(num_tiles, top)], axis=1).astype(np.int64)
    write_features(path, Features(features=rows, coords=corners, attributes=attributes))
    return path


def config_of(data: Mapping[str, object] | WsiData, **others: Any) -> WsiConfig:  # noqa: ANN401
    """A configuration with this data."""
    return WsiConfig.model_validate({"data": data, **others})
