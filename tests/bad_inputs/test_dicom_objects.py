"""DICOM objects that are no picture, and windows that are no pairs."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.processing import apply_windowing

from pipelines.ultrasound.data.files import open_file
from tests.bad_inputs.dicoms import still
from vision_core.dicom.reader import inspect_dicom, read_dicom_view, read_noted_dicom
from vision_core.errors import InputError
from vision_core.images.untrusted import UntrustedImages, read_any_noted

READERS = (inspect_dicom, read_noted_dicom, read_dicom_view, read_any_noted, UntrustedImages().noted)


@pytest.mark.parametrize(
    ("element", "value", "told"),
    [
        ("Modality", "SEG", r"is a segmentation \(SEG\): its pixels are masks.*Give the image that was segmented"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4", "is a segmentation"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.7", "is a segmentation"),
        ("Modality", "RTDOSE", r"is a map of doses \(RTDOSE\).*Give the CT or MR"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.2", "is a map of doses"),
    ],
)
def test_read__pixels_that_are_no_picture_are_refused_by_every_reader(
    element: str, value: str, told: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {element: value}
    path = still(tmp_path / "a.dcm", **changes)
    for read in (*READERS, partial(open_file, reader=UntrustedImages())):
        with pytest.raises(InputError, match=told):
            read(path)


@pytest.mark.parametrize(("centres", "widths"), [([100, 900], 50), (100, [50, 900]), ([100, 900, 1], [50, 400])])
def test_read__windows_without_a_partner_are_told_and_the_first_is_pydicoms(
    centres: int | list[int], widths: int | list[int], tmp_path: Path
) -> None:
    path = still(tmp_path / "a.dcm", WindowCenter=centres, WindowWidth=widths)
    pixels, notes = read_noted_dicom(path)
    assert f"has {np.size(centres)} centres and {np.size(widths)} widths of windows" in notes[0]
    found = dcmread(path)
    windowed = apply_windowing(found.pixel_array, found)  # from 0 to 255
    assert np.abs(pixels[..., 0] - windowed).max() <= 1


def test_read__a_centre_without_a_width_is_told(tmp_path: Path) -> None:
    _, notes = read_noted_dicom(still(tmp_path / "a.dcm", WindowCenter=40))
    assert notes == ("has 1 centres and 0 widths of windows; its values are shown as if it had no window",)
