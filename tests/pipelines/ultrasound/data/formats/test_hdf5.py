import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.ultrasound.data.formats.hdf5 import H5Frames
from pipelines.ultrasound.data.frames import frames_of, one_a_subject
from vision_core.errors import DataError, InputError

Write = Callable[[Mapping[str, Any]], Path]

IMAGE = np.arange(30, dtype=np.uint8).reshape(5, 6)
MASK = (IMAGE > 12).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: Mapping[str, Any]) -> Path:
        path = tmp_path / "frames.h5"
        with h5py.File(path, "w") as file:
            for name, values in content.items():
                file[name] = values
        return path

    return written


def nested(*keys: tuple[int, int]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for subject, frame in keys:
        name = f"{subject:04d}_{frame:03d}"
        content |= {f"frame_{name}": IMAGE + subject, f"label_{name}_00": MASK, f"label_{name}_01": 1 - MASK}
    return content


def test_read__nested_layout_with_gaps_in_numeric_order(write: Write) -> None:
    content = nested((10, 3), (2, 0))
    content |= {"frame_2_11": IMAGE, "label_2_11_0": MASK, "frame_2_9": IMAGE, "label_2_9_2": MASK}
    frames = H5Frames(write(content))
    assert frames.layout == "nested"
    assert [(name.subject, name.number) for name in frames.names] == [
        ("0002", 0),
        ("0002", 9),
        ("0002", 11),
        ("0010", 3),
    ]
    first, second = frames.read(0), frames.read(1)
    assert np.array_equal(first.image, IMAGE + 2)
    assert first.observers == (0, 1)
    assert np.array_equal(first.masks[1], MASK == 0)
    assert (second.observers, second.masks.shape) == ((2,), (1, 5, 6))  # the number of observers may differ
    assert frames_of(frames, frozenset({"0010"})) == [3]


def test_read__flat_layout_with_and_without_subjects(write: Write, tmp_path: Path) -> None:
    content = {"frame_00007": IMAGE, "label_00007_00": MASK, "frame_00012": IMAGE, "label_00012_00": MASK}
    path = write(content)
    frames = H5Frames(path)
    assert frames.layout == "flat"
    assert [(name.subject, name.number) for name in frames.names] == [(None, 7), (None, 12)]
    (tmp_path / "subjects.csv").write_text("index,subject\n7,b\n00012,a\n")
    assert [name.subject for name in H5Frames(path).names] == ["b", "a"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"frame_one": IMAGE}, "key 'frame_one' has no number where one is expected"),
        ({"frame_0001_001_": IMAGE}, "key 'frame_0001_001_' is not written as keys are, .* Name it 'frame_0001_001'"),
        ({"Frame_0001_001": IMAGE}, "key 'Frame_0001_001' is not written as keys are, .* Name it 'frame_0001_001'"),
        ({"LABEL_0000_000_02": MASK}, "Name it 'label_0000_000_02'"),
        ({"frames-1.2": IMAGE}, "Name it 'frame_1_2'"),
        ({"frame_20261201101530_001": IMAGE}, "key 'frame_20261201101530_001' has a number of more than 9 digits"),
        ({"label_0000_000": MASK}, "key 'label_0000_000' is the label of no frame"),
        ({"label_0000_004_00": MASK}, "key 'label_0000_004_00' is the label of no frame of this file"),
        ({"frame_0000_004": IMAGE}, "key 'frame_0000_004' has no label. Add 'label_0000_004_00'"),
        ({"frame_00003": IMAGE, "label_00003_00": MASK}, "has keys such as .*neither layout"),
        ({"frame_0_0": IMAGE}, "keys 'frame_0000_000' and 'frame_0_0' have the same numbers"),
        ({"subject/frame": IMAGE}, "key 'subject' is a group"),
        ({"elsewhere": h5py.ExternalLink("other.h5", "/x")}, "key 'elsewhere' is a link"),
        ({"again": h5py.SoftLink("/frame_0000_000")}, "key 'again' is a link"),
    ],
)
def test_open__keys_that_fit_no_layout_are_refused_by_name(write: Write, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        H5Frames(write(nested((0, 0)) | changed))


@pytest.mark.parametrize("key", ["frame_0000_001", "label_0000_000_02"])
def test_open__values_that_lie_in_other_files_are_refused(key: str, write: Write, tmp_path: Path) -> None:
    """Else a file of frames could show what lies elsewhere on the machine."""
    path = write(nested((0, 0)))
    (tmp_path / "elsewhere.bin").write_bytes(bytes(IMAGE))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = IMAGE
    with h5py.File(path, "a") as file:
        file.create_dataset(key, IMAGE.shape, "u1", external=[(str(tmp_path / "elsewhere.bin"), 0, IMAGE.size)])
    with pytest.raises(DataError, match=f"key '{key}' is a dataset whose values are taken from other files"):
        H5Frames(path)
    layout = h5py.VirtualLayout(IMAGE.shape, "u1")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", IMAGE.shape)
    with h5py.File(path, "a") as file:
        del file[key]
        file.create_virtual_dataset(key, layout)
    with pytest.raises(DataError, match=f"key '{key}' is a dataset whose values are taken from other files"):
        H5Frames(path)


def test_open__other_keys_are_left_out_and_told(write: Write) -> None:
    frames = H5Frames(write(nested((0, 0)) | {"about": "text", "spacing": 0.3}))
    assert len(frames.names) == 1
    assert "2 keys are neither frame nor label and left out ('about', 'spacing')" in frames.notes[0]


def test_one_a_subject__every_frame_comes_up_in_some_epoch(write: Write) -> None:
    frames = H5Frames(write(nested((0, 0), (0, 1), (0, 2), (4, 0))))
    drawn = [one_a_subject(frames, range(4), seed=1, epoch=epoch) for epoch in range(30)]
    assert {len(each) for each in drawn} == {2}
    assert {each[0] for each in drawn} == {0, 1, 2}
    assert {each[1] for each in drawn} == {3}
    assert drawn[5] == one_a_subject(frames, range(4), seed=1, epoch=5)
    assert one_a_subject(frames, [1, 3], seed=1, epoch=0) == [1, 3]


def test_open__unlabelled_frames_where_allowed(write: Write) -> None:
    frames = H5Frames(write({"frame_00000": IMAGE}), allow_unlabelled=True)
    assert frames.read(0).masks.shape == (0, 5, 6)


def test_open__files_that_are_none(tmp_path: Path, write: Write) -> None:
    (tmp_path / "text.h5").write_text("frames")
    with pytest.raises(DataError, match="cannot be opened as HDF5"):
        H5Frames(tmp_path / "text.h5")
    with pytest.raises(DataError, match="is not a file"):
        H5Frames(tmp_path / "missing.h5")
    with pytest.raises(DataError, match="has '0' keys of frames"):
        H5Frames(write({"other": IMAGE}))
    cut = write(nested((0, 0)))
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be opened as HDF5"):
        H5Frames(cut)


def mask_of(values: NDArray[Any]) -> dict[str, Any]:
    return {"frame_00000": IMAGE, "label_00000_00": values}


@pytest.mark.parametrize(
    "values", [MASK * 255, MASK.astype(bool), MASK.astype(np.float32), MASK.astype(np.int64) * 255]
)
def test_read__masks_of_0_and_255_are_the_same_masks(write: Write, values: NDArray[Any]) -> None:
    frames = H5Frames(write(mask_of(values)))
    assert np.array_equal(frames.read(0).masks[0], MASK == 1)
    assert len(frames.notes) == (1 if values.max() == 255 else 0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (MASK[:4], r"has shape '\(4, 6\)', its image \(5, 6\)"),
        (MASK.T, r"has shape '\(6, 5\)', its image \(5, 6\)"),
        (MASK + IMAGE % 2, "holds the values '0, 1, 2'; expected 0 and 1"),
        (MASK * 2, "holds the values '0, 2'; expected 0 and 1"),
        (MASK * 0.5, "holds the values '0, 0.5'"),
        (np.where(MASK, np.nan, 0), "holds the values '0, nan'"),
        (-MASK.astype(np.int8), "holds the values '-1, 0'"),
        (np.array([[b"a"] * 6] * 5), "holds the values 'nan'"),
    ],
)
def test_read__other_masks_are_refused_with_what_was_found(write: Write, values: NDArray[Any], told: str) -> None:
    frames = H5Frames(write(mask_of(values)))
    with pytest.raises(InputError, match=told):
        frames.read(0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((2, 5, 6), np.uint8), r"has shape '\(2, 5, 6\)'; expected \(height, width\)"),
        (np.zeros((0, 6), np.uint8), "has shape"),
        (np.full((5, 6), np.nan), "holds values from 'nan' to 'nan'"),
        (np.full((5, 6), -3.0), "holds values from '-3'"),
        (np.full((5, 6), 700, np.int32), "holds values from '700' to '700'"),
        (np.zeros((5, 6), complex), "has the type 'complex128'"),
        (IMAGE / np.float32(255), "holds fractions from '0' to '0.113725'; expected 0 to 255"),
    ],
)
def test_read__other_images_are_refused_with_what_was_found(write: Write, values: NDArray[Any], told: str) -> None:
    frames = H5Frames(write({"frame_00000": values, "label_00000_00": MASK}))
    with pytest.raises(InputError, match=told):
        frames.read(0)


