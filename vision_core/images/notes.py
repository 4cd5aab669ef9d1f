"""Notes of readers on single files: warned of, and gathered for a record."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_MOST_WARNINGS = 5  # of a kind and folder in one process: it may hold thousands
_SHOWN = 3
_LOG = logging.getLogger("domainsight")
_told: Counter[tuple[Path, str]] = Counter()


def tell(path: Path, notes: Sequence[str]) -> None:
    """Warn of the notes on a file, each the rest of a sentence that begins with its name."""
    for note in notes:
        kind = path.parent, note
        _told[kind] += 1
        if _told[kind] <= _MOST_WARNINGS:
            more = " Further files like this are not named." if _told[kind] == _MOST_WARNINGS else ""
            _LOG.warning("'%s' %s.%s", path, note, more)


def gathered(notes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Count the notes on files, by name: a line for each kind of note, with the first names."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, each in notes.items():
        for note in each:
            names[note].append(name)
    return tuple(f"{len(found)} of the files: {note} ({_some(found)})" for note, found in names.items())


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
