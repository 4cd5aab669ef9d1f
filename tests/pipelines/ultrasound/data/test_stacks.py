"""NIfTI and videos as inputs of prediction, decoded in a child process."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.ultrasound.data.files import is_dicom_input, list_inputs, open_file
from tests.vision_core.images.test_video import make_video
from vision_core.errors import InputError
from vision_core.images.nifti import write_masks
from vision_core.images.untrusted import UntrustedImages


def test_open__nifti_and_video_frame_by_frame(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((3, 5, 7)) > 0.5
    write_masks(tmp_path / "a.nii.gz", masks, (0.3, 0.2))
    make_video(tmp_path / "b.avi", 4)
    assert [path.name for path in list_inputs(tmp_path)] == ["a.nii.gz", "b.avi"]
    with UntrustedImages() as reader:
        volume, video = (open_file(path, reader) for path in list_inputs(tmp_path))
        assert volume.texts == ("a.nii.gz#0", "a.nii.gz#1", "a.nii.gz#2")
        assert np.allclose(volume.spacing_mm or (), (0.3, 0.2))
        assert np.array_equal(volume.read(2) > 0, masks[2])
        assert len(video.texts) == 4
        assert np.abs(video.read(3).astype(int) - 70).max() <= 1
        assert (video.read(1).shape, video.spacing_mm) == ((48, 64), None)
        assert video.notes == ("The file states no size of its pixels; sizes are in pixels.",)
        assert video.times_ms == pytest.approx((0, 40, 80, 120))
        assert volume.times_ms is None
        assert np.array_equal(volume.read(0) > 0, masks[0])  # another file was open in between
    assert not any(map(is_dicom_input, list_inputs(tmp_path)))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mp4"])
def test_open__text_under_these_names_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("words " * 100)
    with UntrustedImages() as reader, pytest.raises(InputError, match=r"is no (NIfTI file|MP4)"):
        open_file(tmp_path / name, reader)
