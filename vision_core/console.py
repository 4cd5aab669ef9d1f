"""Console output: lines, progress bars with rate and remaining time, the log of a run."""

import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from vision_core.errors import one_line

ItemT = TypeVar("ItemT")
_PLAIN_SECONDS = 10.0


class Progress:
    """Progress bar on a terminal, elsewhere a plain line every ten seconds: count, rate, remaining time.

    Args:
        total: Number of items.
        label: Text before the bar.
        unit: Name of an item.
        initial: Items done before; they do not count in the rate.
        is_passing: Remove the bar after the last item, where a sentence follows.
    """

    def __init__(self, total: int, label: str, unit: str = "it", initial: int = 0, *, is_passing: bool = False) -> None:
        self._bar = tqdm(
            total=total,
            initial=initial,
            desc=one_line(label),
            unit=unit,
            file=sys.stderr,
            dynamic_ncols=True,
            leave=not is_passing,
            disable=_is_silent or not sys.stderr.isatty(),
        )
        self._label, self._unit, self._total, self._is_passing = one_line(label), unit, total, is_passing
        self._first, self._done = initial, initial
        self._start = self._told = time.monotonic()

    def advance(self, note: str = "") -> None:
        """Count one item; ``note`` is shown behind the bar."""
        self.reach(self._done + 1, note)

    def reach(self, done: int, note: str = "") -> None:
        """Set the number of items done."""
        note = one_line(note)
        if note and not self._bar.disable:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        is_last = done == self._total and not self._is_passing
        if self._bar.disable and not _is_silent and (now - self._told >= _PLAIN_SECONDS or is_last):
            self._told = now
            self._tell(now, note)

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()

    def _tell(self, now: float, note: str) -> None:
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else 0
        told = f"{self._label}: {self._done}/{self._total} {self._unit}, {rate:.2f} {self._unit}/s, {_clock(left)} left"
        sys.stderr.write(", ".join(filter(None, (told, note))) + "\n")
        sys.stderr.flush()


def track(items: Iterable[ItemT], total: int, label: str, unit: str = "it") -> Iterator[ItemT]:
    """Iterate over ``items`` under a progress bar."""
    progress = Progress(total, label, unit)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()


_is_silent = False
_LOG_PATH: ContextVar[Path | None] = ContextVar("log_path", default=None)


def be_silent() -> None:
    """Silence this process: another one of the same training writes the messages."""
    global _is_silent
    _is_silent = True


def is_silent() -> bool:
    """Tell whether this process is silenced."""
    return _is_silent


def say(text: str) -> None:
    """Print text, without tearing a progress bar, and log it.

    Control characters become escapes, apart from line feeds: callers pass names through ``one_line``.
    """
    if _is_silent:
        return
    tqdm.write(_escaped(text), file=sys.stdout)
    sys.stdout.flush()
    note(text)


def note(text: str) -> None:
    """Write a line to the log of the run alone."""
    path = _LOG_PATH.get()
    if path:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {_escaped(text.strip())}\n")


def _escaped(text: str) -> str:
    return "\n".join(map(one_line, text.split("\n")))


def command_line(words: Sequence[str]) -> str:
    """Join words to a command that a shell takes, on one line whatever they hold."""
    return " ".join(shlex.quote(word) if word == one_line(word) else _dollar_quoted(word) for word in words)


def _dollar_quoted(word: str) -> str:
    escaped = "".join(f"\\x{byte:02x}" if byte < 32 or byte > 126 or byte in b"\\'" else chr(byte)
                      for byte in os.fsencode(word))  # fmt: skip
    return f"$'{escaped}'"


class _OneLine(logging.Filter):
    """Escapes control characters in what the package logs, and thereby warns of."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace message and arguments by the escaped text."""
        record.msg, record.args = one_line(record.getMessage()), ()
        return True


_LOG = logging.getLogger("domainsight")
_LOG.addFilter(_OneLine())


@contextmanager
def debugging() -> Iterator[None]:
    """Print all that the package logs, tracebacks too, within the block."""
    handler, before = logging.StreamHandler(), _LOG.level
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        _LOG.setLevel(before)
        _LOG.removeHandler(handler)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write all printed lines to ``path`` too, within the block."""
    before = _LOG_PATH.set(path)
    try:
        yield
    finally:
        _LOG_PATH.reset(before)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
