from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from tests.bad_inputs.dicoms import dataset, still
from tests.vision_core.dicom.volumes import enhanced
from vision_core.dicom.reader import inspect_dicom
from vision_core.dicom.spacing import Spacing, frame_places, stack_place


def region(**changes: Any) -> Dataset:  # noqa: ANN401 (values of elements)
    found = Dataset()
    values = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionLocationMinX0": 0,
        "RegionLocationMinY0": 0,
        "RegionLocationMaxX1": 15,
        "RegionLocationMaxY1": 15,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.03,
        "PhysicalDeltaY": 0.03,
    }
    for name, value in (values | changes).items():
        if value is not None:
            setattr(found, name, value)
    return found


def spacing(folder: Path, *regions: Dataset, **changes: Any) -> Spacing:  # noqa: ANN401
    path = still(folder / "a.dcm", SequenceOfUltrasoundRegions=list(regions), **changes)
    return inspect_dicom(path).spacing


def test_spacing__of_a_region_inside_the_image(tmp_path: Path) -> None:
    found = spacing(tmp_path, region())
    assert found.mm == pytest.approx((0.3, 0.3))
    assert found.reason == ""
    assert spacing(tmp_path, region(), region(PhysicalDeltaX=0.0301)).mm == pytest.approx((0.3, 0.3))
    assert spacing(tmp_path, PixelSpacing=[0.2, 0.2]).mm == (0.2, 0.2)


@pytest.mark.parametrize(
    "change",
    [
        {"RegionLocationMaxY1": 518},
        {"RegionLocationMaxX1": 595},
        {"PhysicalUnitsXDirection": 4},  # seconds: M-mode
        {"RegionSpatialFormat": 2},
        {"PhysicalDeltaX": None},
        {"RegionLocationMinX0": 15},
    ],
)
def test_spacing__regions_that_cannot_be_trusted(change: dict[str, Any], tmp_path: Path) -> None:
    found = spacing(tmp_path, region(**change))
    assert found == Spacing(mm=None, reason="has '1' regions, none inside the image with a size; sizes are in pixels")


def test_spacing__none_several_and_oblong_pixels_are_told(tmp_path: Path) -> None:
    assert inspect_dicom(still(tmp_path / "b.dcm")).spacing.reason == "states no spacing; sizes are in pixels"
    other = region(PhysicalDeltaX=0.04, PhysicalDeltaY=0.04)
    assert "has spacings that disagree ('0.3' and '0.4' mm)" in spacing(tmp_path, region(), other).reason
    oblong = spacing(tmp_path, region(PhysicalDeltaY=0.05))
    assert "has pixels that are no squares ('0.3' and '0.5' mm)" in oblong.reason
    assert "no positive number" in spacing(tmp_path, region(PhysicalDeltaX=0.0)).reason


@pytest.mark.parametrize("name", ["examples_palette.dcm", "examples_ybr_color.dcm"])
def test_spacing__real_regions_of_another_matrix_are_not_trusted(name: str) -> None:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    found = inspect_dicom(Path(path)).spacing
    assert found.mm is None
    assert "none inside the image" in found.reason


PLACED: dict[str, Any] = {
    "FrameOfReferenceUID": "1.2.3",
    "PixelSpacing": [2, 3],
    "ImagePositionPatient": [10, 20, 30],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}


def at(place: NDArray[np.float64] | None, *pixel: float) -> list[float]:
    assert place is not None
    found: list[float] = (place @ [*pixel, 1])[:3].tolist()
    return found


def test_frame_places__equation_of_the_standard() -> None:
    found = frame_places(dataset(**PLACED))
    assert found is not None
    assert found.shape == (1, 4, 4)
    # Column 5 lies 5 x 3 mm along the row, row 7 lies 7 x 2 mm along the column.
    assert at(found[0], 5, 7, 0) == [25, 34, 30]
    changes: dict[str, Any] = {"PixelSpacing": [1, 1], "ImageOrientationPatient": [0, 0.6, -0.8, -1, 0, 0]}
    oblique = frame_places(dataset(**(PLACED | changes)))
    assert oblique is not None
    assert at(oblique[0], 5, 7, 0) == pytest.approx([3, 23, 26])


@pytest.mark.parametrize(
    "changes",
    [
        {"FrameOfReferenceUID": None},
        {"ImagePositionPatient": None},
        {"ImagePositionPatient": [0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]},
        {"PixelSpacing": None},
        {"PixelSpacing": [0, 1]},
        {"NumberOfFrames": 2},
    ],
)
def test_frame_places__unsound_or_missing_is_none(changes: dict[str, Any]) -> None:
    kept = {name: value for name, value in (PLACED | changes).items() if value is not None}
    assert frame_places(dataset(**kept)) is None


def test_stack_place__of_one_frame_and_of_many() -> None:
    turned: dict[str, Any] = {"ImageOrientationPatient": [1, 0, 0, 0, -1, 0]}
    assert at(stack_place(dataset(**(PLACED | turned), SliceThickness=5)), 1, 1, 1) == [13, 18, 25]  # x × -y = -z
    assert at(stack_place(dataset(**PLACED)), 0, 0, 1) == [10, 20, 31]
    leaning = enhanced([[0, 0, 0], [0, 1, 4], [0, 2, 8]], spacing=(2, 3))
    assert at(stack_place(leaning), 1, 1, 2) == [3, 4, 8]


@pytest.mark.parametrize("origins", [[[0, 0, 0], [0, 1, 4], [0, 2, 9]], [[0, 0, 0]] * 2, [[0, 0, 0], [1, 0, 0]]])
def test_stack_place__frames_that_are_no_even_stack(origins: list[list[float]]) -> None:
    assert stack_place(enhanced(origins)) is None


def test_spacing__of_frames_that_differ_is_not_known(tmp_path: Path) -> None:
    image, measures = enhanced([[0, 0, 0], [0, 0, 1], [0, 0, 2]], spacing=(0.5, 0.5)), Dataset()
    dcmwrite(tmp_path / "even.dcm", image)
    assert inspect_dicom(tmp_path / "even.dcm").spacing.mm == (0.5, 0.5)
    measures.PixelSpacing = [0.25, 0.25]
    image.PerFrameFunctionalGroupsSequence[2].PixelMeasuresSequence = [measures]
    dcmwrite(tmp_path / "zoomed.dcm", image)
    found = inspect_dicom(tmp_path / "zoomed.dcm").spacing
    told = "has frames with spacings that disagree ('0.5' and '0.25' mm); sizes are in pixels"
    assert found == Spacing(mm=None, reason=told)
