"""Handlers of the mask explorer's page. Each case has one folder, deleted when the case is cleared."""

import html
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr

from apps.cases import Example, delete_upload, new_folder
from apps.mask_explorer.drawing import draw_overlay, draw_sheet, scale_of
from apps.mask_explorer.explorer import Exploration, MaskExplorer
from apps.mask_explorer.wording import describe, describe_mask, mask_title, numbers_table, result_csv, result_record
from vision_core.files import write_atomic
from vision_core.images.captions import Caption
from vision_core.images.drawing import colour_map, write_png
from vision_core.images.untrusted import UntrustedImages

PROMPT = "Give an image, or try an example."
_MAX_MEGAPIXELS = 50.0
_MAX_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Display:
    """Display settings of a case.

    Attributes:
        which: Index of the mask over the image: 0 for the mean mask, then the samples.
        opacity: Opacity of its colours.
        first_seed: Seed of the first sample; the others follow.
    """

    which: int = 0
    opacity: float = 0.5
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with its masks and scores.

    Attributes:
        name: File name, or name of the example.
        found: Masks and scores.
        notes: Notes on the file for the user, each a sentence.
        folder: Folder of all files of this case.
        uploaded: Uploaded file, if the image was uploaded.
    """

    name: str
    found: Exploration
    notes: tuple[str, ...]
    folder: Path
    uploaded: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Handlers of the page's events.

    Each returns case, status line, overlay, sheet, numbers and files; ``show`` returns the overlay alone. A new case
    deletes the files of the one before.

    Attributes:
        explorer: Classifier and policy.
        remarks: Remarks on every result; written to every file.
        reader: Reads uploads, in a child process.
    """

    explorer: MaskExplorer
    remarks: tuple[str, ...] = ()
    reader: UntrustedImages = field(
        default_factory=lambda: UntrustedImages(max_megapixels=_MAX_MEGAPIXELS, seconds=_MAX_SECONDS)
    )
    _turn: Lock = field(default_factory=Lock)  # no picture is written to the folder of a case while it is deleted

    def upload(self, path: str | None, display: Display, before: Case | None = None) -> tuple[Any, ...]:
        """Explore an uploaded file; without one, clear the page."""
        uploaded = Path(path) if path else None
        self.forget(before, kept=uploaded)
        if uploaded is None:
            return None, *empty_outputs()
        try:
            return self._new(uploaded, uploaded.name, display, uploaded=uploaded)
        except BaseException:
            delete_upload(uploaded)
            raise

    def take(self, example: Example, display: Display, before: Case | None = None) -> tuple[Any, ...]:
        """Explore an example."""
        self.forget(before)
        return self._new(example.path, example.name, display, is_own=example.is_own)

    def resample(self, case: Case | None, display: Display) -> tuple[Any, ...]:
        """Draw other samples for the case's image."""
        if case is None:
            return None, *empty_outputs()
        try:
            found = self.explorer.resample(case.found, display.first_seed)
            found = found if case.found.scores else replace(found, scores=())
            return self._shown(replace(case, found=found), display, has_moved=case.found.seeds != found.seeds)
        except BaseException:
            self.forget(case)  # the page is emptied, and nothing else refers to the folder
            raise

    def show(self, case: Case | None, display: Display) -> tuple[Any, ...]:
        """Draw another mask over the image, or another opacity, without running a model."""
        with self._turn:
            return (self._overlay(case, display) if case and case.folder.exists() else None,)

    def forget(self, case: Case | None, kept: Path | None = None) -> None:
        """Delete every file of a case: upload, pictures, downloads.

        Args:
            case: Case to delete, if there is one.
            kept: File to keep.
        """
        if case is None:
            return
        with self._turn:
            shutil.rmtree(case.folder, ignore_errors=True)
        if case.uploaded and case.uploaded != kept:
            delete_upload(case.uploaded)

    def _new(
        self, path: Path, name: str, display: Display, *, uploaded: Path | None = None, is_own: bool = False
    ) -> tuple[Any, ...]:
        pixels, notes = self.reader.read(path)
        found = self.explorer(pixels, display.first_seed)
        if self.explorer.card.trained_on.synthetic and not is_own:
            found = replace(found, scores=())
        with new_folder() as folder:
            case = Case(name=name, found=found, notes=notes, folder=folder, uploaded=uploaded)
            return self._shown(case, display)

    def _shown(self, case: Case, display: Display, *, has_moved: bool = False) -> tuple[Any, ...]:
        with self._turn:
            if not case.folder.exists():
                return None, *empty_outputs()
            if has_moved:
                for folder in case.folder.glob("seed-*"):
                    shutil.rmtree(folder, ignore_errors=True)
            files = self._written(case)
            text = f"Every mask on {case.name}, above the image under it. {describe_mask(case.found, 0)}"
            return (
                case,
                html.escape(" ".join([describe(case.name, case.found), *case.notes])),
                self._overlay(case, display),
                gr.update(value=str(files[-1]), alt_text=text),
                numbers_table(case.found),
                gr.update(value=[str(path) for path in files], visible=True),
            )

    def _written(self, case: Case) -> list[Path]:
        """Write the downloads, the picture last."""
        folder, stem = _seed_folder(case) / "files", Path(case.name).stem
        paths = [folder / f"{stem}{ending}" for ending in (".csv", ".json", ".masks.png")]
        write_atomic(paths[0], result_csv(case.name, case.found))
        content = result_record(case.name, case.found, (*self.remarks, *case.notes))
        write_atomic(paths[1], json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        write_png(paths[2], draw_sheet(case.found, self._sheet_caption(case.found)))
        return paths

    def _overlay(self, case: Case, display: Display) -> dict[str, Any]:
        path = _seed_folder(case) / f"overlay-{display.which}-{round(100 * display.opacity):03d}.png"
        text = describe_mask(case.found, display.which)
        if not path.exists():
            caption = self._caption(text, "Colour: hidden share of the contrast, from least to most of this mask.")
            write_png(path, draw_overlay(case.found, display.which, display.opacity, caption))
        alt_text = f"{mask_title(case.found, display.which)} over {case.name}. {text}"
        return gr.update(value=str(path), alt_text=alt_text)

    def _sheet_caption(self, found: Exploration) -> Caption:
        low, high = (round(100 * share) for share in scale_of(found))
        side = len(found.view)
        return self._caption(
            "Above: the masks. Below: the image under each mask, as the classifier gets it.",
            f"Colour: hidden share of the contrast, from {low} to {high} %, one scale for all masks. "
            f"Both networks see the centre of the image at {side} × {side} pixels.",
        )

    def _caption(self, headline: str, line: str) -> Caption:
        cards = self.explorer.card, self.explorer.policy_card
        return Caption(
            headline=headline,
            lines=[line, *self.remarks],
            colours=colour_map(),
            model=", ".join(card.identity() for card in cards),
        )


def empty_outputs() -> Sequence[Any]:
    """Return the page's outputs without a case."""
    return PROMPT, None, None, "", gr.update(value=None, visible=False)


def _seed_folder(case: Case) -> Path:
    return case.folder / f"seed-{case.found.seeds[0]}"
