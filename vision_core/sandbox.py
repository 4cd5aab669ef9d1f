"""Work on files of unknown origin in a child process that may crash, hang or run out of memory.

The parent names a function by module and name; the child imports it, calls it on one file after the other, and answers
over a socket pair with a JSON header and the bare bytes of arrays. No pickle crosses, so that a decoder which a file
has taken over cannot reach further through it. In the child no socket can be made, it has no network where the machine
allows an empty namespace, and memory, processor time and wall time are limited.

Training loaders read directly: their files were looked at before the run, and a copy through a socket costs time.
"""

import ctypes
import json
import logging
import math
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import BufferTooShort
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vision_core import errors
from vision_core.environment import keep_offline
from vision_core.errors import InputError, UserError, one_line

Arrays = Mapping[str, NDArray[Any]]
_LOG = logging.getLogger("domainsight")
_ROOT = Path(__file__).resolve().parent.parent
_MIB = 2**20
_START_SECONDS = 60.0
_MOST_WARNINGS = 10
_ARRAY_KINDS = "buif"  # of numpy dtypes: numbers, nothing that points at objects
_PR_SET_PDEATHSIG = 1
# The network is left before numpy is imported: a process of several threads may enter no user namespace.
_CHILD = "from vision_core import environment as e; e.leave_network(); from vision_core.sandbox import main; main()"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the work on one file.

    Attributes:
        memory_mib: Memory on top of the child's own size.
        seconds: Wall time; processor time is limited to as much on every core.
        answer_mib: Size of all arrays of an answer.
    """

    memory_mib: int = 4096
    seconds: float = 60.0
    answer_mib: int = 4096


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of the child.

    Attributes:
        value: Whatever JSON can hold.
        arrays: By name; a function that returns one array gives it the empty name.
    """

    value: Any
    arrays: Arrays

    @property
    def array(self) -> NDArray[Any]:
        """The one array."""
        return self.arrays[""]


