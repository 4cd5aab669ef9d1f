"""DICOM images read in a child process, because a decoder can end the process at a damaged stream.

GDCM met nine of 1 100 random damages to two lossless JPEG files with a signal instead of an error. The checks of
``vision_core/dicom/codestream.py`` leave one of 1 800.
"""

import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.reader import read_dicom_image
from vision_core.environment import keep_offline
from vision_core.errors import InputError


class DicomReader:
    """Reads as ``read_dicom_image`` does, in a child that is replaced when it dies. Threads take turns.

    Args:
        seconds: What one image may take.
    """

    def __init__(self, *, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._turn = threading.Lock()
        self._child: ProcessPoolExecutor | None = None
        self._process = 0

    def read(self, path: Path, frame: int | None = None, max_megapixels: float = 100.0) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8, RGB.

        Raises:
            InputError: As ``read_dicom_image``; or decoding crashed or hung.
            OSError: The disk or share failed while reading; trying again may help.
        """
        with self._turn:
            child = self._started()
            try:
                return child.submit(read_dicom_image, path, frame, max_megapixels).result(self._seconds)
            except BrokenProcessPool as error:
                self._stop()
                raise InputError(f"'{path}' made its decoder crash: it is damaged. Copy or export it again.") from error
            except FutureTimeout as error:
                self._stop()
                raise InputError(
                    f"'{path}' took longer than {self._seconds:g} s to decode. Export it again."
                ) from error

    def close(self) -> None:
        """End the child; reading again starts another."""
        with self._turn:
            self._stop()

    def __enter__(self) -> "DicomReader":
        """The reader itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _started(self) -> ProcessPoolExecutor:
        if self._child is None:
            context = multiprocessing.get_context("spawn")
            self._child = ProcessPoolExecutor(1, mp_context=context, initializer=_settle)
            self._process = self._child.submit(os.getpid).result()
        return self._child

    def _stop(self) -> None:
        if self._child is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        self._child.shutdown(wait=True, cancel_futures=True)
        self._child = None


def _settle() -> None:
    """In the child: no network, no core files; Ctrl-C is for the parent; what C libraries print says nothing useful."""
    keep_offline()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
