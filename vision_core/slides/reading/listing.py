"""Search for slides in folders."""

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
    """List the slides of a folder and all folders below, sorted.

    Hidden files and folders and the outputs of a batch are skipped. Links that lead out of the folder or in a circle,
    and folders that cannot be read, are skipped with a warning.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder. Give a folder of slides.")
    found = [path for path in sorted(_walk(folder)) if path.suffix.lower() in SLIDE_SUFFIXES]
    return [path for path in found if _is_file_within(path, folder)]


def _walk(folder: Path) -> Iterator[Path]:
    def warn(error: OSError) -> None:
        _LOG.warning("'%s' is left out: %s.", error.filename, (error.strerror or "cannot be read").lower())

    for place, below, names in os.walk(folder, onerror=warn):
        if JOB in names:  # the output folder of a batch
            below.clear()
            continue
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _is_file_within(path: Path, folder: Path) -> bool:
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
