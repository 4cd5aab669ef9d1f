"""The museum of bad frames with observers' masks: code that makes each of them, a function for each row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.pipelines.ultrasound.tiny import SIZE, make_h5

Make = Callable[[Path], Path]


def f19_no_number(folder: Path) -> Path:
    """A key without the numbers of subject and frame."""
    return _changed(folder, lambda file: file.move("frame_0000_001", "frame_a"))


def f19_missing_label(folder: Path) -> Path:
    """A frame that no observer has seen."""

    def change(file: Any) -> None:  # noqa: ANN401 (h5py carries no types)
        for observer in range(3):
            del file[f"label_0001_002_{observer:02d}"]

    return _changed(folder, change)


def f19_two_layouts(folder: Path) -> Path:
    """Keys of both layouts in one file."""

    def change(file: Any) -> None:  # noqa: ANN401
        file["frame_00007"], file["label_00007_00"] = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)

    return _changed(folder, change)


def f19_link(folder: Path) -> Path:
    """A key that leads to another file."""

    def change(file: Any) -> None:  # noqa: ANN401
        del file["frame_0000_000"]
        file["frame_0000_000"] = h5py.ExternalLink("elsewhere.h5", "/frame")

    return _changed(folder, change)


def f19_no_hdf5(folder: Path) -> Path:
    """Words under the name of an HDF5 file."""
    make_h5(folder)
    (folder / "frames.h5").write_text("no frames at all " * 40, encoding="utf-8")
    return folder


def f21_subject_in_two_lists(folder: Path) -> Path:
    """A subject that is trained on and validated on."""
    return _listed(folder, lambda lists: lists["val"].append(lists["train"][0]))


def f21_subject_in_no_list(folder: Path) -> Path:
    """A subject of the data that the lists have forgotten."""
    return _listed(folder, lambda lists: lists["train"].pop())


def f21_same_picture(folder: Path) -> Path:
    """A frame of a training subject under the name of a validation subject."""

    def change(file: Any) -> None:  # noqa: ANN401
        file["frame_0004_001"][...] = file["frame_0000_001"][...]

    return _changed(folder, change)


def f20_other_values(folder: Path) -> Path:
    """A mask of three values."""

    def change(file: Any) -> None:  # noqa: ANN401
        file["label_0004_001_00"][0, :2] = 3, 4

    return _changed(folder, change)


def f20_other_size(folder: Path) -> Path:
    """A mask that is larger than its frame."""

    def change(file: Any) -> None:  # noqa: ANN401
        del file["label_0004_001_01"]
        file["label_0004_001_01"] = np.zeros((SIZE[0] + 1, SIZE[1]), np.uint8)

    return _changed(folder, change)


def f20_colours(folder: Path) -> Path:
    """A frame of three channels."""

    def change(file: Any) -> None:  # noqa: ANN401
        del file["frame_0004_001"]
        file["frame_0004_001"] = np.zeros((*SIZE, 3), np.uint8)

    return _changed(folder, change)


LISTS: list[tuple[Make, str]] = [
    (f19_no_number, r"key 'frame_a' has no number where one is expected"),
    (f19_missing_label, r"key 'frame_0001_002' has no label"),
    (f19_two_layouts, r"has keys such as .*: neither layout"),
    (f19_link, r"key 'frame_0000_000' is a link"),
    (f19_no_hdf5, r"frames\.h5' cannot be opened as HDF5"),
    (f21_subject_in_two_lists, r"subject '0000' is in 'train' and in 'val'"),
    (f21_subject_in_no_list, r"subject '0003' of the data is in no list"),
]
TWICE: list[tuple[Make, str]] = [
    (f21_same_picture, r"'frame_0004_001' of 'val' has the pixels of 'frame_0000_001' of 'train'"),
]
FRAMES: list[tuple[Make, str]] = [
    (f20_other_values, r"'label_0004_001_00' holds the values '0, 1, 3, 4'|holds the values '0, 3, 4'"),
    (f20_other_size, r"'label_0004_001_01' has shape '\(33, 36\)', its image \(32, 36\)"),
    (f20_colours, r"'frame_0004_001' has shape '\(32, 36, 3\)'; expected \(height, width\)"),
]


def _changed(folder: Path, change: Callable[[Any], None]) -> Path:
    make_h5(folder)
    with h5py.File(folder / "frames.h5", "a") as file:
        change(file)
    return folder


def _listed(folder: Path, change: Callable[[dict[str, list[str]]], object]) -> Path:
    path = make_h5(folder) / "splits.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["subjects"])
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder
