"""Labels of AnnotateUltrasound, in files of its exact layout: lists of frames in LPS, and the earlier one by number."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.formats.cines import CineFrames
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.data.observers import is_present
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.data.formats.test_stacks import marked, values, volume
from tests.vision_core.dicom.test_spacing import region
from vision_core.errors import DataError

SIZE, MM = (60, 80), 0.5
CENTRE, RADII, ANGLES = (-10, 40), (15, 60), (60.0, 120.0)
UID = "1.2.826.0.1.3680043.8.498.1"


def at(degrees: float, radius: float = 30, space: str = "LPS") -> list[float]:
    """A point of the fan in mm."""
    right, down = np.cos(np.radians(degrees)) * radius + CENTRE[1], np.sin(np.radians(degrees)) * radius + CENTRE[0]
    sign = 1 if space == "LPS" else -1
    return [sign * right * MM, sign * down * MM, 0.0]


def line(rater: str, low: float, high: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    return {"rater": rater, "line": {"points": [at(low), at(high)]}, **more}


def listed(number: int, pleura: list[Any], lines: list[Any]) -> dict[str, Any]:
    return {"frame_number": number, "coordinate_space": "LPS", "pleura_lines": pleura, "b_lines": lines}


def write(path: Path, frames: Any, **changes: Any) -> Path:  # noqa: ANN401
    content = {
        "SOPInstanceUID": UID, "GrayscaleConversion": False, "mask_type": "fan",
        "angle1": ANGLES[1], "angle2": ANGLES[0], "center_rows_px": CENTRE[0], "center_cols_px": CENTRE[1],
        "radius1": RADII[0], "radius2": RADII[1], "image_size_rows": SIZE[0], "image_size_cols": SIZE[1],
        "AnnotationLabels": [], "labels": ["Lung/Left"], "frame_annotations": frames,
    } | changes  # fmt: skip
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cine of three frames, of which two raters have marked some."""
    (tmp_path / "p1").mkdir()
    cine = np.random.default_rng(0).integers(0, 250, (3, *SIZE)).astype(np.uint8)
    spaced = region(RegionLocationMaxX1=79, RegionLocationMaxY1=59, PhysicalDeltaX=MM / 10, PhysicalDeltaY=MM / 10)
    made = {"NumberOfFrames": 3, "SOPInstanceUID": UID, "SequenceOfUltrasoundRegions": [spaced]}
    still(tmp_path / "p1" / "loop.dcm", cine, **made)
    write(tmp_path / "p1" / "loop.tom.json", [
        listed(0, [line("tom", 70, 110)], [line("tom", 80, 100)]), listed(2, [line("tom", 70, 110)], [])
    ])  # fmt: skip
    write(tmp_path / "p1" / "loop.ann.json", [listed(0, [line("ann", 70, 110)], [line("ann", 75, 85)])])
    write(tmp_path / "p1" / "loop.json", None)  # of AnonymizeUltrasound: a fan alone
    (tmp_path / "p1" / "loop_DICOMHeader.json").write_text('{"Modality": "US"}')
    return tmp_path


def test_read__sectors_between_the_ends_of_lines_by_rater(root: Path) -> None:
    frames = CineFrames(root, "b_lines")
    assert [name.text for name in frames.names] == ["p1/loop.dcm#0", "p1/loop.dcm#2"]
    both, one = frames.read(0), frames.read(1)
    assert (both.observers, one.observers) == ((0, 1), (1,))
    rows, columns = np.argwhere(both.masks[1]).T
    angles = np.degrees(np.arctan2(rows - CENTRE[0], columns - CENTRE[1]))
    away = np.hypot(rows - CENTRE[0], columns - CENTRE[1])
    assert (angles.min() >= 80, angles.max() <= 100) == (True, True)
    assert (angles.min(), angles.max(), away.min(), away.max()) == pytest.approx((80, 100, 15, 60), abs=1.5)
    assert len(rows) == pytest.approx(np.radians(20) / 2 * (60**2 - 15**2), rel=0.03)
    assert (is_present(both.masks), is_present(one.masks)) == (True, False)
    assert "observer 0 is ann, 1 is tom" in frames.notes[1]
    assert frames.notes[0].endswith("1 frames have no mask and are left out.")
    pleura = CineFrames(root, "pleura_lines").read(1)
    assert len(np.argwhere(pleura.masks[0])) == pytest.approx(np.radians(40) / 2 * (60**2 - 15**2), rel=0.03)


