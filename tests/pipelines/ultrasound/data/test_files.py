from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from pipelines.ultrasound.data.files import list_inputs, open_file
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.tiny import make_h5
from vision_core.errors import DataError, InputError
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


def test_open_file__frames_of_a_cine_and_of_hdf5(tmp_path: Path, reader: UntrustedImages) -> None:
    cine = np.stack([np.full((16, 16), each, np.uint8) for each in (3, 5)])
    still(tmp_path / "a.dcm", cine, NumberOfFrames=2)
    file = open_file(tmp_path / "a.dcm", reader)
    assert file.texts == ("a.dcm#0", "a.dcm#1")
    assert [int(file.read(each)[0, 0]) for each in (0, 1)] == [3, 5]
    make_h5(tmp_path, {"test": 1})
    assert open_file(tmp_path / "frames.h5", reader).texts[3] == "frame_0000_003"


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


def test_list_inputs__images_dicom_and_hdf5_of_the_folder_itself(tmp_path: Path) -> None:
    make_h5(tmp_path)
    still(tmp_path / "IM0001")  # known by its mark
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "below").mkdir()
    assert [path.name for path in list_inputs(tmp_path)] == ["IM0001", "a.png", "frames.h5"]
    with pytest.raises(DataError, match=r"holds '0' images, DICOM, NIfTI, HDF5 or video files \(first entries: none\)"):
        list_inputs(tmp_path / "below")
