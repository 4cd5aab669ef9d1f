"""Files below a folder by name: every folder is listed once, which a share answers faster than a question per file.

``vision_core.images.reading`` lists one folder for inputs of unknown origin and warns of links; here a list or the
layout names the files, at any depth, and links are counted. Both follow links by the same rule.
"""

import os
from pathlib import Path

from vision_core.errors import Findings
from vision_core.images.reading import stays_inside


class Presence:
    """The files below a folder.

    Links are followed only inside the folder; others are noted and count as absent.

    Args:
        root: The folder.
        findings: Where links are noted.
    """

    def __init__(self, root: Path, findings: Findings) -> None:
        self._root, self._findings = root, findings
        self._inside = root.resolve()
        self._folders: dict[str, frozenset[str]] = {}

    def has(self, name: str) -> bool:
        """Tell whether ``name``, relative to the root and with slashes, is a file."""
        folder, _, file = name.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self._list(folder)
        return file in self._folders[folder]

    def is_inside(self, entry: "os.DirEntry[str]") -> bool:
        """Tell whether an entry is no link, or one that stays inside; note any other."""
        if stays_inside(entry, self._inside):
            return True
        fact = "links that lead out of the data set, in a circle or to nothing, left out"
        self._findings.note(fact, os.path.relpath(entry.path, self._root))
        return False

    def _list(self, folder: str) -> frozenset[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                return frozenset(entry.name for entry in entries if self.is_inside(entry) and entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
