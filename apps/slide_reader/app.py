"""Page of the slide reader. It shows the results of a predictor and computes no scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from apps import ui
from apps.cases import Example, thumbnail_file
from apps.serving import Serving
from apps.slide_reader.handlers import PROMPT, VIEWS, SlideReader, delete_case, empty_outputs
from apps.slide_reader.scoring import ConfinedScoring
from vision_core.bundles.card import Card
from vision_core.images.drawing import OPACITY
from vision_core.pipeline import Predictor
from vision_core.results import SlideResult
from vision_core.slides.reading.listing import list_slides
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.overview import thumbnail

_LAST: Literal["always_last"] = "always_last"
_THUMBNAIL_PX = 400
_UPLOAD_HINT = (
    f"A slide is uploaded as one file of at most {Serving.max_file_size.upper()}. Larger ones, and those of several "
    "files, are chosen by name: ask who runs this page to offer the folder that they lie in."
)


def build(
    predictor: Predictor[SlideResult],
    examples: Sequence[Example] = (),
    slides_root: Path | None = None,
    bundle: Path | None = None,
) -> gr.Blocks:
    """Build the page: upload, heatmap with opacity slider, result, tiles, downloads.

    Args:
        predictor: Scores a slide and writes its files.
        examples: Slides to try; only these may be synthetic data that a model was trained on.
        slides_root: Folder whose slides can be chosen by name, without an upload.
        bundle: Bundle of the predictor: slides of others are then scored in a child process.
    """
    page = ui.page("Slide reader")
    with page:
        ui.head("Slide reader", [ui.MADE_ONLY] if predictor.card.trained_on.synthetic else [])
        with ui.desk(page, PROMPT) as place:
            words, cancel, error = ui.words(PROMPT), ui.waiting(), ui.error_panel()
            upload = ui.upload("Your slide")
            names = [str(path.relative_to(slides_root)) for path in list_slides(slides_root)] if slides_root else []
            chosen = gr.Dropdown(names, value=None, label="A slide on this computer", visible=bool(names))
            buttons = ui.example_strip([(each.name, each.why, _thumbnail(each)) for each in examples])
            view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Show", elem_classes="choices")
            ui.overlay_controls("Opacity of the heatmap", OPACITY)
            with gr.Accordion("Downloads", open=False):
                files = ui.downloads_place()
            with gr.Accordion("Details", open=False):
                details = gr.HTML(padding=False, js_on_load=None)
                ui.plain_lines([_UPLOAD_HINT])
            _about_section(predictor.card, examples)
            ui.keys_help()
        components = _Components(
            upload=upload, chosen=chosen, view=view, cancel=cancel, error=error,
            shown=(place, words, details, files),
        )  # fmt: skip
        confined = ConfinedScoring(bundle) if bundle else None
        reader = SlideReader(predictor=predictor, slides_root=slides_root, confined=confined)
        _connect(components, reader, list(zip(buttons, examples, strict=True)))
    return page


def _thumbnail(example: Example) -> Path:
    with open_slide(example.path) as slide:
        return thumbnail_file(thumbnail(slide, _THUMBNAIL_PX))


@dataclass(frozen=True, kw_only=True)
class _Components:
    """Components that events connect."""

    upload: gr.File
    chosen: gr.Dropdown
    view: gr.Radio
    cancel: gr.Button
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(components: _Components, reader: SlideReader, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = ui.case_place(delete_case)
    everything = [components.error, case, *components.shown]
    nothing = (None, *empty_outputs())
    # An upload clears the list of slides, and a choice from the list clears the upload.
    uploaded = components.upload.upload(
        ui.guarded(partial(_prepend, (None,), reader.score_upload), (None, *nothing)),
        [components.upload, components.view, case],
        [components.error, components.chosen, *everything[1:]],
        **ui.ANALYSIS,
    )
    # The event ``input`` would come again whenever the list loses focus. The event ``change`` also comes when we clear
    # the list, so one more may follow while it is handled.
    choose = ui.guarded(partial(_prepend, (None, gr.skip()), reader.score_chosen), (None, None, *nothing))
    replaced = [components.error, components.upload, components.chosen, *everything[1:]]
    by_person = partial(_chosen_by_person, choose)
    chosen = components.chosen.change(
        by_person, [components.chosen, components.view, case], replaced, **{**ui.ANALYSIS, "trigger_mode": _LAST}
    )
    events = [uploaded, chosen]
    for button, example in examples:
        take = partial(_prepend, (None, None), partial(reader.score_example, example))
        handler = ui.guarded(take, (None, None, *nothing))
        events.append(button.click(handler, [components.view, case], replaced, **ui.ANALYSIS))
    ui.cancels(components.cancel, components.error, events, replaced[1:], (None, None, *nothing))
    components.view.change(
        ui.guarded(reader.show, (None,)),
        [case, components.view],
        [components.error, components.shown[0]],
        trigger_mode=_LAST,
        show_progress="hidden",
        api_visibility="private",
    )


def _prepend(values: Sequence[Any], handler: Any, *inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return *values, *handler(*inputs)


def _chosen_by_person(choose: Any, name: str | None, *inputs: Any) -> Any:  # noqa: ANN401
    return gr.skip() if name is None else choose(name, *inputs)


def _about_section(card: Card, examples: Sequence[Example]) -> None:
    with gr.Accordion("About the model and the examples", open=False):
        ui.card_text("The model", card)
        ui.plain_lines(sorted({example.origin for example in examples}))
