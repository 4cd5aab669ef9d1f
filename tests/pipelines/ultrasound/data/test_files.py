import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from pipelines.ultrasound.data.files import list_inputs, open_file
from pipelines.ultrasound.data.formats.hdf5 import H5Frames
from pipelines.ultrasound.data.formats.stacks import place_of
from pipelines.ultrasound.data.frames import white_of
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.tiny import make_h5
from vision_core.errors import DataError, InputError
from vision_core.images.nifti import write_masks
from vision_core.images.untrusted import UntrustedImages


@pytest.fixture(scope="module")
def reader() -> Iterator[UntrustedImages]:
    with UntrustedImages() as read:
        yield read


def test_open_file__sixteen_bits_of_an_image_are_kept(tmp_path: Path, reader: UntrustedImages) -> None:
    values = np.arange(300, dtype=np.uint16).reshape(15, 20) * 200
    Image.fromarray(values).save(tmp_path / "a.png")
    file = open_file(tmp_path / "a.png", reader)
    assert file.texts == ("a.png",)
    assert np.array_equal(file.read(0), values)


def test_open_file__frames_that_are_left_out_are_told(tmp_path: Path, reader: UntrustedImages) -> None:
    """Those behind the first of an image, and those that DICOM holds and does not declare."""
    pages = [Image.fromarray(np.full((16, 16), each, np.uint8)) for each in (3, 5, 7)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert open_file(tmp_path / "a.tif", reader).notes == ("The file holds 3 frames; the first is used.",)
    cine = np.stack([np.asarray(each) for each in pages])
    still(tmp_path / "a.dcm", cine, NumberOfFrames=2)
    file = open_file(tmp_path / "a.dcm", reader)
    assert len(file.texts) == 2
    assert "The file holds the pixels of 3 frames and declares 2." in file.notes


def test_open_file__frames_of_a_cine_and_of_hdf5(tmp_path: Path, reader: UntrustedImages) -> None:
    cine = np.stack([np.full((16, 16), each, np.uint8) for each in (3, 5)])
    still(tmp_path / "a.dcm", cine, NumberOfFrames=2)
    file = open_file(tmp_path / "a.dcm", reader)
    assert file.texts == ("a.dcm#0", "a.dcm#1")
    assert [int(file.read(each)[0, 0]) for each in (0, 1)] == [3, 5]
    make_h5(tmp_path, {"test": 1})
    assert open_file(tmp_path / "frames.h5", reader).texts[3] == "frame_0000_003"


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_open_file__deep_dicom_reaches_the_network_unclipped(
    bits: int, tmp_path: Path, reader: UntrustedImages
) -> None:
    ramp = (np.arange(1024, dtype=np.uint16) * (2**bits // 1024)).reshape(32, 32)
    window = {"WindowCenter": 100, "WindowWidth": 50}  # of a viewer: it would turn nearly all of it black or white
    path = still(tmp_path / "a.dcm", ramp, BitsStored=bits, HighBit=bits - 1, **window)
    found = open_file(path, reader).read(0)
    assert found.dtype == np.uint16
    assert np.array_equal(found, np.rint(ramp * (65535 / (2**bits - 1))))
    assert len(np.unique(found)) == 1024
    inverted = still(
        tmp_path / "b.dcm", ramp, BitsStored=bits, HighBit=bits - 1, PhotometricInterpretation="MONOCHROME1"
    )
    assert np.array_equal(open_file(inverted, reader).read(0), 65535 - found)


def test_open_file__times_of_frames_and_gaps_between_them(tmp_path: Path, reader: UntrustedImages) -> None:
    cine = np.stack([np.full((16, 16), each, np.uint8) for each in range(4)])
    even = open_file(still(tmp_path / "a.dcm", cine, NumberOfFrames=4, FrameTime=40), reader)
    assert even.times_ms == (0, 40, 80, 120)
    assert not any("gap" in note for note in even.notes)
    dropped = open_file(still(tmp_path / "b.dcm", cine, NumberOfFrames=4, FrameTimeVector=[0, 40, 80, 40]), reader)
    assert dropped.times_ms == (0, 40, 120, 160)
    assert "The file has 1 gaps between frames of more than 1.5 times the usual 40 ms." in dropped.notes
    assert open_file(still(tmp_path / "c.dcm", cine, NumberOfFrames=4), reader).times_ms is None


def test_open_file__a_changed_cine_is_read_anew_and_there_is_no_frame_beyond_the_last(
    tmp_path: Path, reader: UntrustedImages
) -> None:
    first = np.random.default_rng(0).integers(0, 256, (5, 16, 16)).astype(np.uint8)
    for cine in (first, 255 - first):
        path = still(tmp_path / "a.dcm", cine, NumberOfFrames=5)
        file = open_file(path, reader)
        for number in (4, 0, 2):
            assert np.array_equal(file.read(number), cine[number])
    with pytest.raises(InputError, match="there is no frame '5'"):
        file.read(5)


def test_open_file__a_real_cine_of_colours_becomes_its_luminance(reader: UntrustedImages) -> None:
    path = get_testdata_file("examples_ybr_color.dcm")
    assert isinstance(path, str)
    file = open_file(Path(path), reader)
    assert len(file.texts) == 30
    first, last = file.read(0), file.read(29)
    assert first.shape == last.shape == (240, 320)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, last)


def test_open_file__damage_is_of_the_one_input(tmp_path: Path, reader: UntrustedImages) -> None:
    (tmp_path / "a.h5").write_bytes(b"no such file" * 50)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.h5' cannot be opened as HDF5"):
        open_file(tmp_path / "a.h5", reader)
    with pytest.raises(InputError, match=r"a\.png"):
        open_file(tmp_path / "a.png", reader).read(0)


def test_open_file__a_header_that_holds_the_parser_up_costs_one_line(tmp_path: Path) -> None:
    path = still(tmp_path / "a.dcm")
    content = path.read_bytes()
    at = content.index(struct.pack("<HH", 0x0010, 0x0010))  # of the patient's name, the first behind the private ones
    many = b"".join(struct.pack("<HH2sH", 9, 0x1000 + number % 0xE000, b"LO", 0) for number in range(600_000))
    path.write_bytes(content[:at] + many + content[at:])
    with (
        UntrustedImages(seconds=1) as hurried,
        pytest.raises(InputError, match=r"a\.dcm' took longer than 1 s to decode\. Open") as told,
    ):
        open_file(path, hurried)
    assert len(told.value.problems) == 1


def test_open_file__hdf5_says_what_it_leaves_out_by_its_own_name(tmp_path: Path, reader: UntrustedImages) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frame_00000"] = np.arange(12, dtype=np.uint16).reshape(3, 4)
        file["about"] = "text"
    found = open_file(tmp_path / "a.h5", reader)
    assert found.notes == ("'a.h5': 1 keys are neither frame nor label and left out ('about').",)
    assert found.read(0).tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i8", "<f4", "<f8"])
def test_open_file__hdf5_has_the_values_that_training_reads_whatever_their_type(
    kind: str, tmp_path: Path, reader: UntrustedImages
) -> None:
    values = (np.arange(12).reshape(3, 4) + (0.5 if "f" in kind else 0)).astype(kind)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frame_00000"], file["frame_00001"] = values, np.zeros((3, 4), kind)
    found = open_file(tmp_path / "a.h5", reader)
    trained = H5Frames(tmp_path / "a.h5", allow_unlabelled=True)
    for number in (0, 1):
        image, frame = found.read(number), trained.read(number)
        assert np.array_equal(image, frame.image)
        assert white_of(image, "it") == frame.white


def test_open_file__nifti_keeps_its_place_for_the_masks(tmp_path: Path, reader: UntrustedImages) -> None:
    """Else they lie beside the image in every viewer."""
    image: Any = nibabel.Nifti1Image
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    axes = np.array([[0, -0.3, 0, 10], [0.3, 0, 0, 20], [0, 0, 2, -5], [0, 0, 0, 1]])
    nibabel.save(image(values, axes), tmp_path / "a.nii.gz")
    file = open_file(tmp_path / "a.nii.gz", reader)
    write_masks(tmp_path / "masks.nii.gz", np.ones((4, 3, 2), bool), file.spacing_mm, file.place)
    for name in ("a", "masks"):
        assert np.allclose(place_of(tmp_path / f"{name}.nii.gz"), axes)


def test_list_inputs__images_dicom_and_hdf5_of_the_folder_itself(tmp_path: Path) -> None:
    make_h5(tmp_path)
    still(tmp_path / "IM0001")  # known by its mark
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "below").mkdir()
    assert [path.name for path in list_inputs(tmp_path)] == ["IM0001", "a.png", "frames.h5"]
    with pytest.raises(DataError, match=r"holds '0' images, DICOM, NIfTI, HDF5 or video files \(first entries: none\)"):
        list_inputs(tmp_path / "below")
