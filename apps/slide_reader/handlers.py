"""What the page of the slide reader does with a slide: one folder a case, which is gone when the case is cleared."""

import html
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from apps.cases import Example, delete_upload, new_folder
from apps.slide_reader.wording import describe, numbers_table, table, uncalled, worded
from vision_core.errors import InputError
from vision_core.files import write_atomic
from vision_core.images.captions import with_margin
from vision_core.images.drawing import blend, write_png
from vision_core.pipeline import Predictor
from vision_core.results import SlideResult
from vision_core.slides.outputs.heatmap import headline, heat_layer, words
from vision_core.slides.outputs.top_tiles import Choice, draw_sheet
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.segmentation import thumbnail

Image = NDArray[np.uint8]
PROMPT = "Give a slide, or try an example."
_DISPLAY_PX = 1024  # Bounds what a session holds in memory and how long a move of the slider takes.
_TOP_TILES = 8
_TILE_PX = 256


@dataclass(frozen=True, kw_only=True)
class Case:
    """One slide and what the model made of it: all that the opacity slider needs.

    Attributes:
        name: File name, or name of the example.
        display: ``(H, W, 3)`` uint8, the whole slide, 1024 pixels long.
        layer: ``(H, W, 4)`` uint8, the heatmap.
        result: What the model made of it, in words.
        folder: Of all files of this case.
        uploaded: The file that came with the browser, if one did.
    """

    name: str
    display: Image
    layer: Image
    result: SlideResult
    folder: Path
    uploaded: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The handlers: each returns case, status line, heatmap, top tiles, numbers and files; ``show`` the heatmap alone.

    They take the case before, whose files go when another takes its place.
    """

    predictor: Predictor[SlideResult]
    slides_root: Path | None = None
    _turn: Lock = field(default_factory=Lock)  # a predictor remembers its last slide

    def upload(self, path: str | None, opacity: float, before: Case | None = None) -> tuple[Any, ...]:
        """Score an uploaded slide; nothing uploaded is a blank page."""
        uploaded = Path(path) if path else None
        forget(before, kept=uploaded)
        if uploaded is None:
            return None, *blank()
        with new_folder() as folder:
            # Another session that gave the same file may clear it at any time.
            own = _linked(uploaded, folder)
            case = self._read(own, uploaded.name, folder, uploaded=uploaded)
        return case, *_all_shown(case, opacity)

    def choose(self, name: str | None, opacity: float, before: Case | None = None) -> tuple[Any, ...]:
        """Score a slide below ``slides_root``.

        Raises:
            InputError: The name leads out of it.
        """
        forget(before)
        if not (name and self.slides_root):
            return None, *blank()
        root = self.slides_root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"'{Path(name).name}' is not below the folder of slides. Choose one of the list.")
        with new_folder() as folder:
            case = self._read(path, Path(name).name, folder)
        return case, *_all_shown(case, opacity)

    def take(self, example: Example, opacity: float, before: Case | None = None) -> tuple[Any, ...]:
        """Score an example."""
        forget(before)
        with new_folder() as folder:
            case = self._read(example.path, example.name, folder, is_own=example.is_own)
        return case, *_all_shown(case, opacity)

    def show(self, case: Case | None, opacity: float) -> tuple[Any, ...]:
        """Draw a case at another opacity; no model runs."""
        return (_shown(case, opacity) if case else None,)

    def _read(self, path: Path, name: str, folder: Path, *, uploaded: Path | None = None, is_own: bool = False) -> Case:
        with self._turn:
            result = self.predictor(path)
            is_spoken = is_own or not self.predictor.card.trained_on.synthetic
            result = worded(result if is_spoken else uncalled(result))
            (folder / "files").mkdir()
            self.predictor.write(result, path, folder / "files")
        write_atomic(folder / "files" / f"{path.stem}.csv", table(result))
        with open_slide(path) as slide:
            display = thumbnail(slide, _DISPLAY_PX)
            choice = Choice(most=_TOP_TILES, tile_px=min(_TILE_PX, result.tile_side))
            write_png(folder / "tiles.png", draw_sheet(slide, result, choice))
        layer = heat_layer(result, display.shape[:2])
        return Case(name=name, display=display, layer=layer, result=result, folder=folder, uploaded=uploaded)


def draw(case: Case, opacity: float) -> Image:
    """The heatmap over the slide, and the notice below it."""
    return with_margin(blend(case.display, case.layer, opacity), words(case.result))


def forget(case: Case | None, kept: Path | None = None) -> None:
    """Delete every file of a case: what was uploaded, pictures, downloads.

    Args:
        case: The case, or none.
        kept: A file that is needed still.
    """
    if case is None:
        return
    shutil.rmtree(case.folder, ignore_errors=True)
    if case.uploaded and case.uploaded != kept:
        delete_upload(case.uploaded)


def blank() -> Sequence[Any]:
    """What the page shows without a case."""
    return PROMPT, None, None, "", gr.update(value=None, visible=False)


def _linked(path: Path, folder: Path) -> Path:
    own = folder / path.name
    try:
        own.hardlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, own)
    return own


def _all_shown(case: Case, opacity: float) -> tuple[Any, ...]:
    text = f"Tiles that the model looked at most on {case.name}"
    return (
        html.escape(describe(case.name, case.result)),
        _shown(case, opacity),
        gr.update(value=str(case.folder / "tiles.png"), alt_text=text),
        numbers_table(case.result),
        gr.update(value=[str(path) for path in sorted((case.folder / "files").iterdir())], visible=True),
    )


def _shown(case: Case, opacity: float) -> dict[str, Any]:
    path = case.folder / f"heatmap-{round(100 * opacity):03d}.png"
    if not path.exists():
        write_png(path, draw(case, opacity))
    return gr.update(value=str(path), alt_text=f"Heatmap over {case.name}. {headline(case.result)}.")
