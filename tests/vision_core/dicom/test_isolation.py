from pathlib import Path

import numpy as np
import pytest

from tests.bad_inputs import dicoms
from vision_core.dicom.isolation import DicomReader
from vision_core.dicom.reader import read_dicom_image
from vision_core.errors import InputError


def test_read__what_ends_the_decoder_is_an_error_and_the_next_image_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound, report = dicoms.still(tmp_path / "a.dcm"), dicoms.f04_report(tmp_path)
    with DicomReader() as reader:
        for _ in range(2):
            with pytest.raises(InputError, match=r"crashing\.dcm' (made its decoder crash|has pixels that cannot)"):
                reader.read(dicoms.f06_crashing(tmp_path))
            np.testing.assert_array_equal(reader.read(sound), read_dicom_image(sound))
        with pytest.raises(InputError, match=r"report\.dcm': no image in this object \(SR\)"):
            reader.read(report)
        with pytest.raises(InputError, match="holds '1' frames"):
            reader.read(sound, frame=3)
    assert not capfd.readouterr().err


def test_read__what_takes_too_long_is_an_error(tmp_path: Path) -> None:
    sound = dicoms.still(tmp_path / "a.dcm")
    with DicomReader(seconds=1e-9) as reader, pytest.raises(InputError, match=r"took longer than 1e-09 s"):
        reader.read(sound)
