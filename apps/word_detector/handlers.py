"""Handlers of the word detector. Each case has one folder, which is deleted when the case is cleared."""

import html
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from apps import ui
from apps.boxes import boxes_layer, draw_marks, legend
from apps.cases import Example, Files, columns_of, facts_of, new_folder, shown_name, without_scale, write_picture
from apps.viewer import Figure, Grey, empty_place
from apps.word_detector import wording
from apps.word_detector.drawing import marks_of_words
from apps.word_detector.wording import Answer
from pipelines.ovd.predict import WordDetector
from vision_core.dicom.view import ImageView
from vision_core.errors import InputError
from vision_core.files import hash_digits, origin_text, write_atomic
from vision_core.images.captions import Caption
from vision_core.images.drawing import write_png
from vision_core.images.untrusted import UntrustedImages

PROMPT = "Give an image, or try an example."
FIRST_SCORE = 0.4  # words that resemble a learned one share its score
_MAX_MEGAPIXELS = 50.0
_MAX_SECONDS = 20.0
_MOST_LETTERS, _MOST_WORDS = 600, 20
_ABOUT_FILES = {
    ".png": "The boxes, drawn on the image.",
    ".csv": "A row for each box, for spreadsheets.",
    ".json": "All boxes, with the words, their thresholds, and the notes.",
}


