"""What takes long to make is made by the first process of a run of the tests that asks, and read by all."""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

FOLDER = "DOMAINSIGHT_MADE_ONCE"  # variable that names the folder of a run; ``conftest.py`` makes and removes it


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that ``make(folder)`` has filled in some process of this run; to be left as it is."""
    folder = Path(os.environ[FOLDER]) / name
    with FileLock(f"{folder}.lock"):
        done = folder.with_name(f"{name}.done")
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
