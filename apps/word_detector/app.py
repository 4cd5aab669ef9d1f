"""Page of the word detector: shows what a predictor finds for typed words, and computes no scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from apps import ui
from apps.cases import thumbnail_file
from apps.word_detector.handlers import FIRST_SCORE, PROMPT, Case, Viewer, WordExample, cleared, question_of
from apps.word_detector.wording import learned_lines
from pipelines.ovd.predict import WordDetector

_ABOUT = (
    "Words are embedded by a sentence encoder, regions by the detector, and both are compared. Typed words compete "
    "with all that the model has learned and with those that are not wanted: else one word alone would be found in "
    "anything. A word's own threshold is the score that 99.5 % of background regions of the training do not exceed."
)
_ABOUT_SCORE = (
    f"The model has no record of a score to work at: the page opens at {FIRST_SCORE:.2f}, since a word that resembles "
    "a learned one shares its score."
)


def build(detector: WordDetector, examples: Sequence[WordExample] = ()) -> gr.Blocks:
    """Build the page: the image with the boxes of typed words; examples, words, score, downloads.

    Args:
        detector: Detector of words.
        examples: Images to try, with words.
    """
    page, viewer = ui.page("Word detector"), Viewer(detector=detector)
    with page:
        ui.head("Word detector", [ui.MADE_ONLY] if detector.card.trained_on.synthetic else [])
        with ui.desk(page, PROMPT) as place:
            words, cancel, error = ui.words(PROMPT), ui.waiting(), ui.error_panel()
            upload = ui.upload("Your image (PNG, JPEG, TIFF, DICOM)")
            shown = [(each.name, each.why, thumbnail_file(viewer.decoder.read(each.path)[0])) for each in examples]
            buttons = ui.example_strip(shown)
            typed = gr.Textbox(
                label="Words to look for, separated by commas",
                placeholder="empty: all that it has learned",
                max_lines=1,
            )
            not_wanted = gr.Textbox(label="Not these (they compete, and are not shown)", max_lines=1)
            look = gr.Button("Look for these words", size="sm")
            ui.banner(learned_lines(detector.split, detector.card))
            slider = gr.Slider(0.0, 1.0, value=FIRST_SCORE, step=0.01, label="Boxes with a score above", buttons=[])
            ui.overlay_controls("Opacity of the boxes", 1.0)
            with gr.Accordion("Downloads", open=False):
                files = ui.downloads_place()
            with gr.Accordion("Words and details", open=False):
                details = gr.HTML(padding=False, elem_classes="details", js_on_load=None)
                ui.plain_lines([_ABOUT_SCORE])
            _about(detector, examples)
            ui.keys_help()
        components = _Components(
            upload=upload, words=typed, not_wanted=not_wanted, look=look, score=slider, cancel=cancel, error=error,
            shown=(place, words, details, files),
        )  # fmt: skip
        _connect(components, viewer, list(zip(buttons, examples, strict=True)))
    return page


@dataclass(frozen=True, kw_only=True)
class _Components:
    """Components that events connect."""

    upload: gr.File
    words: gr.Textbox
    not_wanted: gr.Textbox
    look: gr.Button
    score: gr.Slider
    cancel: gr.Button
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(components: _Components, viewer: Viewer, examples: Sequence[tuple[gr.Button, WordExample]]) -> None:
    case = ui.case_place(viewer.forget)
    question = [components.words, components.not_wanted, components.score]
    result = [case, *components.shown]
    nothing = (None, *cleared())
    events = [
        components.upload.upload(
            ui.guarded(partial(_upload, viewer), nothing),
            [components.upload, case, *question],
            [components.error, *result],
            **ui.ANALYSIS,
        ),
        gr.on(
            [components.look.click, components.words.submit, components.not_wanted.submit],
            ui.guarded(partial(_ask, viewer), [gr.skip() for _ in nothing]),  # what was found before stays
            [case, *question],
            [components.error, *result],
            **ui.ANALYSIS,
        ),
    ]
    for button, example in examples:
        event = button.click(
            ui.guarded(partial(_take, viewer, example), (gr.skip(), gr.skip(), gr.skip(), *nothing)),
            [case, components.score],
            [components.error, components.words, components.not_wanted, components.upload, *result],
            **ui.ANALYSIS,
        )
        events.append(event)
    ui.cancels(components.cancel, components.error, events, [components.upload, *result], (None, *nothing))
    components.score.change(
        ui.guarded(partial(_show, viewer), cleared()),
        [case, components.score],
        [components.error, *components.shown],
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
    )


def _upload(viewer: Viewer, path: str | None, case: Case | None, *question: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return viewer.upload(path, question_of(*question), case)


def _ask(viewer: Viewer, case: Case | None, *question: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return viewer.ask(case, question_of(*question))


def _take(viewer: Viewer, example: WordExample, case: Case | None, score: float | None) -> tuple[Any, ...]:
    checked = question_of(example.words, example.not_wanted, score)
    return example.words, example.not_wanted, None, *viewer.take(example, checked.score, case)


def _show(viewer: Viewer, case: Case | None, score: float | None) -> tuple[Any, ...]:
    return viewer.show(case, question_of("", "", score).score)


def _about(detector: WordDetector, examples: Sequence[WordExample]) -> None:
    with gr.Accordion("About the model and the examples", open=False):
        ui.plain_lines([_ABOUT])
        ui.card_text("The detector", detector.card)
        ui.plain_lines(sorted({example.origin for example in examples}))
