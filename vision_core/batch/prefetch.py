"""Preparation of the next inputs in the background."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from vision_core.errors import InputError
from vision_core.files import Stamp, stamp

R = TypeVar("R")


class Prefetcher(Generic[R]):
    """Thread that prepares expected files before they are taken.

    Args:
        make: Prepares a file, such as by opening a slide and finding its tissue.
        discard: Closes a prepared file that is not taken.
    """

    def __init__(self, make: Callable[[Path], R], discard: Callable[[R], None]) -> None:
        self._make, self._discard = make, discard
        self._thread: ThreadPoolExecutor | None = None
        self._begun: dict[Path, Future[tuple[Stamp, R]]] = {}

    def expect(self, paths: Sequence[Path]) -> None:
        """Prepare these files in this order, and discard all others."""
        for path in self._begun.keys() - set(paths):
            begun = self._begun.pop(path)
            begun.cancel()
            begun.add_done_callback(self._forget)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        for path in paths:
            if path not in self._begun:
                self._begun[path] = self._thread.submit(self._stamped, path)

    def take(self, path: Path) -> R:
        """Return a prepared file; prepare it now if unexpected or changed since.

        Raises:
            InputError: ``make`` raised it; likewise any other error of ``make``.
        """
        begun = self._begun.pop(path, None)
        if begun is None:
            return self._make(path)
        before, made = begun.result()
        if before == _stamp_now(path):
            return made
        self._discard(made)
        return self._make(path)

    def _stamped(self, path: Path) -> tuple[Stamp, R]:
        return stamp(path), self._make(path)

    def _forget(self, begun: "Future[tuple[Stamp, R]]") -> None:
        if not begun.cancelled() and begun.exception() is None:
            self._discard(begun.result()[1])


def _stamp_now(path: Path) -> Stamp | None:
    try:
        return stamp(path)
    except InputError:
        return None
