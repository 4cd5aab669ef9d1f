"""The only extractor of archives: no links or paths out of the folder; limits on count, size and ratio."""

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from vision_core.errors import CheckpointError

MAX_FILES = 10_000
MAX_BYTES = 8 * 2**30
MAX_RATIO = 200
_SMALL = 2**20
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)


def extract_zip(archive: Path, folder: Path) -> None:
    """Unpack a zip into a folder, after all its entries were checked.

    Raises:
        CheckpointError: Not a zip, or an entry that leaves the folder, is a link, or exceeds a limit.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            _check(archive, entries)
            for entry in entries:
                _write(content, entry, folder)
    except _DAMAGES as error:
        raise CheckpointError(f"'{archive}' is not a whole zip: {error}. Fetch it again.") from error


def _check(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise CheckpointError(f"'{archive}' holds {len(entries)} files, at most {MAX_FILES} are accepted.")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        raise CheckpointError(f"'{archive}' inflates to {total} bytes, at most {MAX_BYTES} are accepted.")
    if ratio := _excess(total, archive.stat().st_size):
        raise CheckpointError(f"'{archive}' inflates {ratio}-fold, at most {MAX_RATIO} is accepted. Do not use it.")
    if len({entry.filename for entry in entries}) < len(entries):
        raise CheckpointError(f"'{archive}' holds two files of the same name. Do not use this file.")
    for entry in entries:
        if fault := _fault(entry):
            raise CheckpointError(f"'{archive}': entry '{entry.filename}' {fault}. Do not use this file.")


def _fault(entry: zipfile.ZipInfo) -> str:
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    if not name.parts or name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        return "leaves the folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    if ratio := _excess(entry.file_size, entry.compress_size):
        return f"inflates {ratio}-fold, at most {MAX_RATIO} is accepted"
    return ""


def _excess(inflated: int, stored: int) -> int:
    """Return the ratio of inflated to stored bytes if it exceeds the limit, else 0."""
    is_bomb = inflated > _SMALL and inflated > MAX_RATIO * max(stored, 1)
    return inflated // max(stored, 1) if is_bomb else 0


def _write(content: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / entry.filename.replace("\\", "/")
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content.open(entry) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 2**20)
