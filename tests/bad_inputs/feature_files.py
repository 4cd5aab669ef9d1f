"""Feature files that no verb may use: each in a cohort of sound ones, the bad one on the validation list."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from tests.pipelines.wsi.tiny import DIM, make_features
from vision_core.slides.features.files import Features, write_features

BAD = "s4"


def _cohort(folder: Path, suffix: str = ".h5") -> Path:
    """The path of the bad file, which is not yet there."""
    path = make_features(folder) / "features" / f"{BAD}.h5"
    path.unlink()
    return path.with_suffix(suffix)


def _of(folder: Path, content: bytes, suffix: str = ".h5") -> Path:
    path = _cohort(folder, suffix)
    path.write_bytes(content)
    return path


def _sets(folder: Path, **sets: Any) -> Path:  # noqa: ANN401 (of any type, on purpose)
    path = _cohort(folder)
    with h5py.File(path, "w") as file:
        for name, values in sets.items():
            file[name] = values
    return path


def _rows(value: float | None = None, dtype: str = "f4") -> np.ndarray:
    rows = np.ones((9, DIM), dtype)
    if value is not None:
        rows[3, 1] = value
    return rows


def empty(folder: Path) -> Path:
    """A file of no bytes."""
    return _of(folder, b"")


def web_page(folder: Path) -> Path:
    """A login page that a download saved."""
    return _of(folder, b"<!DOCTYPE html><title>Log in</title>")


def pointer(folder: Path) -> Path:
    """A Git LFS pointer."""
    return _of(folder, b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")


def half(folder: Path) -> Path:
    """The first half of a file."""
    path = make_features(folder) / "features" / f"{BAD}.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def flipped(folder: Path) -> Path:
    """One number of a row that was changed after the file was written."""
    path = make_features(folder) / "features" / f"{BAD}.h5"
    with h5py.File(path, "r+") as file:
        file["features"][1, 2] += 0.5
    return path


def infinite_half(folder: Path) -> Path:
    """An overflow of fp16."""
    return _sets(folder, features=_rows(np.inf, "f2"))


def not_a_number(folder: Path) -> Path:
    """A NaN in a tensor of torch."""
    path = _cohort(folder, ".pt")
    torch.save(torch.from_numpy(_rows(np.nan)), path)
    return path


def beyond_float32(folder: Path) -> Path:
    """Numbers of 64 bits that are none in 32."""
    return _sets(folder, features=_rows(1e300, "f8"))


def whole_numbers(folder: Path) -> Path:
    """Bytes, as pixels are."""
    return _sets(folder, features=_rows(dtype="u1"))


def one_axis(folder: Path) -> Path:
    """One vector for the whole slide."""
    return _sets(folder, features=np.ones(DIM, "f4"))


def turned(folder: Path) -> Path:
    """Features by tiles: the axes exchanged."""
    return _sets(folder, features=np.ascontiguousarray(_rows().T))


def fewer_corners(folder: Path) -> Path:
    """Nine rows and eight corners."""
    return _sets(folder, features=_rows(), coords=np.zeros((8, 2), "i8"))


def turned_corners(folder: Path) -> Path:
    """Corners as two rows, x and y."""
    return _sets(folder, features=_rows(), coords=np.zeros((2, 9), "i8"))


def no_rows(folder: Path) -> Path:
    """A data set of another name."""
    return _sets(folder, embeddings_of_what=_rows())


def code(folder: Path) -> Path:
    """An array of objects, which is a pickle."""
    path = _cohort(folder, ".npy")
    np.save(path, np.array([print, 1], object), allow_pickle=True)
    return path


def pickled(folder: Path) -> Path:
    """A plain pickle of an array, as scripts write them."""
    return _of(folder, pickle.dumps({"features": _rows()}), ".pt")


def other_microns(folder: Path) -> Path:
    """Tiles of another size of pixel than those of the others."""
    return _stated(folder, {"mpp": 1.0})


def _stated(folder: Path, changed: Mapping[str, Any]) -> Path:
    path = _cohort(folder)
    corners = np.stack([np.arange(9) * 64, np.zeros(9)], axis=1).astype(np.int64)
    stated = {"mpp": 0.5, "tile_px": 64, "tile_side": 64, "slide_mpp": 0.5} | dict(changed)
    write_features(path, Features(features=_rows(), coords=corners, attributes=stated))
    return path
