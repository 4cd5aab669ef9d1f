"""Check of all images before training, remembered between runs.

A sound file counts as sound while its size and time of change stay the same; the cache holds one number for it, and
what was noted of it in ``notes.jsonl``. Corrupt files are listed, each once, in ``corrupt.jsonl`` of the cache.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.checks.safe_reading import safe_reading
from pipelines.pretrain.data.index import Images
from vision_core.errors import EnvironmentFault, InputError
from vision_core.files import write_atomic
from vision_core.images.notes import gathered
from vision_core.randomness import key
from vision_core.training import distributed

How = Literal["header", "decode"]
OnItem = Callable[[int, int], None]
Look = Callable[[int], tuple[str, ...]]

CORRUPT = "corrupt.jsonl"
_NOTES = "notes.jsonl"
_RULES = 2  # raised when other files count as sound: what was remembered before is then checked again
_LEVELS: tuple[How, ...] = ("header", "decode")  # from quick to thorough
_THREADS = 4
_BATCH = 256  # images that the threads check before results are handed on
_ATTEMPTS = 3  # of reading, where the disk or share fails and not the file
_LOG = logging.getLogger("domainsight")
_by_first: ContextVar[bool] = ContextVar("checked by the first process", default=False)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Result of a check.

    Attributes:
        sound: The images that can be read, in their order.
        faults: A line for each image that cannot, in order.
        note: Where the faults are listed; empty without faults.
    """

    sound: Images
    faults: tuple[str, ...]
    note: str


def check_images(images: Images, how: How, cache: Path | None = None, on_item: OnItem | None = None) -> Checked:
    """Check every image that is not remembered as sound.

    Args:
        images: Images to check.
        how: ``header`` finds files that are missing, empty, cut off or of another kind; ``decode`` also damaged ones.
        cache: Folder of remembered results; None checks all images and remembers nothing.
        on_item: Called with how many of how many are done.

    Raises:
        OSError: The disk or share failed three times in a row on one file.
    """
    if images.pixels.is_whole:
        return Checked(sound=images, faults=(), note="")
    if not _by_first.get():
        faults, told, notes = _look(images, how, cache, on_item)
    else:
        found = _look(images, how, cache, on_item) if distributed.rank() == 0 else ({}, "", ())
        faults, told, notes = distributed.broadcast_from_first(found)
    return _checked(replace(images, notes=(*images.notes, *notes)), faults, told)


@contextmanager
def checked_by_first() -> Iterator[None]:
    """Check images within the block in the first of several processes, for all of them.

    All processes must come here, and check the same lists in the same order.
    """
    token = _by_first.set(True)
    try:
        yield
    finally:
        _by_first.reset(token)


def _look(
    images: Images, how: How, cache: Path | None, on_item: OnItem | None
) -> tuple[dict[int, str], str, tuple[str, ...]]:
    """Check the images that are not remembered; returns faults by number, where they are listed, and notes."""
    memory = Memory(cache)
    stamps = [stamp(images.pixels.path(index)) for index in range(len(images))]
    unknown = [index for index, each in enumerate(stamps) if not memory.is_sound(each, how)]
    faults: dict[int, str] = {}
    try:
        with safe_reading(images) as read:
            look: Look = (lambda index: read.noted(index)[1]) if how == "decode" else read.check
            for done, (index, fault, notes) in enumerate(outcomes(look, unknown), start=1):
                if fault:
                    faults[index] = fault
                else:
                    memory.add(stamps[index], how, notes)
                if on_item:
                    on_item(done, len(unknown))
    finally:
        memory.write({str(images.pixels.path(index)): fault for index, fault in faults.items()})
    noted = {index: notes for index, each in enumerate(stamps) if (notes := memory.notes(each)) and index not in faults}
    told = gathered({images.pixels.name(index): notes for index, notes in noted.items()})
    return faults, memory.told, tuple(told)


