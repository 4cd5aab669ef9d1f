"""Which files are there: every folder is listed once, which a share answers faster than a question per file."""

import os
from pathlib import Path

from pipelines.pretrain.data.index import Reading

LINKS_OUT = "links that lead out of the data set, in a circle or to nothing, left out"


class Presence:
    """The files below a folder.

    Links are followed only inside the folder; others are noted and count as absent.

    Args:
        root: The folder.
        reading: Where links are noted.
    """

    def __init__(self, root: Path, reading: Reading) -> None:
        self._root, self._reading = root, reading
        self._inside = root.resolve()
        self._folders: dict[str, frozenset[str]] = {}

    def has(self, name: str) -> bool:
        """Whether ``name``, relative to the root and with slashes, is a file."""
        folder, _, file = name.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self._list(folder)
        return file in self._folders[folder]

    def is_inside(self, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry is no link, or one that stays inside; others are noted."""
        if not entry.is_symlink():
            return True
        try:
            stays = Path(entry.path).resolve(strict=True).is_relative_to(self._inside)
        except (OSError, RuntimeError):
            stays = False
        if not stays:
            self._reading.note(LINKS_OUT, os.path.relpath(entry.path, self._root))
        return stays

    def _list(self, folder: str) -> frozenset[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                return frozenset(entry.name for entry in entries if self.is_inside(entry) and entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
