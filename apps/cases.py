"""Cases of a page: examples that it offers, and the folder that holds all files of a case."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from apps import ui


@dataclass(frozen=True, kw_only=True)
class Example:
    """Example file of a page.

    Attributes:
        name: Text of its button.
        path: Path of the file.
        origin: Source and licence.
        is_own: Whether it is of the kind of data the model was trained on. A model of made data shows scores for such
            examples alone.
    """

    name: str
    path: Path
    origin: str
    is_own: bool = True


@contextmanager
def new_folder() -> Iterator[Path]:
    """Make a folder with an unguessable name for a case; it is deleted if the block raises."""
    folder = ui.session_folder() / f"case-{secrets.token_hex(16)}"
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def delete_upload(uploaded: Path) -> None:
    """Delete an uploaded file, and its folder unless it holds another file."""
    uploaded.unlink(missing_ok=True)
    with suppress(OSError):
        uploaded.parent.rmdir()
