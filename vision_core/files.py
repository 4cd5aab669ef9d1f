"""Atomic writing of files, their hashes and stamps, strict JSON, and errors of full or read-only disks."""

import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

from pydantic import BaseModel, ConfigDict

from vision_core.errors import EnvironmentFault, InputError

_PARTIAL = re.compile(r"\.partial-(?P<process>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{8}(\..*)?")
_REMEDIES = {
    errno.ENOSPC: "Free some space, or write elsewhere",
    errno.EDQUOT: "Free some of your quota, or write elsewhere",
    errno.EFBIG: "Raise the limit on file size (ulimit -f), or write elsewhere",
    errno.EACCES: "Get write access, or write elsewhere",
    errno.EPERM: "Get write access, or write elsewhere",
    errno.EROFS: "Write to a disk that is not read-only",
    errno.EEXIST: "A file stands where a folder is needed: choose another place",
    errno.ENOTDIR: "A file stands where a folder is needed: choose another place",
}
_ENDS_BYTES = 65536
README = "README.txt"
_README_MARK = "Written by DomainSight. For research use. Not for diagnosis."
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_WRITING = _FULL | {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Provide a temporary path that replaces ``path`` when the block succeeds.

    Missing folders are made. File and folder are flushed to disk, so that a crash leaves the old file or the new one.
    The temporary file is removed when the block fails.

    Raises:
        EnvironmentFault: The disk is full, the file too large, or writing is not allowed.
    """
    partial = path.parent / _partial_name(path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise EnvironmentFault(_describe(error, path, partial)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write bytes or UTF-8 text to ``path``, whole or not at all.

    Characters that UTF-8 cannot hold are written as escapes.

    Raises:
        EnvironmentFault: As for ``atomic_path``.
    """
    content = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_readme(folder: Path, title: str, files: Mapping[str, str]) -> None:
    """Write ``README.txt``, which says what each file of an output folder is for; a person's own one stays.

    Args:
        folder: The folder.
        title: What the folder holds.
        files: Purpose of each file, or of several with a common ending.

    Raises:
        EnvironmentFault: It cannot be written.
    """
    path = folder / README
    if path.is_symlink() or (path.exists() and not is_our_readme(path)):
        return
    left = max(map(len, files), default=0) + 2
    shape = TextWrapper(width=110, subsequent_indent=" " * left, break_on_hyphens=False)
    lines = [shape.fill(f"{name.ljust(left)}{purpose}") for name, purpose in files.items()]
    write_atomic(path, "\n".join([_README_MARK, title, "", *lines, ""]))


def is_our_readme(path: Path) -> bool:
    """Tell whether a file is one of ``write_readme``."""
    try:
        return path.read_text(encoding="utf-8").startswith(_README_MARK)
    except (OSError, ValueError):
        return False


def text_of(path: Path) -> str:
    """Convert a path to valid UTF-8 text; other bytes become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_digits(path: Path) -> str:
    """Compute the first eight digits of a file's SHA-256, by which results name their input."""
    return sha256(path)[:8]


def origin_text(model: str, digits: str = "", part: str = "") -> str:
    """Write what a file of results is of, for a field of that file; it names no file and no person.

    Args:
        model: Identity of the model.
        digits: First digits of the input's hash; empty where it was not taken.
        part: What part of the input is shown, such as ``frame 1`` or ``level 0``; empty: all of it.

    Returns:
        A line of sentences; the same for the same arguments and the same version of this software.
    """
    from importlib.metadata import version

    of = ", ".join(filter(None, (digits and f"Input {digits}", part)))
    told = (f"{of[:1].upper()}{of[1:]}", f"Model {model}", f"DomainSight {version('domainsight')}")
    return f"{'. '.join(filter(None, told))}."


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove temporary files of killed processes of this machine from ``folder``.

    To be called before this process writes. Files of running processes and of other machines stay.

    Returns:
        The removed files.
    """
    leftovers = [path for path in sorted(folder.iterdir()) if _is_abandoned(path.name)]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def _partial_name(suffix: str) -> str:
    # The suffix stays at the end because writers choose the format by it; the length is bounded whatever the name.
    return f".partial-{os.getpid()}-{_host()}-{secrets.token_hex(4)}{suffix}"


def _host() -> str:
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def _is_abandoned(name: str) -> bool:
    match = _PARTIAL.fullmatch(name)
    if match is None or match["host"] != _host():
        return False
    # A temporary file under our own process number is of a dead process: the caller has written nothing yet.
    return int(match["process"]) == os.getpid() or not _is_running(int(match["process"]))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _describe(error: OSError, path: Path, partial: Path) -> str:
    try:
        written = partial.stat().st_size
    except OSError:
        written = 0
    reason = os.strerror(error.errno or 0).lower()
    return f"Cannot write '{path}': {reason}, after {written} bytes. {_REMEDIES[error.errno or 0]}."


class Stamp(BaseModel):
    """Size, time of change and partial hash of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    modified_ns: int
    ends: str


def stamp(path: Path) -> Stamp:
    """Compute the stamp of a file; its hash covers 64 KiB at each end.

    Raises:
        InputError: The file is missing, cannot be opened, or is a pipe.
    """
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening one would wait for its writer
            raise InputError(f"'{path}' is a pipe, no file. Save what comes through it, and give that.")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = blake2b(file.read(_ENDS_BYTES), digest_size=16)
            file.seek(max(0, status.st_size - _ENDS_BYTES))
            digest.update(file.read(_ENDS_BYTES))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error
    return Stamp(size=status.st_size, modified_ns=status.st_mtime_ns, ends=digest.hexdigest())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert errors of writing within the block to one that names ``path``.

    Raises:
        EnvironmentFault: The disk is full, the file too large, or writing is not allowed.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_WRITING:
            raise
        reason = os.strerror(error.errno).lower()
        raise EnvironmentFault(f"Cannot write '{path}': {reason}. Fix that, then run the same command.") from error


class RepeatedKeyError(ValueError):
    """Key that an object of a JSON text names more than once."""

    def __init__(self, key: str) -> None:
        super().__init__(f"an object names the key '{key}' twice, and programs differ in which they keep")


def parse_json(text: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:  # noqa: ANN401 (any JSON)
    """Parse JSON; arguments as for ``json.loads``.

    Raises:
        RepeatedKeyError: An object names a key twice.
        ValueError: It is no JSON.
    """
    return json.loads(text, parse_constant=parse_constant, object_pairs_hook=_unrepeated)


def to_json(content: Any, indent: int = 1, default: Callable[[Any], Any] | None = None) -> str:  # noqa: ANN401
    """Write as JSON: NaN and infinity, which it does not have, as null; ``default`` as for ``json.dumps``."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False, default=default)


def _finite(content: Any) -> Any:  # noqa: ANN401
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(next(name for place, name in enumerate(names) if name in names[:place]))
    return found
