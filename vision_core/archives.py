"""The one archive extractor: real paths, no links, caps on count, size and ratio; refuses before it writes."""

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from vision_core.errors import CheckpointError

MAX_FILES = 10_000
MAX_BYTES = 8 * 2**30
MAX_RATIO = 200
_SMALL = 2**20


def extract_zip(archive: Path, folder: Path) -> None:
    """Unpack ``archive`` into ``folder``.

    Raises:
        CheckpointError: Not a zip, or an entry that leaves the folder, is a link, or inflates beyond the caps.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            _check(archive, entries)
            for entry in entries:
                _write(content, entry, folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"'{archive}' is not a whole zip: {error}. Fetch it again.") from error


def _check(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise CheckpointError(f"'{archive}' holds {len(entries)} files, at most {MAX_FILES} are accepted.")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        raise CheckpointError(f"'{archive}' inflates to {total} bytes, at most {MAX_BYTES} are accepted.")
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            raise CheckpointError(f"'{archive}': entry '{entry.filename}' leaves the folder. Do not use this file.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise CheckpointError(f"'{archive}': entry '{entry.filename}' is a link. Do not use this file.")
        if entry.file_size > _SMALL and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise CheckpointError(
                f"'{archive}': entry '{entry.filename}' inflates {entry.file_size // max(entry.compress_size, 1)}-fold, "
                f"at most {MAX_RATIO} is accepted. Do not use this file."
            )


def _write(content: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / entry.filename.replace("\\", "/")
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content.open(entry) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 2**20)
