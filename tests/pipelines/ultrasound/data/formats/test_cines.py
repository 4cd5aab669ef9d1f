from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.ultrasound.data.formats.cines import CineFrames
from tests.bad_inputs import dicoms
from tests.bad_inputs.dicoms import still
from vision_core.errors import DataError

CINE = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16) // each for each in (1, 2, 3)])


def mask(path: Path, size: tuple[int, int] = (16, 16)) -> None:
    values = np.zeros(size, np.uint8)
    values[3:9, 4:8] = 255
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for subject in ("p2", "p10"):
        (tmp_path / subject).mkdir()
    still(tmp_path / "p2" / "loop.dcm", CINE, NumberOfFrames=3)
    for name in ("loop_002_obs01", "loop_002_obs00", "loop_000_obs00"):
        mask(tmp_path / "p2" / f"{name}.png")
    still(tmp_path / "p10" / "one.dcm")
    mask(tmp_path / "p10" / "one_obs00.png")
    return tmp_path


def test_read__labelled_frames_of_cines_and_stills(root: Path) -> None:
    frames = CineFrames(root)
    assert [name.text for name in frames.names] == ["p10/one.dcm#0", "p2/loop.dcm#0", "p2/loop.dcm#2"]
    assert [name.subject for name in frames.names] == ["p10", "p2", "p2"]
    found = frames.read(2)
    assert np.array_equal(found.image, CINE[2])
    assert (found.observers, found.masks.shape, int(found.masks[0].sum())) == ((0, 1), (2, 16, 16), 24)
    assert frames.notes == (f"'{root}': 1 frames have no mask and are left out.",)


def test_read__dicom_of_any_name_is_found_by_its_content(root: Path) -> None:
    """As prediction finds it: files of series have numbers for suffixes, or none."""
    (root / "p2" / "loop.dcm").rename(root / "p2" / "1.2.840.5")
    for path in (root / "p2").glob("loop_*.png"):
        path.rename(root / "p2" / path.name.replace("loop", "1.2.840.5"))
    for name in ("1.2.840.6", "DICOMDIR"):
        still(root / "p2" / name)
    mask(root / "p2" / "1.2.840.6_obs00.png")
    (root / "p2" / "notes.bin").write_bytes(bytes(200))
    frames = CineFrames(root)
    assert [name.text for name in frames.names[1:]] == ["p2/1.2.840.5#0", "p2/1.2.840.5#2", "p2/1.2.840.6#0"]
    assert np.array_equal(frames.read(2).image, CINE[2])


@pytest.mark.parametrize("name", ["loop_0000_obs00.png", "loop_obs00.png", "loop_000_obs0.png"])
def test_open__two_masks_of_one_frame_and_observer_are_refused(name: str, root: Path) -> None:
    mask(root / "p2" / name)
    with pytest.raises(DataError, match=r"png' and 'loop_.*png' are of the same frame and observer"):
        CineFrames(root)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("loop_003_obs00.png", r"is the mask of frame '3', 'loop\.dcm' has 3, counted from 0"),
        ("other_000_obs00.png", "has masks of 'other' and no such cine"),
        ("loop_000.png", "is no mask of a cine"),
    ],
)
def test_open__masks_of_nothing_are_refused(name: str, told: str, root: Path) -> None:
    mask(root / "p2" / name)
    with pytest.raises(DataError, match=told):
        CineFrames(root)


def test_open__a_damaged_file_is_refused_by_its_header(root: Path) -> None:
    dicoms.f05_truncated(root / "p2")
    with pytest.raises(DataError, match="cut off: pixel data"):
        CineFrames(root)


def test_open__nothing_labelled(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    still(tmp_path / "p" / "a.dcm")
    with pytest.raises(DataError, match="holds '0' labelled frames in DICOM, NIfTI or videos"):
        CineFrames(tmp_path)
