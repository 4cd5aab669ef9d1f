from pathlib import Path

import nrrd
import numpy as np
from numpy.typing import NDArray

from vision_core.files import origin_text
from vision_core.segmentation.nrrd import extent, write_seg_nrrd


def masks() -> NDArray[np.bool_]:
    found = np.zeros((5, 6, 9), bool)
    found[1, 2, 3] = found[3, 4, 7] = True
    return found


def test_write__another_reader_finds_the_voxels_and_the_fields_of_slicer(tmp_path: Path) -> None:
    write_seg_nrrd(tmp_path / "a.seg.nrrd", masks(), "left\nlobe\\")
    voxels, header = nrrd.read(str(tmp_path / "a.seg.nrrd"))
    assert np.array_equal(voxels.transpose(2, 1, 0), masks())
    assert header["Segment0_Extent"] == "3 7 2 4 1 3"
    assert header["Segment0_Color"] == "0.902 0.624 0.0"
    assert (header["Segment0_Name"], header["Segment0_LabelValue"]) == (r"left\nlobe\\", "1")
    assert not {"space", "space directions", "spacings", "units"} & header.keys()


def test_write__spacing_only_where_it_is_known(tmp_path: Path) -> None:
    write_seg_nrrd(tmp_path / "a.seg.nrrd", masks(), "organ", spacing_mm=(0.3, 0.2))
    _, header = nrrd.read(str(tmp_path / "a.seg.nrrd"))
    assert header["spacings"].tolist() == [0.2, 0.3, 1]
    assert header["units"] == ["mm", "mm", ""]
    assert "space origin" not in header
    assert "Description" not in header


def test_write__what_the_masks_are_of_is_a_key(tmp_path: Path) -> None:
    told = origin_text("ultrasound/screen/0123", "1a2b3c4d", "frames 1 to 5")
    write_seg_nrrd(tmp_path / "a.seg.nrrd", masks(), "organ", told=told)
    voxels, header = nrrd.read(str(tmp_path / "a.seg.nrrd"))
    assert header["Description"] == told
    assert np.array_equal(voxels.transpose(2, 1, 0), masks())


def test_write__place_in_the_axes_of_dicom(tmp_path: Path) -> None:
    place = np.array([[0, -0.5, 0, 7], [0.25, 0, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1.0]])
    write_seg_nrrd(tmp_path / "a.seg.nrrd", masks(), "organ", spacing_mm=(0.5, 0.25), place=place)
    _, header = nrrd.read(str(tmp_path / "a.seg.nrrd"))
    assert header["space"] == "left-posterior-superior"
    assert header["space directions"].T.tolist() == place[:3, :3].tolist()
    assert header["space origin"].tolist() == [7, 8, 9]
    assert "spacings" not in header


def test_write__the_same_bytes_again(tmp_path: Path) -> None:
    for name in "ab":
        write_seg_nrrd(tmp_path / name, masks(), "organ")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_extent__nothing_marked() -> None:
    assert extent(np.zeros((2, 3, 4), bool)) == (0, -1, 0, -1, 0, -1)
