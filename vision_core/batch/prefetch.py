"""Make ready what comes next while one is worked on."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from vision_core.errors import InputError
from vision_core.files import Stamp, stamp

R = TypeVar("R")


class Prefetcher(Generic[R]):
    """What ``make`` makes of files, on a thread, from the moment that they are expected.

    Args:
        make: Opens a slide and finds its tissue, say.
        discard: Closes what nobody took.
    """

    def __init__(self, make: Callable[[Path], R], discard: Callable[[R], None]) -> None:
        self._make, self._discard = make, discard
        self._thread: ThreadPoolExecutor | None = None
        self._begun: dict[Path, Future[tuple[Stamp, R]]] = {}

    def expect(self, paths: Sequence[Path]) -> None:
        """These files come next, in this order, and no others."""
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
        """What was made of a file, or now is: where it was not expected, or has changed since.

        Raises:
            InputError: ``make`` raised it, here or there; likewise anything else.
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
