"""What the page of the mask explorer does with an image: one folder a case, gone when the case is cleared."""

import html
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from apps.cases import Example, delete_upload, new_folder
from apps.mask_explorer.drawing import colours, draw_overlay, draw_sheet, scale_of
from apps.mask_explorer.explorer import Exploration
from apps.mask_explorer.wording import describe, hides, numbers_table, record, table, title
from vision_core.bundles.card import Card
from vision_core.files import write_atomic
from vision_core.images.captions import Words
from vision_core.images.drawing import write_png
from vision_core.images.untrusted import UntrustedImages

PROMPT = "Give an image, or try an example."
_MAX_MEGAPIXELS = 50.0
_MAX_SECONDS = 20.0


class Explorer(Protocol):
    """A classifier with the policy of its run."""

    @property
    def card(self) -> Card:
        """What the classifier's bundle says of itself."""

    @property
    def policy_card(self) -> Card:
        """What the policy's says."""

    def __call__(self, image: NDArray[np.uint8], first_seed: int, /) -> Exploration:
        """Look at an image ``(H, W, 3)`` RGB under the mean mask, and under samples from this seed on."""

    def resample(self, found: Exploration, first_seed: int, /) -> Exploration:
        """The same image under other samples."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How a case is shown.

    Attributes:
        which: The mask over the image: 0 for the mean mask, then the samples.
        opacity: Of its colours.
        first_seed: Of the samples.
    """

    which: int = 0
    opacity: float = 0.5
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and what was found in it: all that the controls need.

    Attributes:
        name: File name, or name of the example.
        found: Masks and scores.
        notes: What the person should know of the file, each a sentence.
        folder: Of all files of this case.
        uploaded: The file that came with the browser, if one did.
    """

    name: str
    found: Exploration
    notes: tuple[str, ...]
    folder: Path
    uploaded: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """The handlers: each returns case, status line, overlay, sheet, numbers and files; ``show`` the overlay alone.

    They take the case before, whose files go when another takes its place.

    Attributes:
        explorer: The networks.
        remarks: What must be said of every result; the files say it too.
    """

    explorer: Explorer
    remarks: tuple[str, ...] = ()
    reader: UntrustedImages = field(
        default_factory=lambda: UntrustedImages(max_megapixels=_MAX_MEGAPIXELS, seconds=_MAX_SECONDS)
    )
    _turn: Lock = field(default_factory=Lock)  # nothing is drawn into the folder of a case that is being deleted

    def upload(self, path: str | None, looks: Looks, before: Case | None = None) -> tuple[Any, ...]:
        """Look at an uploaded file; nothing uploaded is a blank page."""
        uploaded = Path(path) if path else None
        self.forget(before, kept=uploaded)
        if uploaded is None:
            return None, *blank()
        try:
            return self._new(uploaded, uploaded.name, looks, uploaded=uploaded)
        except BaseException:
            delete_upload(uploaded)
            raise

    def take(self, example: Example, looks: Looks, before: Case | None = None) -> tuple[Any, ...]:
        """Look at an example."""
        self.forget(before)
        return self._new(example.path, example.name, looks, is_own=example.is_own)

    def resample(self, case: Case | None, looks: Looks) -> tuple[Any, ...]:
        """Draw other masks on the case's image."""
        if case is None:
            return None, *blank()
        try:
            found = self.explorer.resample(case.found, looks.first_seed)
            found = found if case.found.scores else replace(found, scores=())
            return self._shown(replace(case, found=found), looks, has_moved=case.found.seeds != found.seeds)
        except BaseException:
            self.forget(case)  # the page goes blank, and nothing would remember the folder
            raise

    def show(self, case: Case | None, looks: Looks) -> tuple[Any, ...]:
        """Draw another mask over the image, or at another opacity; no model runs."""
        with self._turn:
            return (self._overlay(case, looks) if case and case.folder.exists() else None,)

    def forget(self, case: Case | None, kept: Path | None = None) -> None:
        """Delete every file of a case: what was uploaded, pictures, downloads.

        Args:
            case: The case, or none.
            kept: A file that is needed still.
        """
        if case is None:
            return
        with self._turn:
            shutil.rmtree(case.folder, ignore_errors=True)
        if case.uploaded and case.uploaded != kept:
            delete_upload(case.uploaded)

    def _new(
        self, path: Path, name: str, looks: Looks, *, uploaded: Path | None = None, is_own: bool = False
    ) -> tuple[Any, ...]:
        pixels, notes = self.reader.read(path)
        found = self.explorer(pixels, looks.first_seed)
        if self.explorer.card.trained_on.synthetic and not is_own:
            found = replace(found, scores=())
        with new_folder() as folder:
            case = Case(name=name, found=found, notes=notes, folder=folder, uploaded=uploaded)
            return self._shown(case, looks)

    def _shown(self, case: Case, looks: Looks, *, has_moved: bool = False) -> tuple[Any, ...]:
        with self._turn:
            if not case.folder.exists():
                return None, *blank()
            if has_moved:
                for folder in case.folder.glob("seed-*"):
                    shutil.rmtree(folder, ignore_errors=True)
            files = self._written(case)
            text = f"Every mask on {case.name}, above the image under it. {hides(case.found, 0)}"
            return (
                case,
                html.escape(" ".join([describe(case.name, case.found), *case.notes])),
                self._overlay(case, looks),
                gr.update(value=str(files[-1]), alt_text=text),
                numbers_table(case.found),
                gr.update(value=[str(path) for path in files], visible=True),
            )

    def _written(self, case: Case) -> list[Path]:
        """The downloads, the picture last."""
        folder, stem = _of_seeds(case) / "files", Path(case.name).stem
        paths = [folder / f"{stem}{ending}" for ending in (".csv", ".json", ".masks.png")]
        write_atomic(paths[0], table(case.name, case.found))
        content = record(case.name, case.found, (*self.remarks, *case.notes))
        write_atomic(paths[1], json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        write_png(paths[2], draw_sheet(case.found, self._sheet_words(case.found)))
        return paths

    def _overlay(self, case: Case, looks: Looks) -> dict[str, Any]:
        path = _of_seeds(case) / f"overlay-{looks.which}-{round(100 * looks.opacity):03d}.png"
        told = hides(case.found, looks.which)
        if not path.exists():
            words = self._words(told, "Colour: the share of the contrast that it hides, from its least to its most.")
            write_png(path, draw_overlay(case.found, looks.which, looks.opacity, words))
        text = f"{title(case.found, looks.which)} over {case.name}. {told}"
        return gr.update(value=str(path), alt_text=text)

    def _sheet_words(self, found: Exploration) -> Words:
        low, high = (round(100 * share) for share in scale_of(found))
        side = len(found.view)
        return self._words(
            "Above the masks, below the image under them, as the classifier gets it.",
            f"Colour: the share of the contrast that is hidden, from {low} to {high} %, one scale for all masks. "
            f"Both networks see the middle of the image at {side} × {side} pixels.",
        )

    def _words(self, headline: str, line: str) -> Words:
        cards = self.explorer.card, self.explorer.policy_card
        return Words(
            headline=headline,
            lines=[line, *self.remarks],
            colours=colours(),
            model=", ".join(card.identity() for card in cards),
        )


def blank() -> Sequence[Any]:
    """What the page shows without a case."""
    return PROMPT, None, None, "", gr.update(value=None, visible=False)


def _of_seeds(case: Case) -> Path:
    return case.folder / f"seed-{case.found.seeds[0]}"