class Sandbox:
    """Child process for files of unknown origin; it starts with the first file and is replaced when it dies.

    Threads may share one sandbox; they take turns. In such a child, functions are called at once. A file during which
    the child dies is tried once more with a new child, since the machine may have ended the child for another's sake.

    Args:
        limits: Of the work on one file.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._turn = threading.Lock()
        self._child: _Child | None = None

    def run(self, function: str, path: Path, **arguments: Any) -> Answer:  # noqa: ANN401 (whatever JSON can hold)
        """Call a function on a file in the child.

        Args:
            function: ``module:name``; called as ``name(path, **arguments)``. It returns an array, or a mapping of names
                to arrays with a value that JSON can hold.
            path: The file.
            arguments: Further arguments, as JSON can hold them.

        Raises:
            InputError: The child crashed twice on this file, hung, or needed too much memory.
            UserError: As the function raised it.
            OSError: The disk or share failed while reading; trying again may help.
        """
        if _is_inside:  # of a child that reads for another process: it is confined already
            arrays, value = _split(_found(function)(path, **arguments))
            return Answer(value=value, arrays=arrays)
        with self._turn:
            try:
                try:
                    return self._running().run(function, path, arguments)
                except _ChildDied:
                    self._stop()
                    return self._running().run(function, path, arguments)
            except _ChildLostError as loss:
                self._stop()
                raise InputError(f"'{path}' {loss}. Open it in a viewer you trust and save it anew.") from loss
            except BaseException as error:
                # After an interruption an answer may be on its way still: the next file must not get it.
                if not isinstance(error, UserError | OSError):
                    self._stop()
                raise

    def close(self) -> None:
        """End the child; the next file starts another."""
        with self._turn:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _running(self) -> "_Child":
        self._child = self._child or _Child(self.limits)
        return self._child

    def _stop(self) -> None:
        if self._child:
            self._child.stop()
            self._child = None


class _ChildLostError(Exception):
    """The child was ended or answered nonsense; the text says what the file did to it."""


class _ChildDied(_ChildLostError):
    """The child ended by itself."""


class _Child:
    """A child process and the line to it."""

    def __init__(self, limits: Limits) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs.fileno(), limits)
        # A child that stops in the middle of an answer must not hold the parent.
        stalled = struct.pack("ll", math.ceil(max(limits.seconds, _START_SECONDS)), 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stalled)
        self._line = Connection(ours.detach())
        self._limits = limits
        self._imported: set[str] = set()
        self.stop = weakref.finalize(self, _end, self._process, self._line)
        self._expect(_START_SECONDS)

    def run(self, function: str, path: Path, arguments: Mapping[str, Any]) -> Answer:
        """Ask for one file."""
        if function not in self._imported:
            self._ask({"import": function})
            self._expect(_START_SECONDS)
            self._imported.add(function)
        self._ask({"function": function, "path": os.fspath(path.absolute()), "arguments": arguments})
        header = self._expect(self._limits.seconds)
        for warning in header.get("warnings", ()):
            _LOG.warning("%s", _shortened(str(warning), path))
        if "arrays" not in header:
            raise _error(header, path)
        arrays = {name: self._array(shape, dtype) for name, shape, dtype in self._checked(header["arrays"])}
        return Answer(value=header.get("value"), arrays=arrays)

    def _ask(self, question: Mapping[str, Any]) -> None:
        try:
            self._line.send_bytes(json.dumps(question).encode())
        except OSError as error:
            raise _ChildDied("could not be given to the decoder, which has ended") from error

    def _expect(self, seconds: float) -> dict[str, Any]:
        if not self._line.poll(seconds):
            raise _ChildLostError(f"took longer than {seconds:g} s to decode")
        try:
            return dict(json.loads(self._line.recv_bytes(16 * _MIB)))
        except (EOFError, OSError) as error:
            raise _ChildDied(self._cause()) from error
        except (ValueError, TypeError) as error:
            raise _ChildLostError("made the decoder answer nonsense") from error

    def _checked(self, announced: Mapping[str, Any]) -> list[tuple[str, list[int], "np.dtype[Any]"]]:
        """Refuse an announcement that a sound child does not make, before memory is taken for it."""
        try:
            items = [(str(name), *described) for name, described in announced.items()]
            found = [(name, [int(edge) for edge in shape], np.dtype(str(kind))) for name, shape, kind in items]
        except (TypeError, ValueError, AttributeError) as error:
            raise _ChildLostError("made the decoder answer nonsense") from error
        if any(dtype.kind not in _ARRAY_KINDS or min(shape, default=0) < 0 for _, shape, dtype in found):
            raise _ChildLostError("made the decoder answer nonsense")
        size = sum(math.prod(shape) * dtype.itemsize for _, shape, dtype in found)
        if size > self._limits.answer_mib * _MIB:
            most = self._limits.answer_mib
            raise _ChildLostError(f"holds {size / _MIB:,.0f} MiB of values, {most:,} at most are read")
        return found

    def _array(self, shape: list[int], dtype: "np.dtype[Any]") -> NDArray[Any]:
        array = np.empty(shape, dtype)
        if not array.nbytes:
            return array
        try:
            size = self._line.recv_bytes_into(array.reshape(-1).view(np.uint8).data)
        except (EOFError, OSError) as error:
            raise _ChildDied(self._cause()) from error
        except BufferTooShort as error:
            raise _ChildLostError("gave more values than its decoder announced") from error
        if size != array.nbytes:
            raise _ChildLostError("gave fewer values than its decoder announced")
        return array

    def _cause(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "made the decoder answer nonsense"
        told = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"made the decoder crash ({told})"


def _start(line: int, limits: Limits) -> "subprocess.Popen[bytes]":
    """Start a child from a thread that lives as long as this process: the child is killed when that thread ends."""
    global _starter
    if _starter is None:
        _starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
    return _starter.submit(
        subprocess.Popen,
        [sys.executable, "-c", _CHILD, str(line), str(os.getpid()), json.dumps(asdict(limits))],
        pass_fds=[line],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what libraries print there says nothing that a person could use
        cwd=_ROOT,
        process_group=0,  # Ctrl-C is for the parent, which then ends the child
    ).result()


_is_inside = False
_starter: ThreadPoolExecutor | None = None


def _forget_starter() -> None:
    global _starter  # a process made by fork has the parent's thread pool without its threads
    _starter = None


os.register_at_fork(after_in_child=_forget_starter)


def _end(process: "subprocess.Popen[bytes]", line: Connection) -> None:
    line.close()
    process.kill()
    process.wait()


def _error(header: Mapping[str, Any], path: Path) -> Exception:
    if header.get("errno"):
        return OSError(int(header["errno"]), os.strerror(int(header["errno"])), str(path))
    kind = getattr(errors, str(header.get("kind")), InputError)
    kind = kind if isinstance(kind, type) and issubclass(kind, UserError) else InputError
    return kind([_shortened(str(text), path) for text in header.get("problems", ["It cannot be decoded."])])


def _shortened(text: str, path: Path) -> str:
    """``text`` with the path as the user wrote it; the child knows the absolute one."""
    return one_line(text).replace(one_line(str(path.absolute())), one_line(str(path)))


# What follows runs in the child.


def _serve(line: Connection, limits: Limits) -> None:
    """Answer questions until the parent closes the line."""
    warnings = _Warnings()
    _LOG.addHandler(warnings)
    _LOG.propagate = False
    functions: dict[str, Callable[..., Any]] = {}
    line.send_bytes(b"{}")
    while True:
        question = json.loads(line.recv_bytes())
        if name := question.get("import"):
            functions[name] = _imported(name)
            line.send_bytes(b"{}")
            continue
        path = Path(question["path"])
        _limit(limits)
        warnings.texts.clear()
        arrays: Arrays = {}
        try:
            arrays, value = _split(functions[question["function"]](path, **question["arguments"]))
            announced = {name: (array.shape, array.dtype.str) for name, array in arrays.items()}
            header: dict[str, Any] = {"arrays": announced, "value": value}
        except (UserError, OSError, MemoryError) as error:
            header = _told(error, path, limits)
        line.send_bytes(json.dumps({**header, "warnings": warnings.texts[:_MOST_WARNINGS]}).encode())
        for array in arrays.values():
            if array.nbytes:
                line.send_bytes(array.reshape(-1).view(np.uint8).data)
        signal.alarm(0)


def _imported(function: str) -> Callable[..., Any]:
    """Import without a limit on memory: libraries map more than they use."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return _found(function)


