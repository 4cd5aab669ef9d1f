"""Requests to stop, by SIGTERM or Ctrl-C, which loops act on between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_is_asked = False


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal: raise, and remember, as Python drops exceptions in destructors."""
    global _is_asked
    _is_asked = True
    raise KeyboardInterrupt


def raise_if_stopped() -> None:
    """Raise if ``interrupt`` was called; for use between two inputs or batches."""
    if _is_asked:
        raise KeyboardInterrupt


def forget() -> None:
    """Forget an earlier call of ``interrupt``."""
    global _is_asked
    _is_asked = False


@dataclass
class StopRequest:
    """Flag set by SIGTERM or Ctrl-C and read between two steps."""

    requested: bool = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first SIGTERM or Ctrl-C into a request; the second one acts as usual."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
