"""Handlers of the mask explorer's page. Each case has one folder, deleted when the case is cleared."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image as Pillow

from apps import ui
from apps.cases import Example, Files, columns_of, facts_of, new_folder, shown_name, without_scale, write_picture
from apps.mask_explorer.drawing import draw_sheet, mask_layer, scale_of, sheet_px
from apps.mask_explorer.explorer import NUM_SAMPLES, Exploration, MaskExplorer
from apps.mask_explorer.wording import describe, describe_mask, mask_title, numbers_table, result_csv, result_record
from apps.viewer import Figure, Grey, empty_place, image_layer
from vision_core.dicom.view import ImageView
from vision_core.files import hash_digits, origin_text, write_atomic
from vision_core.images.captions import Caption
from vision_core.images.drawing import colour_map, write_png
from vision_core.images.untrusted import UntrustedImages

PROMPT = "Give an image, or try an example."
_MAX_MEGAPIXELS = 50.0
_MAX_SECONDS = 20.0
_ABOUT_COLOURS = "Colour: hidden share of the contrast, from the least to the most of the mask that is shown."
_ABOUT_FILES = {
    ".csv": "The scores with and without masks, a row each.",
    ".json": "The same with all notes.",
    ".png": "All masks, and the image under each.",
}


@dataclass(frozen=True, kw_only=True)
class Display:
    """Display settings of a case.

    Attributes:
        which: Index of the mask over the image: 0 for the mean mask, then the samples, then all side by side.
        first_seed: Seed of the first sample; the others follow.
    """

    which: int = 0
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with its masks and scores.

    Attributes:
        name: File name, or name of the example.
        view: The image, with what a viewer needs beyond its pixels.
        grey: Values for window and level; None: none.
        found: Masks and scores.
        files: Folder, upload and hash.
        why: Why the example is offered; empty for an upload.
        notes: Notes on the file for the user, each a sentence.
    """

    name: str
    view: ImageView
    grey: Grey | None
    found: Exploration
    files: Files
    why: str = ""
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """List what the result is of."""
        side = len(self.found.view)
        seen = {"Seen by both networks": f"the centre, at {side} × {side} px", "Models": self.found.model}
        return facts_of(self.name, self.view, self.files.digits) | seen


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Handlers of the page's events.

    Each returns case, picture, words, details and downloads; ``show`` returns the picture alone. A new case deletes the
    files of the one before.

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
        given = Example(name=uploaded.name, path=uploaded, origin="uploaded", is_own=False)
        return self._new(given, display, uploaded)

    def take(self, example: Example, display: Display, before: Case | None = None) -> tuple[Any, ...]:
        """Explore an example."""
        self.forget(before)
        return self._new(example, display)

    def resample(self, case: Case | None, display: Display) -> tuple[Any, ...]:
        """Draw other samples for the case's image."""
        if case is None:
            return None, *empty_outputs()
        try:
            found = self.explorer.resample(case.found, display.first_seed)
            found = found if case.found.scores else replace(found, scores=())
            return self._shown(replace(case, found=found), display)
        except BaseException:
            self.forget(case)  # the page is emptied, and nothing else refers to the folder
            raise

    def show(self, case: Case | None, display: Display) -> tuple[Any, ...]:
        """Draw another mask over the image, without running a model."""
        with self._turn:
            return (self._figure(case, display) if case and case.files.folder.exists() else empty_place(PROMPT),)

    def forget(self, case: Case | None, kept: Path | None = None) -> None:
        """Delete every file of a case: upload, pictures, downloads.

        Args:
            case: Case to delete, if there is one.
            kept: File to keep.
        """
        if case is not None:
            with self._turn:
                case.files.delete(kept)

    def _new(self, example: Example, display: Display, uploaded: Path | None = None) -> tuple[Any, ...]:
        with new_folder(uploaded) as folder:
            view, notes = self.reader.view(example.path)
            found = self.explorer(view.pixels, display.first_seed)
            if self.explorer.card.trained_on.synthetic and not example.is_own:
                found, view = replace(found, scores=()), without_scale(view)
            files = Files(folder=folder, uploaded=uploaded, digits=hash_digits(example.path))
            grey, name = write_picture(folder, view), shown_name(example.name)
            case = Case(name=name, view=view, grey=grey, found=found, files=files, why=example.why, notes=notes)
            return self._shown(case, display)

    def _shown(self, case: Case, display: Display) -> tuple[Any, ...]:
        with self._turn:
            if not case.files.folder.exists():
                return None, *empty_outputs()
            files, stem = self._written(case), ui.stem_of("masks", case.files.digits)
            headline, *lines = describe(case.found)
            return (
                case,
                self._figure(case, display),
                ui.in_words(headline, case.why or f"{case.name}.", *lines, *case.notes)
                + ui.colour_bar(colour_map(), ("least", "most"), _ABOUT_COLOURS),
                numbers_table(case.found) + ui.facts_list(case.facts()),
                ui.downloads(files, stem, may_name=case.view.facts.may_name),
            )

    def _written(self, case: Case) -> dict[Path, str]:
        """Write the layers of the masks, and the downloads; returns the latter, with what each is for."""
        for which in range(len(case.found.masks)):
            write_png(_layer(case, which), mask_layer(case.found, which))
        stem = ui.stem_of("masks", case.files.digits)
        paths = {case.files.downloads / f"{stem}{ending}": about for ending, about in _ABOUT_FILES.items()}
        table, record, sheet = paths
        of = columns_of(case.name, case.view, case.files.digits)
        write_atomic(table, result_csv(of, case.found))
        content = result_record(of, case.found, (*self.remarks, *case.notes))
        write_atomic(record, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        caption = self._sheet_caption(case)
        told = origin_text(caption.model, case.files.digits, "frame 1")
        write_png(sheet, draw_sheet(case.found, caption), told)
        write_png(_sheet(case), draw_sheet(case.found))
        return paths

    def _figure(self, case: Case, display: Display) -> str:
        folder = case.files.folder
        told = f"{case.name} ({case.files.digits}). {case.found.model}."
        if display.which > NUM_SAMPLES:
            base = _sheet(case)
            with Pillow.open(base) as sheet:
                size = (sheet.height, sheet.width)
            alt = f"Every mask on {case.name}, above the image under it. {describe_mask(case.found, 0)}"
            um = self._um_on_sheet(case)
            return Figure(key=f"{folder.name}-sheet", base=base, size=size, alt=alt, um_per_px=um, words=told).html()
        text = f"{mask_title(case.found, display.which)} over {case.name}. {describe_mask(case.found, display.which)}"
        return Figure(
            key=folder.name,
            base=folder / "image.png",
            size=case.found.image_size,
            alt=text,
            over=image_layer(_layer(case, display.which), self.explorer.seen_part(case.found.image_size)),
            um_per_px=case.view.facts.um_per_px,
            grey=case.grey,
            words=f"{told} The colours cover what both networks see.",
        ).html()

    def _sheet_caption(self, case: Case) -> Caption:
        found = case.found
        low, high = (round(100 * share) for share in scale_of(found))
        side = len(found.view)
        cards = self.explorer.card, self.explorer.policy_card
        lines = [
            f"Colour: hidden share of the contrast, from {low} to {high} %, one scale for all masks. "
            f"Both networks see the centre of the image at {side} × {side} pixels. Scale of the image: "
            f"{case.facts()['Scale']}.",
            f"Input {case.files.digits}.",
        ]
        return Caption(
            headline="Above: the masks. Below: the image under each mask, as the classifier gets it.",
            lines=[*lines, *self.remarks],
            colours=colour_map(),
            model=", ".join(card.identity() for card in cards),
            um_per_px=self._um_on_sheet(case) or 0.0,
        )

    def _um_on_sheet(self, case: Case) -> float | None:
        """Return the microns of a pixel of the sheet, whose panels show the part that both networks see."""
        um, size = case.view.facts.um_per_px, case.found.image_size
        return um and um * self.explorer.seen_part(size)[2] * size[1] / sheet_px(case.found)


def empty_outputs() -> Sequence[Any]:
    """Return the page's outputs without a case."""
    return empty_place(PROMPT), html.escape(PROMPT), "", ""


def _sheet(case: Case) -> Path:
    return case.files.folder / f"seed-{case.found.seeds[0]}-sheet.png"


def _layer(case: Case, which: int) -> Path:
    """Name the file of a mask's colours, by seed, so that no browser shows an older one."""
    return case.files.folder / f"seed-{case.found.seeds[0]}-mask-{which}.png"