@dataclass(frozen=True, kw_only=True)
class WordExample(Example):
    """Example with the words that it is tried with."""

    words: str = ""
    not_wanted: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Words to look for, words that compete and are not shown, and the least score of a box."""

    words: str = ""
    not_wanted: str = ""
    score: float = FIRST_SCORE


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and what was found in it.

    Attributes:
        name: File name or name of the example.
        view: The image, with what a viewer needs beyond its pixels.
        grey: Values for window and level; None: none.
        answer: What was asked for and found.
        files: Folder, upload and hash.
        why: Why the example is offered; empty for an upload.
        notes: Notes on the image, each a sentence.
    """

    name: str
    view: ImageView
    grey: Grey | None
    answer: Answer
    files: Files
    why: str = ""
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """List what the result is of."""
        return {**facts_of(self.name, self.view, self.files.digits), "Model": self.answer.found.model}


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Handlers of the page.

    Each returns picture, words, details and downloads; those that make a case return it before them.
    """

    detector: WordDetector
    # Uploads are of unknown origin: a child process with limits decodes them.
    decoder: UntrustedImages = field(
        default_factory=lambda: UntrustedImages(max_megapixels=_MAX_MEGAPIXELS, seconds=_MAX_SECONDS)
    )
    _turn: Lock = field(default_factory=Lock)  # nothing is written to the folder of a case while it is deleted

    def upload(self, path: str | None, question: Question, before: Case | None = None) -> tuple[Any, ...]:
        """Look for words in an uploaded file; without one, clear the page."""
        uploaded = Path(path) if path else None
        self.forget(before, kept=uploaded)
        if uploaded is None:
            return None, *cleared()
        return self._new(Example(name=uploaded.name, path=uploaded, origin="uploaded"), question, uploaded)

    def take(self, example: WordExample, score: float, before: Case | None = None) -> tuple[Any, ...]:
        """Look for the words of an example in it."""
        self.forget(before)
        return self._new(example, Question(words=example.words, not_wanted=example.not_wanted, score=score))

    def ask(self, case: Case | None, question: Question) -> tuple[Any, ...]:
        """Look for other words in the image of a case."""
        if case is None:
            return None, *cleared()
        asked = replace(case, answer=self._answer(case.view, question), why="")  # which was said of other words
        return self._shown(asked, question.score)

    def show(self, case: Case | None, score: float) -> tuple[Any, ...]:
        """Draw a case above another score, without running the model; the downloads follow."""
        return self._shown(case, score)[1:] if case else cleared()

    def forget(self, case: Case | None, kept: Path | None = None) -> None:
        """Delete every file of a case but an upload that is ``kept``."""
        if case is not None:
            with self._turn:
                case.files.delete(kept)

    def _new(self, example: Example, question: Question, uploaded: Path | None = None) -> tuple[Any, ...]:
        with new_folder(uploaded) as folder:
            view, notes = self.decoder.view(example.path)
            view = without_scale(view) if self.detector.card.trained_on.synthetic and uploaded else view
            height, width = view.pixels.shape[:2]
            case = Case(
                name=shown_name(example.name),
                view=view,
                grey=write_picture(folder, view),
                answer=self._answer(view, question),
                files=Files(folder=folder, uploaded=uploaded, digits=hash_digits(example.path)),
                why=example.why,
                notes=(*notes, *(f"The image {remark}." for remark in self.detector.remarks_on((height, width)))),
            )
            return self._shown(case, question.score)

    def _answer(self, view: ImageView, question: Question) -> Answer:
        typed = self.detector.look_for(question.words, question.not_wanted)
        found = self.detector(view.pixels, typed)
        known = np.array([name not in typed.far for name in typed.names])[found.labels]
        kept = replace(found, boxes=found.boxes[known], scores=found.scores[known], labels=found.labels[known])
        return Answer(typed=typed, not_wanted=question.not_wanted, found=kept)

    def _shown(self, case: Case, score: float) -> tuple[Any, ...]:
        with self._turn:
            if not case.files.folder.exists():
                return None, *cleared()
            answer, marks = case.answer, marks_of_words(case.answer.above(score))
            headline, told = wording.headline(answer, score), wording.explanation(answer, score)
            words = ui.in_words(headline, *told, case.why or f"{case.name}.", *case.notes) + legend(marks)
            details = wording.words_table(answer, score) + ui.facts_list(case.facts())
            return case, self._figure(case, score, headline), words, details, self._downloads(case, score, headline)

    def _figure(self, case: Case, score: float, headline: str) -> str:
        height, width = case.view.pixels.shape[:2]
        return Figure(
            key=case.files.folder.name,
            base=case.files.folder / "image.png",
            size=(height, width),
            alt=f"{case.name}. {headline}",
            over=boxes_layer(marks_of_words(case.answer.above(score)), (height, width)),
            um_per_px=case.view.facts.um_per_px,
            grey=case.grey,
            words=f"{case.name} ({case.files.digits}). {case.answer.found.model}.",
        ).html()

    def _downloads(self, case: Case, score: float, headline: str) -> str:
        stem, folder, answer = ui.stem_of("words", case.files.digits), case.files.downloads, case.answer
        paths = {folder / f"{stem}{ending}": about for ending, about in _ABOUT_FILES.items()}
        picture, table, record = paths
        caption = Caption(
            headline=headline,
            lines=[*wording.explanation(answer, score), f"Input {case.files.digits}. {' '.join(case.notes)}"],
            model=answer.found.model,
            um_per_px=case.view.facts.um_per_px or 0.0,
        )
        told = origin_text(caption.model, case.files.digits, "frame 1")
        write_png(picture, draw_marks(case.view.pixels, marks_of_words(answer.above(score)), caption), told)
        write_atomic(table, wording.result_csv(answer, score, columns_of(case.name, case.view, case.files.digits)))
        content = wording.result_record(answer, score, case.facts(), case.notes)
        write_atomic(record, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        return ui.downloads(paths, stem, may_name=case.view.facts.may_name)


def cleared() -> tuple[Any, ...]:
    """Return the outputs of a page without a case."""
    return empty_place(PROMPT), html.escape(PROMPT), "", ""


def question_of(words: str | None, not_wanted: str | None, score: float | None) -> Question:
    """Check the values of the controls; a browser may send others.

    Raises:
        InputError: The score is no number from 0 to 1, or there are too many words.
    """
    for text in (words or "", not_wanted or ""):
        if len(text) > _MOST_LETTERS or text.count(",") >= _MOST_WORDS:
            raise InputError(f"These are too many words: give {_MOST_WORDS} at most, separated by commas.")
    return Question(words=words or "", not_wanted=not_wanted or "", score=ui.within(score, 0, 1, "score"))
