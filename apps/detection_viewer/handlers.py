"""Handlers of the detection viewer. Each case has one folder, which is deleted when the case is cleared."""

import html
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from apps import ui
from apps.boxes import Marks, boxes_layer, draw_marks, legend, marks_of
from apps.cases import Example, Files, columns_of, facts_of, new_folder, shown_name, without_scale, write_picture
from apps.detection_viewer import drawing, wording
from apps.viewer import Figure, Grey, Halves, empty_place
from vision_core.dicom.view import ImageView
from vision_core.files import hash_digits, origin_text, write_atomic
from vision_core.images.captions import Caption
from vision_core.images.drawing import write_png
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import Predictor
from vision_core.results import Detections

View = Literal["What changed", "Source model", "Adapted model", "Both, with a divider"]
VIEWS: tuple[View, ...] = get_args(View)
PROMPT = "Give an image, or try an example."
_MAX_MEGAPIXELS = 50.0
_MAX_SECONDS = 20.0
_ABOUT_FILES = {
    ".png": "What changed, drawn on the image.",
    ".csv": "A row for each box, for spreadsheets.",
    ".json": "All boxes of both models, with the notes.",
}


@dataclass(frozen=True, kw_only=True)
class ModelPair:
    """Source model, and the same model after adaptation."""

    name: str
    source: Predictor[Detections]
    adapted: Predictor[Detections]

    def opening(self) -> tuple[float, str]:
        """Return the score that the page opens at, and where it is from."""
        return wording.operating_score(self.source.card, self.adapted.card)