def test_lists__the_finding_must_be_named(root: Path) -> None:
    shares: Any = {"train": 1, "val": 0, "test": 0}
    with pytest.raises(DataError, match=r"Set data\.finding=b_lines or data\.finding=pleura_lines"):
        read_lists(UltrasoundData(root=root, shares=shares), ["train"])
    assert len(read_lists(UltrasoundData(root=root, shares=shares, finding="b_lines"), ["train"])["train"]) == 2


def test_read__the_earlier_layout_in_ras_and_without_raters(root: Path) -> None:
    old = {"0": {"pleura_lines": [[at(70, 30, "RAS"), at(110, 30, "RAS")], []],
                 "b_lines": [[at(80, 30, "RAS"), at(100, 30, "RAS")]]}}  # fmt: skip
    write(root / "p1" / "loop.ann.json", old)
    found = CineFrames(root, "b_lines").read(0)
    assert np.array_equal(found.masks[0], found.masks[1])


def test_read__what_does_not_count_is_told(root: Path) -> None:
    rejected = line("ann", 75, 85, validation={"status": "invalidated", "adjudicator": "eve"})
    write(root / "p1" / "loop.ann.json", [listed(0, [line("ann", 70, 110)], [rejected])])
    write(root / "p1" / "loop.tom.json", [listed(1, [line("tom", 70, 80)], [line("tom", 90, 100)])])
    frames = CineFrames(root, "b_lines")
    assert not any(frames.read(place).masks.any() for place in (0, 1))
    assert "1 lines that an adjudicator has rejected are left out" in frames.notes[2]
    assert "on 1 frames B-lines lie beside every pleura line, and do not count" in frames.notes[3]


@pytest.mark.parametrize(
    ("frames", "changes", "told"),
    [
        ([listed(0, [line("tom", 70, 80)], [line("ann", 70, 80)])], {}, r"holds the lines of '2' raters \(ann, tom\)"),
        ([listed(3, [], [])], {}, r"has lines on frame '3', 'loop' has 3, counted from 0"),
        ([], {"mask_type": "rectangle"}, r"has the mask type 'rectangle': .* Give masks as CINE_000_obs00\.png"),
        ([], {"radius1": None}, "lines become masks by the fan"),
        ([], {"radius1": 80}, "has a fan of the radii '80' and 60"),
        ([], {"image_size_rows": 61}, r"is of an image of '61 x 80' pixels, its DICOM file has 60 x 80"),
        ([], {"SOPInstanceUID": "1.2.3"}, r"is of another DICOM file \(SOPInstanceUID\)"),
        ([{"frame_number": 0}], {}, "is no sound file of AnnotateUltrasound"),
        ([listed(0, [{"rater": "ann", "line": {"points": [[1, 2, 0]]}}], [])], {}, "is no sound file"),
        ([listed(0, [{"rater": "ann", "line": {"points": [[2, 2, 0], [4, 4, 0]]}}], [])], {}, "outside its own fan"),
        (7, {}, "is no sound file of AnnotateUltrasound"),
    ],
)
def test_open__what_cannot_become_masks_is_refused(frames: Any, changes: Any, told: str, root: Path) -> None:  # noqa: ANN401
    write(root / "p1" / "loop.ann.json", frames, **changes)
    with pytest.raises(DataError, match=told):
        CineFrames(root, "b_lines")


def test_open__labels_beside_another_kind_of_file_or_of_masks(root: Path) -> None:
    volume(root / "p1" / "loop_obs05.nii", marked(3))
    with pytest.raises(DataError, match="has masks as NIfTI and as labels of AnnotateUltrasound"):
        CineFrames(root, "b_lines")
    (root / "p1" / "loop_obs05.nii").unlink()
    (root / "p1" / "loop.ann.json").rename(root / "p1" / "other.ann.json")
    with pytest.raises(DataError, match="has masks of 'other' and no such cine"):
        CineFrames(root, "b_lines")
    volume(root / "p1" / "other.nii", values(3))
    with pytest.raises(DataError, match=r"which are of DICOM files; 'other\.nii' is none"):
        CineFrames(root, "b_lines")
    (root / "p1" / "other.ann.json").write_text("{")
    with pytest.raises(DataError, match=r"other\.ann\.json' is no JSON"):
        CineFrames(root, "b_lines")