def test_read__a_frame_of_absurd_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("frame_00000", shape=(200_000, 200_000), dtype=np.uint8)
        file["label_00000_00"] = MASK
    with pytest.raises(InputError, match=r"has shape '\(200000, 200000\)', more than 100 million"):
        H5Frames(tmp_path / "huge.h5").read(0)


@pytest.mark.parametrize("how", [{}, {"chunks": (5, 6)}, {"chunks": True, "compression": "gzip", "fillvalue": 0}])
def test_read__a_label_that_was_made_and_never_written_is_no_empty_mask(how: dict[str, Any], write: Write) -> None:
    path = write({"frame_00000": IMAGE, "frame_00001": IMAGE})
    with h5py.File(path, "a") as file:
        for number in (0, 1):
            file.create_dataset(f"label_0000{number}_00", IMAGE.shape, "u1", **how)
        file["label_00001_00"][...] = 0  # an observer who has marked nothing
    frames = H5Frames(path)
    assert not frames.read(1).masks.any()
    with pytest.raises(InputError, match="'label_00000_00' was made and never written"):
        frames.read(0)
    assert np.array_equal(frames.image(0)[0], IMAGE)  # prediction reads no labels


def test_read__sixteen_bits_are_kept(write: Write) -> None:
    frames = H5Frames(write(mask_of(MASK) | {"frame_00001": IMAGE.astype(np.uint16) * 1000, "label_00001_00": MASK}))
    assert [frames.read(each).white for each in (0, 1)] == [255, 65535]
    assert frames.read(1).image.max() == 29000


def test_read__every_process_opens_the_file_for_itself(write: Write) -> None:
    frames = H5Frames(write(nested((0, 0))))
    before = frames.read(0)
    copied = pickle.loads(pickle.dumps(frames))
    assert np.array_equal(copied.read(0).masks, before.masks)
    frames.close()
    assert np.array_equal(frames.read(0).image, before.image)
