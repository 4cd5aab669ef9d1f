"""The slides of a folder."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from vision_core.batch.folder import JOB
from vision_core.errors import InputError

_LOG = logging.getLogger("domainsight")

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi"}
)


def list_slides(folder: Path) -> list[Path]:
    """The slides of ``folder`` and of the folders below, sorted; hidden ones and outputs of a batch are left out.

    Links that lead out of the folder or in a circle, and folders that cannot be read, are named in a warning.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder. Give a folder of slides.")
    found = [path for path in sorted(_below(folder)) if path.suffix.lower() in SLIDE_SUFFIXES]
    return [path for path in found if _is_within(path, folder)]


def _below(folder: Path) -> Iterator[Path]:
    def tell(error: OSError) -> None:
        _LOG.warning("'%s' is left out: %s.", error.filename, (error.strerror or "cannot be read").lower())

    for place, below, names in os.walk(folder, onerror=tell):
        if JOB in names:  # what a batch that writes here has made
            below.clear()
            continue
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _is_within(path: Path, folder: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            _LOG.warning("'%s' is left out: a link in a circle or to nothing.", path)
            return False
        if not target.is_relative_to(folder.resolve()):
            _LOG.warning("'%s' is left out: a link that leads out of its folder, to '%s'.", path, target)
            return False
    return path.is_file()
