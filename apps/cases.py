"""Cases of a page: examples that it offers, and the folder that holds all files of a case."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from apps import ui
from apps.sessions import delete_upload, making
from apps.viewer import Grey
from vision_core.dicom.view import ImageView
from vision_core.images.drawing import write_png

_THUMBNAIL_PX = 160
_SHOWN_PX = 4096  # longest side of a picture in the browser: more is neither seen nor cheap
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160), 0x061C, *range(0x200B, 0x2010), *range(0x202A, 0x202F)], "�")
_CONTROLS |= dict.fromkeys([*range(0x2060, 0x2070), 0x2028, 0x2029, 0xFEFF], "�")


@dataclass(frozen=True, kw_only=True)
class Example:
    """Example file of a page.

    Attributes:
        name: Text of its button.
        path: Path of the file.
        origin: Source and licence.
        why: Why it is offered, a sentence; shown with its result.
        model: Name of the model that it is for, where a page has several; empty: the one that is chosen.
        is_own: Whether it is of the kind of data the model was trained on. A model of made data shows scores for such
            examples alone.
    """

    name: str
    path: Path
    origin: str
    why: str = ""
    model: str = ""
    is_own: bool = True


@dataclass(frozen=True, kw_only=True)
class Files:
    """All files of a case.

    Attributes:
        folder: Folder of pictures and downloads, with an unguessable name.
        uploaded: The uploaded file, if there is one.
        digits: First digits of the hash of the input, by which results name it.
    """

    folder: Path
    uploaded: Path | None = None
    digits: str

    @property
    def downloads(self) -> Path:
        """Return the folder of what can be downloaded."""
        return self.folder / "files"

    def delete(self, kept: Path | None = None) -> None:
        """Delete the files of the case, but not an upload that is ``kept`` for the next."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.uploaded and self.uploaded != kept:
            delete_upload(self.uploaded)


@contextmanager
def new_folder(uploaded: Path | None = None) -> Iterator[Path]:
    """Make a folder with an unguessable name for a case.

    If the block raises, or the session leaves meanwhile, the folder is deleted, and the uploaded file with it.
    """
    folder = ui.session_folder() / f"case-{secrets.token_hex(16)}"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "files").mkdir()
    try:
        with making(folder, uploaded):
            yield folder
    except BaseException:
        if uploaded:
            delete_upload(uploaded)
        raise


def shown_name(name: str) -> str:
    """Replace control characters and those that turn the direction of text in a file's name."""
    return name.translate(_CONTROLS)


def thumbnail_file(picture: NDArray[np.uint8]) -> Path:
    """Write the thumbnail of an example: the middle square of a picture ``(H, W, 3)``."""
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    small = Image.fromarray(picture[top : top + side, left : left + side])
    folder = ui.session_folder() / "examples"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    path = folder / f"{secrets.token_hex(8)}.jpg"
    small.resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX).save(path, quality=85)
    return path


def write_picture(folder: Path, view: ImageView) -> Grey | None:
    """Write the picture of a case as ``image.png``, and the values for window and level if there are any.

    Returns:
        The values, for the figure; None for a picture of 8 bits, or of more pixels than a browser is given.
    """
    shown = bounded(view.pixels)
    write_png(folder / "image.png", shown)
    values = view.values
    if values is None or shown.shape != view.pixels.shape:
        return None
    write_values(folder / "values.png", values.codes, values.is_image)
    return Grey(
        path=folder / "values.png",
        lowest=values.lowest,
        step=values.step,
        presets=[(preset.name, preset.centre, preset.width) for preset in values.presets],
        is_inverted=values.is_inverted,
    )


def write_values(path: Path, codes: NDArray[np.uint16], is_image: NDArray[np.bool_] | None = None) -> None:
    """Write the codes ``(H, W)`` of ``Grey`` as a PNG; pixels that are not of the image are black in every window."""
    padding = np.zeros_like(codes) if is_image is None else np.where(is_image, 0, 255)
    write_png(path, np.stack([codes >> 8, codes & 255, padding], axis=-1).astype(np.uint8))


def without_scale(view: ImageView) -> ImageView:
    """Remove the spacing, for models of made images on files of others."""
    return replace(view, facts=replace(view.facts, um_per_px=None))


def facts_of(name: str, view: ImageView, digits: str) -> dict[str, str]:
    """List what a result is of: name and size of the image, series, spacing, hash."""
    height, width = view.pixels.shape[:2]
    um = view.facts.um_per_px
    series = {"Series": view.facts.description} if view.facts.description else {}
    return {
        "Image": f"{name}, {width} × {height} px",
        **series,
        "Scale": f"{um / 1000:.4g} mm per pixel" if um else "unknown",
        "Input hash": f"{digits} (SHA-256, first digits)",
    }


def columns_of(name: str, view: ImageView, digits: str) -> dict[str, str]:
    """List what a result is of as columns of a table: image, series, first digits of the input's hash."""
    return {"image": name, "series": view.facts.description, "input_sha256": digits}


def bounded(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a picture ``(H, W, 3)`` to at most 4096 pixels a side."""
    height, width = picture.shape[:2]
    share = _SHOWN_PX / max(height, width)
    if share >= 1:
        return picture
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
