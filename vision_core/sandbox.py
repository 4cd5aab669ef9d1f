"""Images of unknown origin, decoded in a process of their own that may crash, hang or run out of memory.

Only numbers come back: a JSON header and bare pixels. No pickle crosses, so a decoder that was taken over by a file
cannot reach further through it.
"""

import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.environment import keep_offline
from vision_core.errors import InputError, UserError

_LOG = logging.getLogger("domainsight")
_ROOT = Path(__file__).resolve().parent.parent
_MIB = 2**20
_START_SECONDS = 60.0


class Decoder:
    """Reads images as ``vision_core.images.reading.read_image`` does, in a child process that is replaced when it dies.

    Threads may share one decoder; they take turns.

    Args:
        max_megapixels: Larger images are refused by their header.
        memory_mib: What decoding may take on top of the child's own size.
        seconds: What one image may take.
    """

    def __init__(self, *, max_megapixels: float = 100.0, memory_mib: int = 4096, seconds: float = 60.0) -> None:
        self._limits = {"max_megapixels": max_megapixels, "memory_mib": memory_mib, "seconds": seconds}
        self._turn = threading.Lock()
        self._child: _Child | None = None

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8, RGB.

        Raises:
            InputError: As ``read_image``; or decoding crashed, hung or needed too much memory.
            OSError: The disk or share failed while reading; trying again may help.
        """
        with self._turn:
            try:
                return self._running().read_image(path)
            except _ChildLost as loss:
                self._stop()
                raise InputError(f"'{path}' {loss}. Open it in a viewer you trust and save it anew.") from loss
            except BaseException as error:
                # After an interruption an answer may be on its way still: the next image must not get it.
                if not isinstance(error, UserError | OSError):
                    self._stop()
                raise

    def close(self) -> None:
        """End the child; reading again starts another."""
        with self._turn:
            self._stop()

    def __enter__(self) -> "Decoder":
        """The decoder itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _running(self) -> "_Child":
        self._child = self._child or _Child(self._limits)
        return self._child

    def _stop(self) -> None:
        if self._child:
            self._child.stop()
            self._child = None


class _ChildLost(Exception):
    """The child died or was ended; the text says what the image did to it."""


class _Child:
    """One decoding process and the line to it."""

    def __init__(self, limits: dict[str, float]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vision_core.sandbox", str(theirs.fileno()), json.dumps(limits)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=_ROOT,
                process_group=0,  # Ctrl-C is for the parent, which then ends the child
            )
        self._line = Connection(ours.detach())
        self._limits = limits
        self.stop = weakref.finalize(self, _end, self._process, self._line)
        self._expect(_START_SECONDS)

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Ask for one image."""
        try:
            self._line.send_bytes(str(path.absolute()).encode(errors="surrogateescape"))
        except OSError as error:
            raise _ChildLost("could not be given to the decoder, which has ended") from error
        header = self._expect(self._limits["seconds"])
        for warning in header.get("warnings", ()):
            _LOG.warning("%s", _shortened(str(warning), path))
        if "shape" not in header:
            raise _error(header, path)
        return self._pixels(header["shape"])

    def _expect(self, seconds: float) -> dict[str, Any]:
        if not self._line.poll(seconds):
            raise _ChildLost(f"took longer than {seconds:g} s to decode")
        try:
            return dict(json.loads(self._line.recv_bytes(_MIB)))
        except (EOFError, OSError, ValueError) as error:
            raise _ChildLost(self._cause()) from error

    def _pixels(self, shape: list[int]) -> NDArray[np.uint8]:
        if not self._is_sane(shape):
            raise _ChildLost("made the decoder answer nonsense")
        pixels = np.empty(shape, np.uint8)
        try:
            size = self._line.recv_bytes_into(pixels.data.cast("B"))
        except (EOFError, OSError, BufferError) as error:
            raise _ChildLost(self._cause()) from error
        if size != pixels.nbytes:
            raise _ChildLost("gave fewer pixels than its decoder announced")
        return pixels

    def _is_sane(self, shape: list[int]) -> bool:
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
            return False
        return shape[0] * shape[1] <= self._limits["max_megapixels"] * 1e6

    def _cause(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "made the decoder answer nonsense"
        told = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"made the decoder crash ({told})"


def _end(process: "subprocess.Popen[bytes]", line: Connection) -> None:
    line.close()
    process.kill()
    process.wait()


def _error(header: dict[str, Any], path: Path) -> Exception:
    if header.get("errno"):
        return OSError(int(header["errno"]), os.strerror(int(header["errno"])), str(path))
    return InputError([_shortened(str(problem), path) for problem in header.get("problems", ["It cannot be decoded."])])


def _shortened(text: str, path: Path) -> str:
    """``text`` with the path as the user wrote it; the child knows the absolute one."""
    return text.replace(str(path.absolute()), str(path))


class _Warnings(logging.Handler):
    """Keeps what is warned of, to be told by the parent."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _serve(line: Connection, limits: dict[str, float]) -> None:
    """The life of a child: a path in, a header and pixels out, until the parent closes the line."""
    from vision_core.images.reading import (
        read_image,  # the imports take longer than the parent, which needs them as well
    )

    keep_offline()
    warnings = _Warnings()
    _LOG.addHandler(warnings)
    _LOG.propagate = False
    _limit_memory(int(limits["memory_mib"]))
    line.send_bytes(b"{}")
    while True:
        path = Path(line.recv_bytes().decode(errors="surrogateescape"))
        signal.alarm(int(limits["seconds"]) + 5)  # ends this process even when the parent is gone
        warnings.texts.clear()
        pixels: NDArray[np.uint8] | None = None
        try:
            pixels = np.ascontiguousarray(read_image(path, limits["max_megapixels"]))
            header: dict[str, Any] = {"shape": pixels.shape}
        except (InputError, OSError, MemoryError) as error:
            header = _told(error, path, limits)
        line.send_bytes(json.dumps({**header, "warnings": warnings.texts[:10]}).encode())
        if pixels is not None:
            line.send_bytes(pixels.data.cast("B"))
        signal.alarm(0)


def _told(error: Exception, path: Path, limits: dict[str, float]) -> dict[str, Any]:
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return {"problems": [f"'{path}' needs more than {limits['memory_mib']:g} MiB to decode. Cut it into tiles."]}
    if isinstance(error, InputError):
        return {"problems": error.problems}
    return {"errno": getattr(error, "errno", None), "problems": [f"'{path}' cannot be read: {error}."]}


def _limit_memory(memory_mib: int) -> None:
    own_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = own_pages * resource.getpagesize() + memory_mib * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    with suppress(EOFError, OSError):
        _serve(Connection(int(sys.argv[1])), json.loads(sys.argv[2]))
