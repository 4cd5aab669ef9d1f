"""Video files (MP4, AVI, Matroska), their frames decoded one after the other by OpenCV."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
_STARTS = ((4, b"ftyp"), (8, b"AVI "), (0, b"\x1a\x45\xdf\xa3"))  # of MP4 and QuickTime, AVI, Matroska
_START_BYTES = 12


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
