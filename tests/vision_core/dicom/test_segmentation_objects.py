import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UltrasoundImageStorage, generate_uid

from tests.bad_inputs.dicoms import dataset, still
from tests.continuous_integration import is_ci
from tests.vision_core.dicom.volumes import enhanced
from vision_core.dicom.segmentation_objects import Segment, write_segmentation
from vision_core.dicom.spacing import frame_places, stack_place
from vision_core.errors import InputError
from vision_core.images.nifti import write_masks
from vision_core.results import RESEARCH_NOTICE

DCIODVFY = "dciodvfy"
needs_dciodvfy = pytest.mark.skipif(
    not shutil.which(DCIODVFY) and not is_ci(), reason="apt-get install -y --no-install-recommends dicom3tools"
)
ORIENTATIONS = {
    "plain": (1, 0, 0, 0, 1, 0),
    "mirrored": (-1, 0, 0, 0, 1, 0),
    "oblique": (0.6, 0.8, 0, 0, 0, -1),
}
ORGAN = Segment(label="prostate", algorithm="ultrasound/segment/0123456789ab")


def masks_on(frames: list[int], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    masks = np.zeros(shape, bool)
    for number in frames:
        masks[number, 3 + number % 7 : 40, 20 : 25 + number] = True
    return masks


@pytest.fixture
def cine() -> Path:
    """Thirty real frames, without a frame of reference."""
    return real("examples_ybr_color.dcm")


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
    assert found.ContentDescription == RESEARCH_NOTICE  # without a hash


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "CT_small.dcm"])
def test_write__says_what_it_is_of_without_a_name(name: str, tmp_path: Path) -> None:
    organ = replace(ORGAN, digits="1a2b3c4d", algorithm="+".join([ORGAN.algorithm] * 3))
    assert write_segmentation(tmp_path / "a.dcm", real(name), masks_of(real(name)), organ)
    found = dcmread(tmp_path / "a.dcm")
    assert found.ContentDescription == f"{RESEARCH_NOTICE} Input 1a2b3c4d."
    assert found.SeriesDescription == f"Masks of 1a2b3c4d by {organ.algorithm}"[:64]


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


def real(name: str) -> Path:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path)


def masks_of(path: Path) -> NDArray[np.bool_]:
    """Masks of half the frames of a file, each of another shape."""
    header = dcmread(path, stop_before_pixels=True)
    frames = int(header.get("NumberOfFrames", 1) or 1)
    masks = np.zeros((frames, header.Rows, header.Columns), bool)
    for number in range(0, frames, 2):
        masks[number, 1 : 3 + number % 4, 2:5] = True
    return masks


