"""Handlers of the slide reader. Each case has one folder, which is deleted when the case is cleared."""

import html
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from apps import ui
from apps.cases import Example, Files, new_folder, shown_name
from apps.slide_reader.scoring import ConfinedScoring, score
from apps.slide_reader.wording import describe, numbers_table, result_csv
from apps.viewer import Figure, empty_place, image_layer
from vision_core.errors import InputError
from vision_core.files import hash_digits, write_atomic
from vision_core.pipeline import Predictor
from vision_core.results import SlideResult
from vision_core.slides.outputs.heatmap import (
    colour_legend,
    heatmap_caption,
    result_headline,
    standing,
)

Image = NDArray[np.uint8]
VIEWS = ("Slide with heatmap", "Tiles looked at most")
PROMPT = "Give a slide, or try an example."
UPLOADED, CHOSEN = "uploaded", "chosen"
_ABOUT_FILES = {  # by the end of the name; the first that fits
    ".csv": "The result as a row for spreadsheets.",
    ".json": "The result with its notes.",
    ".heatmap.png": "The heatmap over the slide, with its scale of colours.",
    ".heatmap.tif": "The heatmap as a pyramid that viewers of slides open.",
    ".tissue.geojson": "Outlines of the tissue, for QuPath.",
    ".tiles.geojson.gz": "Every tile with its scores, for QuPath.",
    ".top.png": "The tiles that the model looked at most, and least.",
    ".groovy": "A script that brings the tiles into QuPath.",
    ".jpg": "A small picture.",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One slide and its result.

    Attributes:
        name: File name, or name of the example.
        size: ``(height, width)`` of the picture of the whole slide.
        result: Result of the model, its category as the page words it.
        files: Folder, upload and hash.
        has_scale: Whether microns are told: not by a model of made images on slides of others.
        why: Why the example is offered; empty for other slides.
    """

    name: str
    size: tuple[int, int]
    result: SlideResult
    files: Files
    has_scale: bool = True
    why: str = ""

    def facts(self) -> dict[str, str]:
        """List what the result is of."""
        height, width = self.result.size
        return {
            "Slide": f"{self.name}, {width} × {height} px",
            "Microns per pixel": f"{self.result.mpp:.4g}" if self.has_scale else "not told by a model of made images",
            "Input hash": f"{self.files.digits} (SHA-256, first digits)",
            "Model": self.result.model,
        }


@dataclass(frozen=True, kw_only=True)
class SlideReader:
    """Handlers of the page.

    Each returns case, picture, words, details and downloads; ``show`` returns the picture alone. They take the previous
    case, and delete its files.
    """

    predictor: Predictor[SlideResult]
    slides_root: Path | None = None
    confined: ConfinedScoring | None = None  # for slides of others
    _lock: Lock = field(default_factory=Lock)  # a predictor keeps its last slide

    def score_upload(self, path: str | None, view: str, previous: Case | None = None) -> tuple[Any, ...]:
        """Score an uploaded slide; without one, clear the page."""
        uploaded = Path(path) if path else None
        delete_case(previous, kept=uploaded)
        if uploaded is None:
            return None, *empty_outputs()
        with new_folder(uploaded) as folder:
            # Another session with the same upload may delete it at any time.
            copy = _link_into(uploaded, folder)
            given = Example(name=uploaded.name, path=copy, origin=UPLOADED, is_own=False)
            case = self._score(given, folder, uploaded)
        return case, *_outputs(case, view)

    def score_chosen(self, name: str | None, view: str, previous: Case | None = None) -> tuple[Any, ...]:
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
            given = Example(name=path.name, path=path, origin=CHOSEN, is_own=False)
            case = self._score(given, folder)
        return case, *_outputs(case, view)

    def score_example(self, example: Example, view: str, previous: Case | None = None) -> tuple[Any, ...]:
        """Score an example."""
        delete_case(previous)
        with new_folder() as folder:
            case = self._score(example, folder)
        return case, *_outputs(case, view)

    def show(self, case: Case | None, view: str) -> tuple[Any, ...]:
        """Show the slide or its tiles, without running the model."""
        return (_figure(case, view) if case and case.files.folder.exists() else empty_place(PROMPT),)

    def _score(self, example: Example, folder: Path, uploaded: Path | None = None) -> Case:
        path, is_trusted = example.path, example.origin not in {UPLOADED, CHOSEN}
        files = Files(folder=folder, uploaded=uploaded, digits=hash_digits(path))
        may_call = example.is_own or not self.predictor.card.trained_on.synthetic
        with self._lock:
            if self.confined and not is_trusted:
                result = self.confined(path, folder, may_call=may_call)
            else:
                result = score(self.predictor, path, folder, may_call=may_call)
        with Pillow.open(folder / "slide.png") as picture:
            size = (picture.height, picture.width)
        name, why = shown_name(example.name), example.why
        case = Case(name=name, size=size, result=result, files=files, has_scale=may_call, why=why)
        _name_downloads(case, path)
        return case


def delete_case(case: Case | None, kept: Path | None = None) -> None:
    """Delete all files of a case: upload, pictures, downloads.

    Args:
        case: The case, or None.
        kept: An uploaded file to keep, since the next case uses it.
    """
    if case is not None:
        case.files.delete(kept)


def empty_outputs() -> Sequence[Any]:
    """Return the values of a page without a case."""
    return empty_place(PROMPT), html.escape(PROMPT), "", ""


def _link_into(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    try:
        copy.hardlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, copy)
    return copy


def _name_downloads(case: Case, path: Path) -> None:
    """Name the files of a result by task, date and hash, and add its table."""
    folder, stem = case.files.downloads, ui.stem_of("slide", case.files.digits)
    for written in sorted(folder.iterdir()):
        written.rename(folder / f"{stem}{written.name.removeprefix(path.stem)}")
    write_atomic(folder / f"{stem}.csv", result_csv(case.result, case.files.digits))


def _outputs(case: Case, view: str) -> tuple[Any, ...]:
    result = case.result
    headline, *lines = describe(result)
    paths = {path: _about(path) for path in sorted(case.files.downloads.iterdir())}
    return (
        _figure(case, view),
        ui.in_words(headline, standing(result), case.why or f"{case.name}.", *lines) + _colour_bar(result),
        numbers_table(result) + ui.facts_list(case.facts()),
        ui.downloads(paths, ui.stem_of("slide", case.files.digits)),
    )


def _colour_bar(result: SlideResult) -> str:
    """Draw the scale of the heatmap's colours."""
    caption = heatmap_caption(result, result.size[1])
    if caption.colours is None:
        return ""
    return ui.colour_bar(caption.colours, caption.ends, colour_legend(result))


def _about(path: Path) -> str:
    return next((about for ending, about in _ABOUT_FILES.items() if path.name.endswith(ending)), "")


def _figure(case: Case, view: str) -> str:
    folder, result = case.files.folder, case.result
    told = f"{case.name} ({case.files.digits}). {result_headline(result)}. {result.model}."
    if view == VIEWS[1]:
        with Pillow.open(folder / "tiles.png") as sheet:
            size = (sheet.height, sheet.width)
        alt = f"Tiles that the model looked at most on {case.name}"
        return Figure(key=f"{folder.name}-tiles", base=folder / "tiles.png", size=size, alt=alt, words=told).html()
    return Figure(
        key=folder.name,
        base=folder / "slide.png",
        size=case.size,
        alt=f"Heatmap over {case.name}. {result_headline(result)}.",
        over=image_layer(folder / "heat.png"),
        um_per_px=result.mpp * result.size[1] / case.size[1] if case.has_scale else None,
        is_slide=True,
        words=told,
    ).html()
