"""The page of the slide reader. It calls a predictor and shows what it returns; it computes no scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from apps import ui
from apps.cases import Example
from apps.serving import Serving
from apps.slide_reader.handlers import PROMPT, Reader, blank, forget
from vision_core.bundles.card import Card
from vision_core.images.drawing import OPACITY
from vision_core.pipeline import Predictor
from vision_core.results import SlideResult
from vision_core.slides.reading.listing import SLIDE_SUFFIXES, list_slides

_LAST: Literal["always_last"] = "always_last"
_LIMIT = (
    f"A slide is uploaded as one file of at most {Serving.max_file_size.upper()}. Larger ones, and those of several "
    "files, are chosen by name: start the page with --slides-root FOLDER."
)


def build(
    predictor: Predictor[SlideResult], examples: Sequence[Example] = (), slides_root: Path | None = None
) -> gr.Blocks:
    """The page: a slide in; its heatmap under a slider, the result in words, top tiles, and downloads.

    Args:
        predictor: Scores a slide and writes its files.
        examples: Slides to try; they alone may be of the made data that a model was trained on.
        slides_root: Folder whose slides may be chosen by name, so that they need no upload.
    """
    page = ui.page("Slide reader")
    with page:
        gr.Markdown("# Slide reader\nOne whole slide: what the model calls it, and where it looked.")
        ui.notice()
        ui.banner([ui.MADE_ONLY] if predictor.card.trained_on.synthetic else [])
        with gr.Row():
            with gr.Column():
                upload = gr.File(label="Your slide", file_types=sorted(SLIDE_SUFFIXES), height=150)
                ui.plain_lines([_LIMIT])
            with gr.Column(visible=bool(examples)):
                buttons = [gr.Button(f"Try: {example.name}") for example in examples]
        names = [str(path.relative_to(slides_root)) for path in list_slides(slides_root)] if slides_root else []
        chosen = gr.Dropdown(names, value=None, label="A slide on this computer", visible=bool(names))
        error, status = ui.error_panel(), ui.status_line(PROMPT)
        opacity = gr.Slider(0.0, 1.0, value=OPACITY, step=0.05, label="Opacity of the heatmap", buttons=[])
        ui.overlay_controls(page, opacity)
        heatmap, tiles = ui.picture("Where the model looked"), ui.picture("Tiles it looked at most")
        with gr.Accordion("Numbers", open=False):
            numbers = gr.HTML(padding=False)
        files = gr.File(label="Downloads", file_count="multiple", interactive=False, visible=False)
        _about(predictor.card, examples)
        wires = _Wires(
            upload=upload, chosen=chosen, opacity=opacity, error=error, shown=(status, heatmap, tiles, numbers, files)
        )
        reader = Reader(predictor=predictor, slides_root=slides_root)
        _connect(wires, reader, list(zip(buttons, examples, strict=True)))
    return page


@dataclass(frozen=True, kw_only=True)
class _Wires:
    """The components that events join."""

    upload: gr.File
    chosen: gr.Dropdown
    opacity: gr.Slider
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(wires: _Wires, reader: Reader, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = gr.State(None, delete_callback=forget)  # within the hour after its tab was closed
    everything = [wires.error, case, *wires.shown]
    once: dict[str, Any] = {"trigger_mode": "once", "api_visibility": "private"}
    nothing = (None, *blank())
    # Of the two ways in, only the one that was used last is filled.
    gr.on(
        [wires.upload.upload, wires.upload.clear],
        ui.guarded(partial(_beside, (None,), reader.upload), (None, *nothing)),
        [wires.upload, wires.opacity, case],
        [wires.error, wires.chosen, *everything[1:]],
        **once,
    )
    # Not the event of input, which comes again whenever the list is left. That of change comes for us, too, so one more
    # may follow while it is handled.
    choose = ui.guarded(partial(_beside, (None, gr.skip()), reader.choose), (None, None, *nothing))
    replaced = [wires.error, wires.upload, wires.chosen, *everything[1:]]
    by_person = partial(_by_person, choose)
    wires.chosen.change(by_person, [wires.chosen, wires.opacity, case], replaced, **{**once, "trigger_mode": _LAST})
    for button, example in examples:
        take = partial(_beside, (None, None), partial(reader.take, example))
        button.click(ui.guarded(take, (None, None, *nothing)), [wires.opacity, case], replaced, **once)
    wires.opacity.change(
        ui.guarded(reader.show, (None,)),
        [case, wires.opacity],
        [wires.error, wires.shown[1]],
        trigger_mode=_LAST,
        show_progress="hidden",
        api_visibility="private",
    )


def _beside(values: Sequence[Any], handler: Any, *inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return *values, *handler(*inputs)


def _by_person(choose: Any, name: str | None, *inputs: Any) -> Any:  # noqa: ANN401
    return gr.skip() if name is None else choose(name, *inputs)


def _about(card: Card, examples: Sequence[Example]) -> None:
    with gr.Accordion("About the model and the examples", open=False):
        ui.card_text("The model", card)
        ui.plain_lines(sorted({example.origin for example in examples}))
