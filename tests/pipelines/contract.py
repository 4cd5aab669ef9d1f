"""What ``test_contract.py`` needs of a task: the value ``TASK`` in ``tests/pipelines/<task>/tiny.py``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class TinyTask:
    """A task on data so small that each verb takes seconds.

    Attributes:
        make_data: Writes a data set with a labelled list into a folder.
        words: The settings of a run of at least two steps on that data, ``key=value``, its evaluation included.
        inputs: What ``predict`` is given, from the folder of the data.
        shorten_demo: Leaves most of the demo data out, where all of it takes minutes.
        make_foreign: Writes a checkpoint of another program into a folder; returns it with the settings to read it.
    """

    make_data: Callable[[Path], Path]
    words: Callable[[Path], list[str]]
    inputs: Callable[[Path], Path]
    shorten_demo: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    make_foreign: Callable[[Path], tuple[Path, list[str]]] | None = None
