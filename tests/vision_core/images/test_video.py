from pathlib import Path

import cv2
import numpy as np
import pytest

from vision_core.errors import EnvironmentFault, InputError
from vision_core.images.video import VideoFrames, write_video


def make_video(path: Path, frames: int = 6, codec: str = "FFV1") -> Path:
    """A lossless video of frames of one grey each."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (64, 48))  # type: ignore[attr-defined]
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 20 * number + 10, np.uint8))
    writer.release()
    return path


def test_read__frames_forward_and_back(tmp_path: Path) -> None:
    video = VideoFrames(make_video(tmp_path / "a.avi"), max_frames=6)
    assert (video.count, video.size, video.notes) == (6, (48, 64), ())
    for number in (0, 1, 5, 2, 2):
        assert np.abs(video.read(number).astype(int) - (20 * number + 10)).max() <= 1
    with pytest.raises(InputError, match="there is no frame '6'"):
        video.read(6)


def test_open__refusals(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi")
    with pytest.raises(InputError, match="declares '6' frames; 5 at most"):
        VideoFrames(path, max_frames=5)
    with pytest.raises(InputError, match=r"frames of '64 x 48' pixels; 0\.001 million"):
        VideoFrames(path, max_frames=6, max_megapixels=0.001)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1\n" + str(path))
    with pytest.raises(InputError, match="is no MP4, QuickTime, AVI or Matroska file"):
        VideoFrames(tmp_path / "list.mp4", max_frames=6)
    (tmp_path / "half.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 40)
    with pytest.raises(InputError, match="cannot be decoded as a video"):
        VideoFrames(tmp_path / "half.mp4", max_frames=6)


@pytest.mark.parametrize("rate", [1000 / 33.333, 66.6667, 7.5])  # the second does not fit the clock with more decimals
def test_write__size_rate_and_frames_come_back(rate: float, tmp_path: Path) -> None:
    greys = [40, 120, 200]
    write_video(tmp_path / "a.mp4", (np.full((47, 63, 3), each, np.uint8) for each in greys), rate)
    video = VideoFrames(tmp_path / "a.mp4", max_frames=3)
    assert (video.count, video.size) == (3, (48, 64))  # odd sides are filled up
    assert np.diff(video.times_ms) == pytest.approx([1000 / rate] * 2, rel=2e-3)
    for number, grey in enumerate(greys):
        assert abs(float(video.read(number).mean()) - grey) < 3


def test_write__what_cannot_be_encoded_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"a\.mp4' cannot be written as a video"):
        write_video(tmp_path / "a.mp4", [], 25.0)
    assert list(tmp_path.iterdir()) == []
