"""What a viewer gets beyond the picture: values that give pydicom's greys in every window, and spacing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_rescale, apply_windowing

from tests.bad_inputs import dicoms
from tests.vision_core.dicom.test_spacing import region
from vision_core.dicom.reader import read_dicom_image, read_dicom_view
from vision_core.dicom.view import GreyValues, Preset
from vision_core.images.untrusted import UntrustedImages

TWELVE_BITS = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def group(mm: float) -> Dataset:
    """A functional group with the spacing of a pixel."""
    measures, found = Dataset(), Dataset()
    measures.PixelSpacing = [mm, mm]
    found.PixelMeasuresSequence = [measures]
    return found


def shades(values: GreyValues, preset: Preset) -> NDArray[np.float64]:
    """Greys by the function ``LINEAR`` of the standard, as a page computes them."""
    found = values.lowest + values.step * values.codes.astype(np.float64)
    share = np.clip((found - (preset.centre - 0.5)) / (preset.width - 1) + 0.5, 0, 1)
    share = 1 - share if values.is_inverted else share
    return np.where(values.is_image, 255 * share, 0)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2.5, 0), (-1, 3000)])
def test_view__two_windows_give_the_greys_of_pydicom(
    photometric: str, slope: float, intercept: float, tmp_path: Path
) -> None:
    windows: dict[str, Any] = {"WindowCenter": [40, 600], "WindowWidth": [400, 2000]}
    windows["WindowCenterWidthExplanation"] = ["SOFT", "BONE"]
    path = dicoms.still(
        tmp_path / "a.dcm", TWELVE_BITS, BitsStored=12, HighBit=11, RescaleSlope=slope, RescaleIntercept=intercept,
        PhotometricInterpretation=photometric, **windows,
    )  # fmt: skip
    view, _ = read_dicom_view(path)
    assert view.values is not None
    np.testing.assert_array_equal(view.pixels, read_dicom_image(path))
    header = dcmread(path)
    for place, preset in ((0, view.values.presets[0]), (1, next(p for p in view.values.presets if p.name == "BONE"))):
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
        expected = apply_windowing(apply_rescale(header.pixel_array, header), header, index=place)
        low, high = intercept, intercept + slope * 4095  # pydicom scales to the range of the values
        grey = (expected - low) / (high - low) * 255
        grey = 255 - grey if photometric == "MONOCHROME1" else grey
        np.testing.assert_allclose(shades(view.values, preset), grey, atol=1e-6)
    assert np.abs(view.pixels[..., 0] - shades(view.values, view.values.presets[0])).max() <= 0.5 + 1e-6


def test_view__the_first_preset_is_the_picture_whatever_made_it(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "none": {},
        "exact": {"WindowCenter": 900, "WindowWidth": 700, "VOILUTFunction": "LINEAR_EXACT"},
        "narrow": {"WindowCenter": 900, "WindowWidth": 0.5},
        "padding": {"PixelPaddingValue": 0},
    }
    for name, elements in cases.items():
        path = dicoms.still(tmp_path / f"{name}.dcm", TWELVE_BITS, BitsStored=12, HighBit=11, **elements)
        view, _ = read_dicom_view(path)
        assert view.values is not None
        found = shades(view.values, view.values.presets[0])
        assert np.abs(found - view.pixels[..., 0]).max() <= 0.5 + 1e-6, name
        assert len({(preset.centre, preset.width) for preset in view.values.presets}) == len(view.values.presets)
    assert view.values is not None and not view.values.is_image[0, 0] and view.values.is_image.sum() == 4095


def test_view__no_values_where_no_plain_window_shows_the_picture(tmp_path: Path) -> None:
    sigmoid = {"WindowCenter": 900, "WindowWidth": 700, "VOILUTFunction": "SIGMOID"}
    assert read_dicom_view(dicoms.still(tmp_path / "a.dcm", TWELVE_BITS, **sigmoid))[0].values is None
    assert read_dicom_view(dicoms.still(tmp_path / "b.dcm"))[0].values is None  # eight bits


@pytest.mark.parametrize(
    ("elements", "um"),
    [
        ({"PixelSpacing": [0.5, 0.5]}, 500.0),
        ({"PixelSpacing": [0.5, 0.7]}, None),
        ({"PixelSpacing": [0, 0]}, None),
        ({"ImagerPixelSpacing": [0.1, 0.1]}, None),
        ({"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.1, 0.1]}, None),
        ({"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.08, 0.08]}, 80.0),
        ({"SequenceOfUltrasoundRegions": [region(PhysicalDeltaX=0.02, PhysicalDeltaY=0.02)]}, 200.0),
        ({"SharedFunctionalGroupsSequence": [group(0.4)]}, 400.0),
        ({"SharedFunctionalGroupsSequence": [group(0.4)], "PerFrameFunctionalGroupsSequence": [group(0.3)]}, 300.0),
        ({}, None),
    ],
)
def test_view__spacing_of_the_patient_or_none(elements: dict[str, Any], um: float | None, tmp_path: Path) -> None:
    found = read_dicom_view(dicoms.still(tmp_path / "a.dcm", **elements))[0].facts.um_per_px
    assert found == (um if um is None else pytest.approx(um))


def test_view__series_is_told_and_text_in_the_pixels_suspected(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"Modality": "CT"}, False),
        ({"Modality": "CT", "BurnedInAnnotation": "YES"}, True),
        ({"Modality": "US"}, True),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, False),
    ]
    for elements, may_name in cases:
        path = dicoms.still(tmp_path / "a.dcm", SeriesDescription=" Head  thin ", **elements)
        facts = read_dicom_view(path)[0].facts
        assert facts.may_name is may_name and facts.description == f"{elements['Modality']}, Head thin"


def test_untrusted__the_view_crosses_the_sandbox_unchanged(tmp_path: Path) -> None:
    path = dicoms.still(tmp_path / "IM0001", TWELVE_BITS, BitsStored=12, HighBit=11, PixelSpacing=[0.5, 0.5])
    direct, _ = read_dicom_view(path)
    with UntrustedImages() as reader:
        view, notes = reader.view(path)
    np.testing.assert_array_equal(view.pixels, direct.pixels)
    assert view.facts == direct.facts and view.values is not None and direct.values is not None
    np.testing.assert_array_equal(view.values.codes, direct.values.codes)
    assert view.values.presets == direct.values.presets and notes == ()