def _found(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _split(result: Any) -> tuple[Arrays, Any]:  # noqa: ANN401 (an array, or arrays and a value)
    arrays, value = ({"": result}, None) if isinstance(result, np.ndarray) else result
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, value


class _Warnings(logging.Handler):
    """Keeper of warnings, which the parent tells."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _told(error: Exception, path: Path, limits: Limits) -> dict[str, Any]:
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return {"problems": [f"'{path}' needs more than {limits.memory_mib} MiB to decode. Cut it into tiles."]}
    if isinstance(error, UserError):
        return {"kind": type(error).__name__, "problems": error.problems}
    return {"errno": getattr(error, "errno", None), "problems": [f"'{path}' cannot be read: {error}."]}


def _limit(limits: Limits) -> None:
    """Limit the memory and the time of the next file."""
    own_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    memory = own_pages * resource.getpagesize() + limits.memory_mib * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory if hard < 0 else min(memory, hard), hard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor = math.ceil(used.ru_utime + used.ru_stime + limits.seconds * (os.cpu_count() or 1)) + 5
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (processor if hard < 0 else min(processor, hard), hard))
    signal.alarm(math.ceil(limits.seconds) + 5)  # ends this process even when the parent is gone


def _confine(parent: int) -> None:
    """Give up sockets, core files, and a life beyond the parent's."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse_sockets)
    keep_offline()


def _refuse_sockets(event: str, _arguments: Any) -> None:  # noqa: ANN401 (of any event)
    if event.startswith("socket."):
        raise PermissionError("files of unknown origin get no network")


def main() -> None:
    """Serve the parent: the life of a child, told its socket, its parent and its limits on the command line."""
    global _is_inside
    _confine(int(sys.argv[2]))
    _is_inside = True
    with suppress(EOFError, OSError):
        _serve(Connection(int(sys.argv[1])), Limits(**json.loads(sys.argv[3])))
