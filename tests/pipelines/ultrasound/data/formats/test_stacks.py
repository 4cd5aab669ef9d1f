"""NIfTI and videos as training data, with masks as images and as volumes."""

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.formats.cines import CineFrames
from pipelines.ultrasound.data.lists import read_lists
from tests.vision_core.images.test_video import make_video
from vision_core.errors import DataError, InputError
from vision_core.images.nifti import NiftiFrames
from vision_core.images.video import VideoFrames

SIZE = (48, 64)  # of the videos


def volume(path: Path, values: NDArray[np.generic], spacing: float = 0.3) -> Path:
    """NIfTI of ``(F, H, W)`` values."""
    path.parent.mkdir(exist_ok=True)
    image: Any = nibabel.Nifti1Image
    nibabel.save(image(values.transpose(2, 1, 0), np.diag([spacing, spacing, 1, 1])), path)
    return path


def marked(count: int, dtype: str = "u1") -> NDArray[np.generic]:
    """Masks ``(F, H, W)``: a square on every frame but the first."""
    masks = np.zeros((count, *SIZE), dtype)
    masks[1:, 10:20, 12:30] = 1
    return masks


def values(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 250, (count, *SIZE)).astype(np.uint8)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_nifti__volumes_of_masks_are_read_in_any_order(ending: str, dtype: str, tmp_path: Path) -> None:
    volume(tmp_path / "p1" / f"a{ending}", values(4))
    for observer in (0, 1):
        volume(tmp_path / "p1" / f"a_obs0{observer}{ending}", marked(4, dtype))
    frames = CineFrames(tmp_path)
    assert [name.text for name in frames.names] == [f"p1/a{ending}#{number}" for number in range(4)]
    for number in (3, 0, 2):
        found = frames.read(number)
        assert np.array_equal(found.image, values(4)[number])
        assert (found.observers, found.masks.shape) == ((0, 1), (2, *SIZE))
        assert np.array_equal(found.masks[1], marked(4)[number] > 0)
    assert frames.notes == ()


def test_video__images_of_masks_and_volumes_beside_it(tmp_path: Path) -> None:
    for subject in ("p1", "p2"):
        (tmp_path / subject).mkdir()
        make_video(tmp_path / subject / "a.avi", 5)
    for number in (3, 1):
        Image.fromarray(np.asarray(marked(2)[1] * 255, np.uint8)).save(tmp_path / "p1" / f"a_00{number}_obs00.png")
    volume(tmp_path / "p2" / "a_obs00.nii.gz", marked(5))
    frames = CineFrames(tmp_path)
    assert [name.text for name in frames.names[:2]] == ["p1/a.avi#1", "p1/a.avi#3"]
    for place, number in ((1, 3), (0, 1), (1, 3), (6, 4)):
        found = frames.read(place)
        assert np.abs(found.image.astype(int) - (20 * number + 10)).max() <= 1
        assert int(found.masks.sum()) == 180
    assert frames.notes == (f"'{tmp_path}': 3 frames have no mask and are left out.",)


def test_read__a_packed_file_is_opened_once_for_all_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume(tmp_path / "p1" / "a_obs00.nii.gz", marked(5))
    make_video(tmp_path / "p1" / "a.avi", 5)
    frames, opened = CineFrames(tmp_path), []
    for kind in (NiftiFrames, VideoFrames):

        def counted(self: Any, *given: Any, real: Any = kind.__init__) -> None:  # noqa: ANN401
            opened.append(1)
            real(self, *given)

        monkeypatch.setattr(kind, "__init__", counted)
    shuffled = [int(frames.read(place).image[0, 0]) for place in (4, 0, 3, 1, 2)]
    assert len(opened) == 2
    child = os.fork()
    if not child:  # a worker reads what the process before it has stored
        os._exit(shuffled != [int(frames.read(place).image[0, 0]) for place in (4, 0, 3, 1, 2)] or len(opened) != 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_lists__flat_files_with_their_subjects_and_recorded_lists(tmp_path: Path) -> None:
    for name in ("a", "b"):
        volume(tmp_path / f"{name}.nii", values(2) + ord(name) % 2)
        volume(tmp_path / f"{name}_obs00.nii", marked(2))
    with pytest.raises(DataError, match=r"names no subjects.*Add subjects\.csv"):
        read_lists(UltrasoundData(root=tmp_path), ["train"])
    (tmp_path / "subjects.csv").write_text("file,subject\na.nii,p1\nb.nii,p2\n")
    (tmp_path / "splits.json").write_text(
        '{"seed": 0, "subjects": {"train": ["p2"], "val": ["p1"]}, "keys_sha256": ""}'
    )
    lists = read_lists(UltrasoundData(root=tmp_path), ["train", "val"])
    assert [name.text for name in lists["train"].names] == ["b.nii#0", "b.nii#1"]
    assert lists["val"].subjects == ("p1", "p1")
    (tmp_path / "subjects.csv").write_text("file,subject\na.nii,p1\n")
    with pytest.raises(DataError, match=r"names no subject for 'b\.nii'"):
        read_lists(UltrasoundData(root=tmp_path), ["train"])


def test_open__masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    volume(tmp_path / "p1" / "a.nii", values(3))
    for change, told in {
        "two frames": r"'.*a_obs00\.nii' has '2' frames, 'a\.nii' has 3",
        "elsewhere": r"a_obs00\.nii' lies elsewhere than 'a\.nii'",
    }.items():
        volume(tmp_path / "p1" / "a_obs00.nii", marked(2 if change == "two frames" else 3), 0.5)
        with pytest.raises(DataError, match=told):
            CineFrames(tmp_path)
    volume(tmp_path / "p1" / "a_obs00.nii", marked(3)[:, :-1])
    with pytest.raises(InputError, match=r"has shape '\(47, 64\)', its image \(48, 64\)"):
        CineFrames(tmp_path).read(0)
    volume(tmp_path / "p1" / "a_obs00.nii", marked(3))
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "p1" / "a_000_obs01.png")
    with pytest.raises(DataError, match="has masks as images and as NIfTI"):
        CineFrames(tmp_path)


def test_open__a_mask_in_a_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    make_video(tmp_path / "p1" / "a.avi", 2)
    make_video(tmp_path / "p1" / "a_obs00.avi", 2)
    with pytest.raises(DataError, match=r"a_obs00\.avi' is a mask in a video, .*Save masks as a_obs00\.nii\.gz"):
        CineFrames(tmp_path)


def test_open__two_cines_of_one_name(tmp_path: Path) -> None:
    volume(tmp_path / "p1" / "a.nii", values(2))
    make_video(tmp_path / "p1" / "a.avi", 2)
    with pytest.raises(DataError, match="has two files called 'a'"):
        CineFrames(tmp_path)
