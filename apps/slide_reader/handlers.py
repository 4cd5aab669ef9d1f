"""Handlers of the slide reader. Each case has one folder, which is deleted when the case is cleared."""

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
from apps.slide_reader.wording import describe, numbers_table, result_csv, with_cautions, without_call
from vision_core.errors import InputError
from vision_core.files import write_atomic
from vision_core.images.captions import add_caption
from vision_core.images.drawing import blend, write_png
from vision_core.pipeline import Predictor
from vision_core.results import SlideResult
from vision_core.slides.outputs.heatmap import heatmap_caption, heatmap_layer, not_glass, result_headline
from vision_core.slides.outputs.top_tiles import TileSelection, draw_tile_sheet
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.overview import thumbnail

Image = NDArray[np.uint8]
PROMPT = "Give a slide, or try an example."
_DISPLAY_PX = 1024  # bounds the memory of a session and the time of a move of the slider
_TOP_TILES = 8
_TILE_PX = 256


@dataclass(frozen=True, kw_only=True)
class Case:
    """One slide and its result.

    Attributes:
        name: File name, or name of the example.
        display: ``(H, W, 3)`` uint8, the whole slide, 1024 pixels long.
        layer: ``(H, W, 4)`` uint8, the heatmap.
        result: Result of the model, its category as the page words it.
        folder: Folder of all files of this case.
        uploaded: The uploaded file, if there is one.
    """

    name: str
    display: Image
    layer: Image
    result: SlideResult
    folder: Path
    uploaded: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SlideReader:
    """Handlers of the page.

    Each returns case, status line, heatmap, top tiles, numbers and files; ``redraw`` returns the heatmap alone. They
    take the previous case, and delete its files.
    """

    predictor: Predictor[SlideResult]
    slides_root: Path | None = None
    _lock: Lock = field(default_factory=Lock)  # a predictor keeps its last slide

    def score_upload(self, path: str | None, opacity: float, previous: Case | None = None) -> tuple[Any, ...]:
        """Score an uploaded slide; without one, clear the page."""
        uploaded = Path(path) if path else None
        delete_case(previous, kept=uploaded)
        if uploaded is None:
            return None, *empty_outputs()
        with new_folder() as folder:
            # Another session with the same upload may delete it at any time.
            copy = _link_into(uploaded, folder)
            case = self._score(copy, uploaded.name, folder, uploaded=uploaded)
        return case, *_all_outputs(case, opacity)

    def score_chosen(self, name: str | None, opacity: float, previous: Case | None = None) -> tuple[Any, ...]:
        """Score a slide below ``slides_root``.

        Raises:
            InputError: The path leads out of that folder.
        """
        delete_case(previous)
        if not (name and self.slides_root):
            return None, *empty_outputs()
        root = self.slides_root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"'{Path(name).name}' is not below the folder of slides. Choose one of the list.")
        with new_folder() as folder:
            case = self._score(path, Path(name).name, folder)
        return case, *_all_outputs(case, opacity)

    def score_example(self, example: Example, opacity: float, previous: Case | None = None) -> tuple[Any, ...]:
        """Score an example."""
        delete_case(previous)
        with new_folder() as folder:
            case = self._score(example.path, example.name, folder, is_own=example.is_own)
        return case, *_all_outputs(case, opacity)

    def redraw(self, case: Case | None, opacity: float) -> tuple[Any, ...]:
        """Draw a case at another opacity, without running the model."""
        return (_heatmap_output(case, opacity) if case else None,)

    def _score(
        self, path: Path, name: str, folder: Path, *, uploaded: Path | None = None, is_own: bool = False
    ) -> Case:
        with self._lock:
            result = self.predictor(path)
            may_call = is_own or not self.predictor.card.trained_on.synthetic
            result = with_cautions(result if may_call else without_call(result))
            (folder / "files").mkdir()
            self.predictor.write(result, path, folder / "files")
        write_atomic(folder / "files" / f"{path.stem}.csv", result_csv(result))
        with open_slide(path) as slide:
            display = thumbnail(slide, _DISPLAY_PX)
            selection = TileSelection(highest=_TOP_TILES, tile_px=min(_TILE_PX, result.tile_side))
            write_png(folder / "tiles.png", draw_tile_sheet(slide, result, selection))
        layer = heatmap_layer(result, display.shape[:2], not_glass(display))
        return Case(name=name, display=display, layer=layer, result=result, folder=folder, uploaded=uploaded)


def delete_case(case: Case | None, kept: Path | None = None) -> None:
    """Delete all files of a case: upload, pictures, downloads.

    Args:
        case: The case, or None.
        kept: An uploaded file to keep, since the next case uses it.
    """
    if case is None:
        return
    shutil.rmtree(case.folder, ignore_errors=True)
    if case.uploaded and case.uploaded != kept:
        delete_upload(case.uploaded)


def empty_outputs() -> Sequence[Any]:
    """Return the values of a page without a case."""
    return PROMPT, None, None, "", gr.update(value=None, visible=False)


def _link_into(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    try:
        copy.hardlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, copy)
    return copy


def _all_outputs(case: Case, opacity: float) -> tuple[Any, ...]:
    text = f"Tiles that the model looked at most on {case.name}"
    return (
        html.escape(describe(case.name, case.result)),
        _heatmap_output(case, opacity),
        gr.update(value=str(case.folder / "tiles.png"), alt_text=text),
        numbers_table(case.result),
        gr.update(value=[str(path) for path in sorted((case.folder / "files").iterdir())], visible=True),
    )


def _heatmap_output(case: Case, opacity: float) -> dict[str, Any]:
    path = case.folder / f"heatmap-{round(100 * opacity):03d}.png"
    if not path.exists():
        picture = blend(case.display, case.layer, opacity)
        write_png(path, add_caption(picture, heatmap_caption(case.result)))
    return gr.update(value=str(path), alt_text=f"Heatmap over {case.name}. {result_headline(case.result)}.")
