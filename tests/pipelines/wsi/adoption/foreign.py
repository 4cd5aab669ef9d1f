"""Folders as CLAM and TRIDENT leave them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from tests.pipelines.wsi.lists import write_list

DIM = 5


def rows(num_tiles: int, dim: int = DIM) -> NDArray[np.float32]:
    """Features of a slide."""
    return np.arange(num_tiles * dim, dtype=np.float32).reshape(num_tiles, dim)


def corners(num_tiles: int, side: int = 512) -> NDArray[np.int64]:
    """Tiles beside each other."""
    return np.stack([np.arange(num_tiles) * side, np.zeros(num_tiles, int)], axis=1).astype(np.int64)


def write_h5(path: Path, data: Mapping[str, NDArray[Any]], of_coords: Mapping[str, Any]) -> Path:
    """An HDF5 file, with attributes on its corners."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file[name] = values
        for name, value in of_coords.items():
            file["coords"].attrs[name] = value
    return path


def patch_attributes(level: int = 0, downsample: float = 1.0, patch_size: int = 512) -> dict[str, Any]:
    """What CLAM writes about its patches."""
    return {
        "patch_size": patch_size,
        "patch_level": level,
        "downsample": np.array([downsample, downsample]),
        "level_dim": np.array([4096, 4096]),
        "downsampled_level_dim": np.array([4096, 4096]),
        "name": "s",
        "save_path": "patches",
    }


def make_clam(folder: Path, tiles: Mapping[str, int], *, has_h5: bool = True, **patch: Any) -> Path:  # noqa: ANN401
    """``h5_files`` without attributes or ``pt_files`` without corners, ``patches``, labels by turns."""
    for name, count in tiles.items():
        if has_h5:
            write_h5(folder / "h5_files" / f"{name}.h5", {"features": rows(count), "coords": corners(count)}, {})
        (folder / "pt_files").mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(rows(count)), folder / "pt_files" / f"{name}.pt")
        write_h5(folder / "patches" / f"{name}.h5", {"coords": corners(count)}, patch_attributes(**patch))
    labels = [f"case{place // 2},{name},{'xy'[place % 2]}" for place, name in enumerate(tiles)]
    write_list(folder / "dataset_csv", ["case_id,slide_id,label", *labels], "task.csv")
    write_list(folder, ["slide_id,status", *(f"{name}.svs,processed" for name in tiles)], "process_list_autogen.csv")
    return folder


def write_splits(folder: Path, number: int, train: Sequence[str], val: Sequence[str], test: Sequence[str]) -> Path:
    """One of CLAM's files of splits, with its two companions."""
    longest = max(len(train), len(val), len(test))
    padded = [[*names, *[""] * (longest - len(names))] for names in (train, val, test)]
    lines = [
        ",train,val,test",
        *(f"{place},{','.join(names)}" for place, names in enumerate(zip(*padded, strict=True))),
    ]
    every = [*train, *val, *test]
    write_list(
        folder / "splits",
        [",train,val,test", *(f"{name},True,False,False" for name in every)],
        f"splits_{number}_bool.csv",
    )
    write_list(folder / "splits", [",train,val,test", "x,1,2,3"], f"splits_{number}_descriptor.csv")
    return write_list(folder / "splits", lines, f"splits_{number}.csv")


def make_trident(folder: Path, tiles: Mapping[str, int], magnification: float = 20.0) -> Path:
    """``20x_256px_0px_overlap`` with patches and features of UNI."""
    grid = folder / f"{magnification:g}x_256px_0px_overlap"
    said = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": magnification,
        "overlap": 0,
        "name": "s",
        "savetodir": "x",
    }
    for name, count in tiles.items():
        write_h5(grid / "patches" / f"{name}_patches.h5", {"coords": corners(count)}, said)
        data: dict[str, NDArray[Any]] = {"features": rows(count), "coords": corners(count)}
        write_h5(grid / "features_uni_v1" / f"{name}.h5", data, said)
    return folder