@dataclass(frozen=True, kw_only=True)
class Display:
    """How a case is shown: boxes above a score, of one model or of both."""

    score: float
    view: View = "What changed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and the detections of both models.

    Attributes:
        name: File name or name of the example.
        view: The image, with what a viewer needs beyond its pixels.
        grey: Values for window and level; None: none.
        source: Boxes of the source model, in pixels of the image.
        adapted: Boxes of the adapted model, likewise.
        files: Folder, upload and hash.
        why: Why the example is offered; empty for an upload.
        notes: Notes on the image, each a sentence.
    """

    name: str
    view: ImageView
    grey: Grey | None
    source: Detections
    adapted: Detections
    files: Files
    why: str = ""
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """List what the result is of."""
        facts = facts_of(self.name, self.view, self.files.digits)
        return {**facts, "Source model": self.source.model, "Adapted model": self.adapted.model}


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Handlers of the page.

    Each returns picture, words, details and downloads; those that make a case return it before them, and delete the
    files of the case before.
    """

    pairs: tuple[ModelPair, ...]
    # Uploads are of unknown origin: a child process with limits decodes them.
    decoder: UntrustedImages = field(
        default_factory=lambda: UntrustedImages(max_megapixels=_MAX_MEGAPIXELS, seconds=_MAX_SECONDS)
    )
    _turn: Lock = field(default_factory=Lock)  # nothing is written to the folder of a case while it is deleted

    def upload(self, pair_name: str, path: str | None, display: Display, before: Case | None = None) -> tuple[Any, ...]:
        """Run both models on an uploaded file; without one, clear the page."""
        uploaded = Path(path) if path else None
        self.forget(before, kept=uploaded)
        if uploaded is None:
            return None, *cleared()
        given = Example(name=uploaded.name, path=uploaded, origin="uploaded")
        return self._new(pair_name, given, display, uploaded)

    def take(self, pair_name: str, example: Example, display: Display, before: Case | None = None) -> tuple[Any, ...]:
        """Run both models on an example."""
        self.forget(before)
        return self._new(pair_name, example, display)

    def show(self, case: Case | None, display: Display) -> tuple[Any, ...]:
        """Draw a case at another score, without running a model; the downloads follow."""
        with self._turn:
            return self._shown(case, display) if case and case.files.folder.exists() else cleared()

    def turn(self, case: Case | None, display: Display) -> tuple[Any, ...]:
        """Show another view of a case: picture and words alone."""
        with self._turn:
            return self._seen(case, display) if case and case.files.folder.exists() else cleared()[:2]

    def forget(self, case: Case | None, kept: Path | None = None) -> None:
        """Delete every file of a case but an upload that is ``kept``."""
        if case is not None:
            with self._turn:
                case.files.delete(kept)

    def pair(self, name: str) -> ModelPair:
        """Return the pair with this name; the first for a name that there is not."""
        return next((pair for pair in self.pairs if pair.name == name), self.pairs[0])

    def _new(self, pair_name: str, example: Example, display: Display, uploaded: Path | None = None) -> tuple[Any, ...]:
        pair = self.pair(example.model or pair_name)
        with new_folder(uploaded) as folder:
            view, notes = self.decoder.view(example.path)
            is_made = pair.source.card.trained_on.synthetic or pair.adapted.card.trained_on.synthetic
            view = without_scale(view) if is_made and uploaded else view
            image = view.pixels
            size = (image.shape[0], image.shape[1])
            told = dict.fromkeys((*pair.source.remarks_on(size), *pair.adapted.remarks_on(size)))
            case = Case(
                name=shown_name(example.name),
                view=view,
                grey=write_picture(folder, view),
                source=pair.source(image),
                adapted=pair.adapted(image),
                files=Files(folder=folder, uploaded=uploaded, digits=hash_digits(example.path)),
                why=example.why,
                notes=(*notes, *(f"The image {remark}." for remark in told)),
            )
            return case, *self.show(case, display)

    def _shown(self, case: Case, display: Display) -> tuple[Any, ...]:
        source, adapted = case.source.above(display.score), case.adapted.above(display.score)
        files = self._downloads(case, source, adapted, display)
        return *self._seen(case, display), ui.facts_list(case.facts()), files

    def _seen(self, case: Case, display: Display) -> tuple[str, str]:
        """Return picture and words."""
        source, adapted = case.source.above(display.score), case.adapted.above(display.score)
        marks = _marks(source, adapted, display.view)
        told = wording.totals(source, adapted, display.score)
        headline = wording.headline(source, adapted)
        words = ui.in_words(headline, told, case.why or f"{case.name}.", *case.notes) + legend(marks)
        return self._figure(case, source, adapted, display, f"{headline} {told}"), words

    def _figure(self, case: Case, source: Detections, adapted: Detections, display: Display, told: str) -> str:
        height, width = case.view.pixels.shape[:2]
        layers = [
            boxes_layer([marks_of(found, kind)], (height, width))
            for found, kind in ((source, drawing.SOURCE), (adapted, drawing.ADAPTED))
        ]
        is_divided = display.view == "Both, with a divider"
        marks = _marks(source, adapted, display.view)
        return Figure(
            key=case.files.folder.name,
            base=case.files.folder / "image.png",
            size=(height, width),
            alt=f"{case.name}. {display.view}. {told}",
            over="" if is_divided else boxes_layer(marks, (height, width)),
            halves=Halves(before=layers[0], after=layers[1], names=("source model", "adapted model"))
            if is_divided
            else None,
            um_per_px=case.view.facts.um_per_px,
            grey=case.grey,
            words=f"{case.name} ({case.files.digits}). {case.source.model}; {case.adapted.model}.",
        ).html()

    def _downloads(self, case: Case, source: Detections, adapted: Detections, display: Display) -> str:
        stem, folder, facts = ui.stem_of("detection", case.files.digits), case.files.downloads, case.facts()
        paths = {folder / f"{stem}{ending}": about for ending, about in _ABOUT_FILES.items()}
        picture, table, record = paths
        marks = drawing.marks_of_changes(source, adapted)
        kinds = (("blue", drawing.GAINED), ("orange", drawing.LOST), ("green", drawing.MOVED), ("grey", drawing.SAME))
        caption = Caption(
            headline=wording.headline(source, adapted),
            lines=[
                wording.totals(source, adapted, display.score),
                f"{'; '.join(f'{colour}: {kind.name}' for colour, kind in kinds)}.",
                f"Input {case.files.digits}. {' '.join(case.notes)}",
            ],
            model=f"{source.model}; {adapted.model}",
            um_per_px=case.view.facts.um_per_px or 0.0,
        )
        told = origin_text(caption.model, case.files.digits, "frame 1")
        write_png(picture, draw_marks(case.view.pixels, marks, caption), told)
        write_atomic(table, wording.result_csv(source, adapted, columns_of(case.name, case.view, case.files.digits)))
        content = wording.result_record(source, adapted, display.score, facts, case.notes)
        write_atomic(record, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        return ui.downloads(paths, stem, may_name=case.view.facts.may_name)


def cleared() -> tuple[Any, ...]:
    """Return the outputs of a page without a case."""
    return empty_place(PROMPT), html.escape(PROMPT), "", ""


def display_of(score: float | None, view: str | None) -> Display:
    """Check the values of the controls; a browser may send others.

    Raises:
        InputError: The score is no number from 0 to 1.
    """
    chosen = next((each for each in VIEWS if each == view), VIEWS[0])
    return replace(Display(score=ui.within(score, 0, 1, "score")), view=chosen)


def _marks(source: Detections, adapted: Detections, view: View) -> list[Marks]:
    if view == "What changed":
        return drawing.marks_of_changes(source, adapted)
    both = {
        "Source model": marks_of(source, drawing.SOURCE),
        "Adapted model": marks_of(adapted, drawing.ADAPTED),
    }
    return [both[view]] if view in both else list(both.values())
