"""Video files (MP4, AVI, Matroska): their frames decoded one after the other by OpenCV, and pictures written as MP4."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import EnvironmentFault, InputError
from vision_core.files import atomic_path

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
_STARTS = ((4, b"ftyp"), (8, b"AVI "), (0, b"\x1a\x45\xdf\xa3"))  # of MP4 and QuickTime, AVI, Matroska
_START_BYTES = 12
_CODEC = "mp4v"  # MPEG-4 part 2, the one that OpenCV's wheels encode in a few ms: players show it, most browsers do not


class VideoFrames:
    """Frames of a video, decoded as they are asked for; going back starts anew.

    Args:
        path: The file.
        max_frames: Longer videos are refused.
        max_megapixels: Larger frames are refused.

    Attributes:
        count: Number of frames that can be decoded: all are, once, since what a file declares is often wrong.
        size: Height and width.
        times_ms: When each frame is shown, as the container says.
        notes: Remarks, which begin with the file's name.

    Raises:
        InputError: It is no video, without a frame, too long or too large.
    """

    def __init__(self, path: Path, max_frames: int, max_megapixels: float = 100.0) -> None:
        self._path = path
        # FFmpeg goes by content: a list of other files, under this name, would be followed.
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
        if not any(start[at : at + len(mark)] == mark for at, mark in _STARTS):
            raise InputError(f"'{path}' is no MP4, QuickTime, AVI or Matroska file. Convert it to one of them.")
        self._open()
        width, height = (int(self._video.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > max_megapixels * 1e6:
            raise InputError(
                f"'{path}' has frames of '{width} x {height}' pixels; {max_megapixels:g} million are read."
            )
        declared = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        if declared > max_frames:
            raise InputError(
                f"'{path}' declares '{declared}' frames; {max_frames} at most are read. Cut it into parts."
            )
        self.count, times = 0, []
        while self._video.grab():
            self.count += 1
            times.append(float(self._video.get(cv2.CAP_PROP_POS_MSEC)))
            if self.count > max_frames:
                raise InputError(f"'{path}' has more than '{max_frames}' frames. Cut it into parts.")
        if not self.count:
            raise InputError(f"'{path}' holds '0' frames that can be decoded. Convert it to MP4 with H.264.")
        self.size, self.times_ms = (height, width), tuple(times)
        told = f"declares {declared} frames; {self.count} can be decoded"
        self.notes: tuple[str, ...] = (told,) if 0 < declared != self.count else ()
        self._open()

    def read(self, frame: int) -> NDArray[np.uint8]:
        """Read a frame ``(H, W, 3)``, RGB.

        Raises:
            InputError: There is none of this number.
        """
        if not 0 <= frame < self.count:
            raise InputError(
                f"'{self._path}' holds '{self.count}' frames, counted from 0; there is no frame '{frame}'."
            )
        if frame < self._next:
            self._open()
        while self._next < frame and self._video.grab():
            self._next += 1
        is_read, found = self._video.read()
        self._next += 1
        if not is_read:
            raise InputError(f"'{self._path}': frame '{frame}' cannot be decoded. Convert the video anew.")
        return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._video.release()

    def _open(self) -> None:
        self._video: Any = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        self._next = 0
        if not self._video.isOpened():
            raise InputError(f"'{self._path}' cannot be decoded as a video. Convert it to MP4 with H.264.")


def write_video(path: Path, pictures: Iterable[NDArray[np.uint8]], rate: float) -> None:
    """Write pictures as MP4, atomically; they are taken one at a time.

    Args:
        path: File to write, ``.mp4``.
        pictures: One or more of one size, ``(H, W, 3)`` RGB; an odd last row or column is repeated.
        rate: Frames a second; kept to two decimals, within 0.1 and 600.

    Raises:
        EnvironmentFault: It cannot be encoded or written.
    """
    written, video = 0, None
    with atomic_path(path) as partial:
        for picture in pictures:
            even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
            if video is None:
                size, code = (even.shape[1], even.shape[0]), cv2.VideoWriter.fourcc(*_CODEC)
                kept = round(min(max(rate, 0.1), 600.0), 2)  # more decimals would not fit MPEG-4's clock of 16 bits
                video = cv2.VideoWriter(str(partial), cv2.CAP_FFMPEG, code, kept, size)
            video.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
            written += 1
        if video is not None:
            video.release()
        # OpenCV tells neither of a missing encoder nor of a full disk.
        if not written or int(cv2.VideoCapture(str(partial), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT)) != written:
            raise EnvironmentFault(f"'{path}' cannot be written as a video. Free some space, or install OpenCV anew.")