def marked_points(masks: NDArray[np.bool_], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where in the patient the marked pixels lie, in the order of their frames, rows and columns."""
    return np.array([(places[frame] @ [column, row, 0, 1])[:3] for frame, row, column in np.argwhere(masks)])


def sources_of(found: Dataset) -> list[tuple[str, int]]:
    """The instance and frame that each frame of a segmentation refers to; 0 for a still."""
    groups = found.PerFrameFunctionalGroupsSequence
    origins = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
    return [(each.ReferencedSOPInstanceUID, each.get("ReferencedFrameNumber", 0)) for each in origins]


def ultrasound_with_a_place(path: Path) -> Path:
    changes: dict[str, Any] = {
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.2",
        "FrameOfReferenceUID": "1.2.3",
    }
    changes |= {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    changes |= {"PixelSpacing": [0.3, 0.3], "PatientName": "Mononym", "Modality": "US"}
    source = dataset(np.zeros((8, 6), np.uint8), **changes)
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    source.save_as(path)
    return path


@pytest.mark.parametrize("cosines", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_placed__voxels_positions_and_references_of_a_volume(cosines: tuple[float, ...], tmp_path: Path) -> None:
    across = np.cross(cosines[:3], cosines[3:])
    source = enhanced([list(np.round([5, -7, 9] + 2.5 * k * across, 6)) for k in range(5)], cosines, (0.5, 0.75))
    source.save_as(tmp_path / "s.dcm")
    masks = masks_of(tmp_path / "s.dcm")
    assert write_segmentation(tmp_path / "a.dcm", tmp_path / "s.dcm", masks, ORGAN)
    found = dcmread(tmp_path / "a.dcm")
    own, places = frame_places(source), frame_places(found)
    assert own is not None
    assert places is not None
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    numbers = [frame for _, frame in sources_of(found)]
    assert sorted(numbers) == [1, 3, 5]
    assert {instance for instance, _ in sources_of(found)} == {source.SOPInstanceUID}
    again = np.zeros_like(masks)
    for pixels, frame, place in zip(found.pixel_array, numbers, places, strict=True):
        again[frame - 1] = pixels
        assert np.allclose(place, own[frame - 1], atol=1e-6)
    assert np.array_equal(again, masks)
    # nibabel, which has written neither, finds the same voxels at the same points.
    write_masks(tmp_path / "a.nii.gz", masks, place=stack_place(source))
    image: Any = nibabel.load(tmp_path / "a.nii.gz")
    voxels = np.argwhere(np.asarray(image.dataobj).transpose(2, 1, 0))
    points = voxels[:, ::-1] @ image.affine[:3, :3].T + image.affine[:3, 3]
    assert np.allclose(points * [-1, -1, 1], marked_points(masks, own), atol=1e-4)
    assert image.get_qform(coded=True)[1] == image.get_sform(coded=True)[1] == 1
    assert np.allclose(image.get_qform(), image.affine, atol=1e-4)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_placed__real_slices(name: str, tmp_path: Path) -> None:
    path = real(name)
    masks, source = masks_of(path), dcmread(path)
    assert write_segmentation(tmp_path / "a.dcm", path, masks, ORGAN)
    found = dcmread(tmp_path / "a.dcm")
    assert np.array_equal(found.pixel_array.reshape(masks.shape), masks)
    places, own = frame_places(found), frame_places(source)
    assert places is not None
    assert own is not None
    assert np.allclose(marked_points(masks, places), marked_points(masks, own))
    assert sources_of(found) == [(source.SOPInstanceUID, 0)]
    assert (found.StudyInstanceUID, found.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert not write_segmentation(tmp_path / "b.dcm", path, np.zeros_like(masks), ORGAN)


def test_placed__an_unusable_header_is_refused_without_its_values(tmp_path: Path) -> None:
    source = enhanced([[0, 0, 0], [0, 0, 1]])
    [orientation] = source.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    del source.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for group in source.PerFrameFunctionalGroupsSequence:  # as the standard allows, and highdicom does not
        group.PlaneOrientationSequence = [orientation]
    source.save_as(tmp_path / "s.dcm")
    with pytest.raises(InputError, match=r"s\.dcm' has a header by which highdicom cannot place a segmentation"):
        write_segmentation(tmp_path / "a.dcm", tmp_path / "s.dcm", masks_of(tmp_path / "s.dcm"), ORGAN)


def test_placed__frames_that_share_a_place_are_told_apart_by_number(tmp_path: Path) -> None:
    enhanced([[0, 0, 0], [0, 0, 2], [0, 0, 0]]).save_as(tmp_path / "s.dcm")  # the third at another time
    assert write_segmentation(tmp_path / "a.dcm", tmp_path / "s.dcm", masks_of(tmp_path / "s.dcm"), ORGAN)
    found = dcmread(tmp_path / "a.dcm")
    assert [frame for _, frame in sources_of(found)] == [1, 3]
    assert frame_places(found) is None


def test_placed__an_unknown_thickness_and_no_name_in_messages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    path = ultrasound_with_a_place(tmp_path / "s.dcm")
    assert write_segmentation(tmp_path / "a.dcm", path, masks_of(path), ORGAN)
    [measures] = dcmread(tmp_path / "a.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == 1
    assert "s.dcm' states no thickness; its segmentation is 1 mm thick." in caplog.text
    assert "Mononym" not in caplog.text + "".join(str(each.message) for each in recwarn)


def test_write__names_in_the_letters_of_the_source_and_dates_of_today(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "StudyInstanceUID": "1.2.1",
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Müller^Zoë",
    }
    old: dict[str, Any] = {
        "StudyDate": "1997.04.24",
        "StudyTime": "14:04:38",
        "PatientBirthDate": "in May",
        "PatientSex": "m",
    }
    path = still(tmp_path / "s.dcm", **changes, **old)
    assert write_segmentation(tmp_path / "a.dcm", path, np.ones((1, 16, 16), bool), ORGAN)
    found = dcmread(tmp_path / "a.dcm")
    assert str(found.PatientName) == "Müller^Zoë"
    assert [found[name].value for name in old] == ["19970424", "140438", "", ""]


@needs_dciodvfy
@pytest.mark.parametrize(
    "name",
    [
        "examples_ybr_color.dcm",
        "examples_palette.dcm",
        "ExplVR_BigEnd.dcm",
        "CT_small.dcm",
        "MR_small.dcm",
        "JPEG-lossy.dcm",
        "enhanced",
        "ultrasound",
    ],
)
def test_dciodvfy__finds_no_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.dcm"
    if name == "enhanced":
        enhanced([[0, 0, 0], [0, 0, 2], [0, 0, 4]]).save_as(path)
    elif name == "ultrasound":
        ultrasound_with_a_place(path)
    else:
        shutil.copy(real(name), path)
    organ = Segment(label="prostate", algorithm="a", spacing_mm=(0.3, 0.3))
    assert write_segmentation(tmp_path / "a.dcm", path, masks_of(path), organ)
    told = subprocess.run([DCIODVFY, str(tmp_path / "a.dcm")], capture_output=True, text=True)
    assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == []
    assert told.returncode == 0
    assert "Segmentation" in told.stderr
