from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from tests.bad_inputs.dicoms import still
from vision_core.dicom.reader import inspect_dicom
from vision_core.dicom.spacing import Spacing


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
