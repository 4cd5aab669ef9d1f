"""Page of the ultrasound reader: shows the results of two predictors, and computes no scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from apps import ui
from apps.cases import Example, thumbnail_file
from apps.ultrasound_reader.drawing import as_picture
from apps.ultrasound_reader.handlers import PROMPT, VIEWS, Case, Reader, cleared, forget
from pipelines.ultrasound.data.files import open_file

_ABOUT = (
    "The screen scores every frame; frames that are not accepted get no mask. In orange is the mask behind the gate, "
    "dashed in blue what the segmenter alone would leave on a frame that the gate rejects."
)


def build(reader: Reader, examples: Sequence[Example] = ()) -> gr.Blocks:
    """Build the page: frames with their masks, presence in words, what the gate changes, downloads.

    Args:
        reader: Screen with segmenter, and the segmenter alone.
        examples: Files to try; a model of made images shows presence and masks for its own examples alone.
    """
    page = ui.page("Ultrasound reader")
    with page:
        ui.head("Ultrasound reader", [ui.MADE_ONLY] if reader.is_made_only else [])
        with ui.desk(page, PROMPT) as place:
            words, cancel, error = ui.words(PROMPT), ui.waiting(), ui.error_panel()
            upload = ui.upload("Your file (DICOM, image, video, NIfTI)")
            buttons = ui.example_strip(
                [(each.name, each.why, thumbnail_file(_first(reader, each))) for each in examples]
            )
            view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Show", elem_classes="choices")
            ui.overlay_controls("Opacity of the masks", 1.0)
            with gr.Accordion("Downloads", open=False):
                files = ui.downloads_place()
            with gr.Accordion("Details", open=False):
                details = gr.HTML(padding=False, elem_classes="details", js_on_load=None)
            _about(reader, examples)
            ui.keys_help()
        components = _Components(
            upload=upload, view=view, cancel=cancel, error=error, shown=(place, words, details, files)
        )
        _connect(components, reader, list(zip(buttons, examples, strict=True)))
    return page


@dataclass(frozen=True, kw_only=True)
class _Components:
    """Components that events connect."""

    upload: gr.File
    view: gr.Radio
    cancel: gr.Button
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(components: _Components, reader: Reader, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = ui.case_place(forget)
    everything = [components.error, case, *components.shown]
    nothing = (None, *cleared())
    events = [
        components.upload.upload(
            ui.guarded(reader.upload, nothing),
            [components.upload, components.view, case],
            everything,
            **ui.ANALYSIS,
        )
    ]
    for button, example in examples:
        event = button.click(
            ui.guarded(partial(_take, reader, example), (None, *nothing)),
            [components.view, case],
            [components.error, components.upload, *everything[1:]],  # an example takes the place of an upload
            **ui.ANALYSIS,
        )
        events.append(event)
    ui.cancels(components.cancel, components.error, events, [components.upload, *everything[1:]], (None, *nothing))
    components.view.change(
        ui.guarded(reader.show, (None,)),
        [case, components.view],
        [components.error, components.shown[0]],
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
    )


def _take(reader: Reader, example: Example, view: str | None, before: Case | None) -> tuple[Any, ...]:
    return None, *reader.take(example, view, before)


def _first(reader: Reader, example: Example) -> Any:  # noqa: ANN401
    opened = open_file(example.path, reader.decoder)
    return as_picture(opened.read(len(opened.texts) // 2))


def _about(reader: Reader, examples: Sequence[Example]) -> None:
    with gr.Accordion("About the models and the examples", open=False):
        ui.plain_lines([_ABOUT])
        ui.card_text("The screen", reader.gate.card)
        ui.card_text("The segmenter", reader.alone.card)
        ui.plain_lines(sorted({example.origin for example in examples}))
