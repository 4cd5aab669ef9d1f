import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.files import origin_text
from vision_core.images.nifti import MASK_TYPES, NiftiFrames, write_masks


def test_write_masks__header_and_order_of_nifti(tmp_path: Path) -> None:
    masks = np.zeros((3, 4, 5), bool)
    masks[2, 1, 3] = masks[0, 3, 0] = True
    write_masks(tmp_path / "a.nii.gz", masks, spacing_mm=(0.3, 0.2))
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert struct.unpack_from("<i", content, 0) == (348,)
    assert struct.unpack_from("<8h", content, 40) == (3, 5, 4, 3, 1, 1, 1, 1)
    assert struct.unpack_from("<2h", content, 70) == (2, 8)  # uint8
    assert np.allclose(struct.unpack_from("<4f", content, 76), (1, 0.2, 0.3, 1))
    assert struct.unpack_from("<f", content, 108) == (352,)
    assert content[123] == 2  # millimetres
    assert content[344:348] == b"n+1\0"
    voxels = np.frombuffer(content, np.uint8, offset=352).reshape((5, 4, 3), order="F")  # x runs fastest
    assert np.argwhere(voxels).tolist() == [[0, 3, 0], [3, 1, 2]]


def test_write_masks__the_same_bytes_again_and_no_unit_where_the_spacing_is_unknown(tmp_path: Path) -> None:
    masks = np.ones((1, 2, 2), bool)
    for name in "ab":
        write_masks(tmp_path / f"{name}.nii.gz", masks)
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert first == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress(first)[123] == 0


def test_write_masks__say_in_the_header_what_they_are_of(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((3, 4, 5)) > 0.5
    told = origin_text(" + ".join(["ultrasound/screen/0123456789ab"] * 2), "1a2b3c4d", "frames 1 to 3")
    for name in "ab":
        write_masks(tmp_path / f"{name}.nii.gz", masks, told=told)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    found = nibabel.load(tmp_path / "a.nii.gz")
    assert isinstance(found, nibabel.Nifti1Image)
    assert bytes(found.header["descrip"]).decode() == f"{told[:79]}\0"
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert struct.unpack_from("<f", content, 108) == (352,)  # where many look for the voxels
    assert np.array_equal(np.asarray(found.dataobj).T > 0, masks)
    frames = NiftiFrames(tmp_path / "a.nii.gz")
    assert np.array_equal(frames.read(2) > 0, masks[2])


def test_frames__masks_that_were_written_come_back(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((4, 5, 7)) > 0.5
    write_masks(tmp_path / "a.nii.gz", masks, spacing_mm=(0.3, 0.2))
    frames = NiftiFrames(tmp_path / "a.nii.gz")
    assert (frames.count, frames.size) == (4, (5, 7))
    assert np.allclose(frames.spacing_mm or (), (0.3, 0.2))
    for number in (3, 0, 2):
        assert np.array_equal(frames.read(number) > 0, masks[number])
    with pytest.raises(InputError, match="there is no frame '4'"):
        frames.read(4)


@pytest.mark.parametrize(
    ("at", "value", "told"),
    [
        (344, b"none", "is no NIfTI file"),
        (40, struct.pack("<h", 9), "is no NIfTI file"),
        (44, struct.pack("<h", -5), "has the shape"),
        (70, struct.pack("<h", 16), "values of type 'float32'"),
        (112, struct.pack("<f", 2.5), "scales its values by '2.5'"),
        (42, struct.pack("<2h", 32000, 32000), "frames of '32000 x 32000' pixels"),
        (46, struct.pack("<h", 9), "is cut off"),
        (108, struct.pack("<f", np.nan), "is no NIfTI file"),
        (108, struct.pack("<f", 1e30), "is cut off or damaged"),
    ],
)
def test_frames__refusals(at: int, value: bytes, told: str, tmp_path: Path) -> None:
    write_masks(tmp_path / "a.nii.gz", np.ones((2, 5, 7), bool))
    content = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    content[at : at + len(value)] = value
    (tmp_path / "b.nii").write_bytes(content)
    with pytest.raises(InputError, match=told):
        NiftiFrames(tmp_path / "b.nii").read(1 if at == 108 else 2)


def test_frames__a_packed_file_that_is_cut_off(tmp_path: Path) -> None:
    write_masks(tmp_path / "a.nii.gz", np.random.default_rng(0).random((4, 50, 70)) > 0.5)
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is cut off or damaged"):
        NiftiFrames(tmp_path / "b.nii.gz").read(3)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2"])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 3, 1)])
def test_frames__equal_to_what_nibabel_wrote(kind: type, dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    image = kind(values, np.diag([0.2, 0.3, 1, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")
    frames = NiftiFrames(tmp_path / "a.nii.gz")
    assert (frames.count, frames.size) == (3 if len(shape) > 2 else 1, (5, 7))
    assert np.allclose(frames.spacing_mm or (), (0.3, 0.2))
    for number in range(frames.count):
        assert np.array_equal(frames.read(number), values.reshape(7, 5, -1)[..., number].T)
        assert frames.read(number).dtype.isnative


def test_frames__other_types_where_they_are_asked_for(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.int16).reshape(3, 2, 1)
    image: Any = nibabel.Nifti1Image
    nibabel.save(image(values, np.diag([0.2, 0.3, 1, 1])), tmp_path / "a.nii")
    with pytest.raises(InputError, match="values of type 'int16'; uint8, uint16 are read"):
        NiftiFrames(tmp_path / "a.nii")
    frames = NiftiFrames(tmp_path / "a.nii", types=MASK_TYPES)
    assert np.array_equal(frames.read(0), values[..., 0].T)
    assert np.allclose(np.diag(frames.place), [0.2, 0.3, 1, 1])


def test_frames__place_in_the_patient_where_one_is_stated(tmp_path: Path) -> None:
    image: Any = nibabel.Nifti1Image
    values = np.zeros((4, 3, 2), np.uint8)
    axes = np.array([[0, -0.3, 0, 10], [0.3, 0, 0, 20], [0, 0, 2, -5], [0, 0, 0, 1]])

    def place_of(affine: NDArray[np.float64] | None, unit: str = "unknown") -> NDArray[np.float64] | None:
        made: Any = image(values, affine)
        made.header.set_xyzt_units(unit)
        nibabel.save(made, tmp_path / "a.nii")
        return NiftiFrames(tmp_path / "a.nii").place_mm

    for unit in ("unknown", "mm"):
        found = place_of(axes, unit)
        assert found is not None
        assert np.allclose(found, np.diag([-1, -1, 1, 1]) @ axes)
    write_masks(tmp_path / "masks.nii.gz", np.zeros((2, 3, 4), bool), place=found)
    assert np.allclose(NiftiFrames(tmp_path / "masks.nii.gz").place, axes)
    assert place_of(axes, "micron") is None
    assert place_of(None) is None
