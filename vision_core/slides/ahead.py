"""Work on one item while the next is prepared."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def one_ahead(items: Iterable[T], prepare: Callable[[T], R]) -> Iterator[tuple[T, Future[R]]]:
    """Each item with what ``prepare`` makes of it, on a thread, begun while the item before is worked on.

    Args:
        items: In order.
        prepare: Opens a slide and finds its tissue, say; ``Future.result`` gives what it returns, or raises what it
            raised, so that one bad item ends nothing.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        before: tuple[T, Future[R]] | None = None
        for item in items:
            following = (item, thread.submit(prepare, item))
            if before is not None:
                yield before
            before = following
        if before is not None:
            yield before
