"""What readers of files share: the example that a page offers, and the one folder that all files of a case are in."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from apps import ui


@dataclass(frozen=True, kw_only=True)
class Example:
    """A file that the page offers.

    Attributes:
        name: What its button says.
        path: The file.
        origin: Its source and licence.
        is_own: Whether it is of the made data that the model is of; only of those a model of made data speaks.
    """

    name: str
    path: Path
    origin: str
    is_own: bool = True


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder of a name nobody guesses, for one case; gone if there is none after all."""
    folder = ui.session_folder() / f"case-{secrets.token_hex(16)}"
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def delete_upload(uploaded: Path) -> None:
    """Delete what came with the browser, and its folder unless another file came with it."""
    uploaded.unlink(missing_ok=True)
    with suppress(OSError):
        uploaded.parent.rmdir()