def outcomes(look: Look, indices: Sequence[int]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Check images in several threads; yields each index with its fault, empty if sound, and its notes, in order."""
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(indices), _BATCH):
            part = indices[start : start + _BATCH]
            found = threads.map(lambda index: _outcome(look, index), part)
            yield from ((index, *each) for index, each in zip(part, found, strict=True))


def stamp(path: Path) -> int:
    """Hash path, size and time of change of a file; 0 where there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return key(_RULES, str(path.absolute()), status.st_size, status.st_mtime_ns)


class Memory:
    """Cache of the results of earlier checks.

    Args:
        cache: Its folder; None: nothing is remembered.
    """

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._known = {how: self._read(how) for how in _LEVELS}
        self._new: dict[How, list[int]] = {how: [] for how in _LEVELS}
        lines = _lines(cache / _NOTES, "stamp", "notes") if cache else []
        self._notes = {line["stamp"]: tuple(map(str, line["notes"])) for line in lines}
        self._has_new_notes = False
        self.told = ""

    def is_sound(self, stamp: int, how: How) -> bool:
        """Tell whether a file was checked so thoroughly and has not changed since."""
        return any(_has(self._known[each], stamp) for each in _LEVELS[_LEVELS.index(how) :])

    def notes(self, stamp: int) -> tuple[str, ...]:
        """Return what was noted of a file when it was checked."""
        return self._notes.get(stamp, ())

    def add(self, stamp: int, how: How, notes: tuple[str, ...] = ()) -> None:
        """Remember a sound file."""
        self._new[how].append(stamp)
        if notes != self.notes(stamp):
            self._notes[stamp] = notes
            self._has_new_notes = True

    def write(self, faults: Mapping[str, str]) -> None:
        """Save new results; a folder that cannot be written is only a warning, since it costs time alone."""
        if self._cache is None or not (faults or any(self._new.values())):
            return
        try:
            for how in _LEVELS:
                self._write_sound(self._cache / f"sound-{how}.npy", np.array(self._new[how], np.int64), how)
            if self._has_new_notes:
                told = ({"stamp": stamp, "notes": notes} for stamp, notes in self._notes.items() if notes)
                write_atomic(
                    self._cache / _NOTES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told)
                )
            if faults or (self._cache / CORRUPT).is_file():
                _write_faults(self._cache / CORRUPT, faults)
                self.told = f"; listed in '{self._cache / CORRUPT}'"
        except (EnvironmentFault, OSError) as error:
            _LOG.warning("Checked files are not remembered: %s", error)

    def _write_sound(self, path: Path, new: NDArray[np.int64], how: How) -> None:
        if not new.size:
            return
        content = BytesIO()
        np.save(content, np.union1d(self._known[how], new), allow_pickle=False)
        write_atomic(path, content.getvalue())

    def _read(self, how: How) -> NDArray[np.int64]:
        try:
            if self._cache is not None:
                known = np.load(self._cache / f"sound-{how}.npy", allow_pickle=False)
                return np.sort(known.astype(np.int64).ravel())
        except (OSError, ValueError, EOFError):
            pass  # no memory, or a damaged one: everything is checked again
        return np.empty(0, np.int64)


def _write_faults(path: Path, faults: Mapping[str, str]) -> None:
    """List corrupt files once, with the newest reason; deleted and replaced files leave the list."""
    listed = {str(line["file"]): line for line in _lines(path, "file")}
    listed = {file: line for file, line in listed.items() if stamp(Path(file)) == line.get("stamp")}
    listed |= {file: {"file": file, "reason": reason, "stamp": stamp(Path(file))} for file, reason in faults.items()}
    text = "".join(json.dumps(listed[file], ensure_ascii=False) + "\n" for file in sorted(listed))
    write_atomic(path, text.encode(errors="surrogateescape"))


def _lines(path: Path, *names: str) -> list[dict[str, Any]]:
    """Read the lines that hold these names."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return []
    return [line for line in lines if isinstance(line, dict) and all(name in line for name in names)]


def _has(known: NDArray[np.int64], stamp: int) -> bool:
    """Tell whether a sorted array holds a number."""
    at = int(np.searchsorted(known, stamp))
    return at < len(known) and int(known[at]) == stamp


def _outcome(look: Look, index: int) -> tuple[str, tuple[str, ...]]:
    """Return the fault of an image, empty if it is sound, and its notes."""
    for attempt in range(_ATTEMPTS):
        try:
            return "", look(index)
        except InputError as error:
            return " ".join(error.problems), ()
        except OSError:
            if attempt == _ATTEMPTS - 1:
                raise
    return "", ()


def _checked(images: Images, faults: Mapping[int, str], told: str) -> Checked:
    if not faults:
        return Checked(sound=images, faults=(), note="")
    note = f"images that cannot be read, left out: {len(faults)}{told}"
    kept = [index for index in range(len(images)) if index not in faults]
    return Checked(sound=images.keep(kept, note), faults=tuple(faults[index] for index in sorted(faults)), note=note)
