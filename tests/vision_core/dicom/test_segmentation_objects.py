from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.bad_inputs.dicoms import still
from vision_core.dicom.segmentation_objects import Segment, write_segmentation
from vision_core.errors import InputError

ORGAN = Segment(label="prostate", algorithm="ultrasound/segment/0123456789ab")


def masks_on(frames: list[int], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    masks = np.zeros(shape, bool)
    for number in frames:
        masks[number, 3 + number % 7 : 40, 20 : 25 + number] = True
    return masks


@pytest.fixture
def cine() -> Path:
    """Thirty real frames, without a frame of reference."""
    path = get_testdata_file("examples_ybr_color.dcm")
    assert isinstance(path, str)
    return Path(path)


def test_write__read_back_frame_by_frame_with_its_references(cine: Path, tmp_path: Path) -> None:
    masks = masks_on([2, 5, 29], (30, 240, 320))
    assert write_segmentation(tmp_path / "a.dcm", cine, masks, ORGAN)
    found, source = dcmread(tmp_path / "a.dcm"), dcmread(cine, stop_before_pixels=True)
    assert found.file_meta.MediaStorageSOPClassUID.name == "Segmentation Storage"
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert "FrameOfReferenceUID" not in found
    assert "PixelMeasuresSequence" not in found.SharedFunctionalGroupsSequence[0]
    pixels = found.pixel_array.astype(bool)
    again = np.zeros_like(masks)
    for place, group in enumerate(found.PerFrameFunctionalGroupsSequence):
        assert "PlanePositionSequence" not in group
        [origin] = group.DerivationImageSequence[0].SourceImageSequence
        assert origin.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert list(group.FrameContentSequence[0].DimensionIndexValues) == [1, place + 1]
        again[origin.ReferencedFrameNumber - 1] = pixels[place]
    assert np.array_equal(again, masks)
    assert found.SegmentSequence[0].SegmentLabel == "prostate"


def test_write__a_still_with_a_spacing(tmp_path: Path) -> None:
    path = still(tmp_path / "s.dcm", StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid())
    mask = np.zeros((1, 16, 16), bool)
    mask[0, 2:5, 3] = True
    organ = Segment(label="a" * 90, algorithm="b", spacing_mm=(0.3, 0.3))
    assert write_segmentation(tmp_path / "a.dcm", path, mask, organ)
    found = dcmread(tmp_path / "a.dcm")
    assert np.array_equal(found.pixel_array.reshape(16, 16), mask[0])
    assert found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.3, 0.3]
    [series] = found.ReferencedSeriesSequence
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == dcmread(path).SOPInstanceUID
    assert len(found.SegmentSequence[0].SegmentLabel) == 64


def test_write__nothing_to_show_makes_no_file(cine: Path, tmp_path: Path) -> None:
    assert not write_segmentation(tmp_path / "a.dcm", cine, np.zeros((30, 240, 320), bool), ORGAN)
    assert not (tmp_path / "a.dcm").exists()


def test_write__masks_of_another_image_are_refused(cine: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has frames, rows and columns '\(30, 240, 320\)', its masks \(1, 240, 320\)"):
        write_segmentation(tmp_path / "a.dcm", cine, masks_on([0], (1, 240, 320)), ORGAN)
    with pytest.raises(InputError, match="has no StudyInstanceUID"):
        write_segmentation(tmp_path / "a.dcm", still(tmp_path / "s.dcm"), np.ones((1, 16, 16), bool), ORGAN)
