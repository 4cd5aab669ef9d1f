"""Page of the detection viewer: shows the detections of two predictors, and computes no scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from apps import ui
from apps.cases import Example, thumbnail_file
from apps.detection_viewer.handlers import PROMPT, VIEWS, Case, ModelPair, Viewer, cleared, display_of


def build(pairs: Sequence[ModelPair], examples: Sequence[Example] = ()) -> gr.Blocks:
    """Build the page: the image with what an adaptation changed; examples, score, views, downloads.

    Args:
        pairs: Source and adapted models.
        examples: Images to try.
    """
    page, viewer = ui.page("Detection viewer"), Viewer(pairs=tuple(pairs))
    score, about_score = pairs[0].opening()
    with page:
        ui.head("Detection before and after adaptation", scope_lines(pairs))
        with ui.desk(page, PROMPT) as place:
            words, cancel, error = ui.words(PROMPT), ui.waiting(), ui.error_panel()
            upload = ui.upload("Your image (PNG, JPEG, TIFF, DICOM)")
            shown = [(each.name, each.why, thumbnail_file(viewer.decoder.read(each.path)[0])) for each in examples]
            buttons = ui.example_strip(shown)
            picker = ui.checkpoint_picker([pair.name for pair in pairs])
            view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Show", elem_classes="choices")
            slider = gr.Slider(0.0, 1.0, value=score, step=0.01, label="Boxes with a score above", buttons=[])
            ui.overlay_controls("Opacity of the boxes", 1.0)
            with gr.Accordion("Downloads", open=False):
                files = ui.downloads_place()
            with gr.Accordion("Details", open=False):
                details = gr.HTML(padding=False, js_on_load=None)
                ui.plain_lines([about_score])
            _about(pairs, examples)
            ui.keys_help()
        components = _Components(
            picker=picker, upload=upload, view=view, score=slider, cancel=cancel, error=error,
            shown=(place, words, details, files),
        )  # fmt: skip
        _connect(components, viewer, list(zip(buttons, examples, strict=True)))
    return page


def scope_lines(pairs: Sequence[ModelPair]) -> list[str]:
    """List the warnings on models trained on synthetic images alone."""
    names = [
        pair.name for pair in pairs if pair.source.card.trained_on.synthetic or pair.adapted.card.trained_on.synthetic
    ]
    return [f"{name}: this model has only seen made images." for name in names]


@dataclass(frozen=True, kw_only=True)
class _Components:
    """Components that events connect."""

    picker: gr.Dropdown
    upload: gr.File
    view: gr.Radio
    score: gr.Slider
    cancel: gr.Button
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(components: _Components, viewer: Viewer, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = ui.case_place(viewer.forget)
    display = [components.score, components.view]
    nothing = (None, *cleared())
    events = [
        components.upload.upload(
            ui.guarded(partial(_upload, viewer), nothing),
            [components.picker, components.upload, case, *display],
            [components.error, case, *components.shown],
            **ui.ANALYSIS,
        )
    ]
    for button, example in examples:
        event = button.click(
            ui.guarded(partial(_take, viewer, example), (gr.skip(), gr.skip(), gr.skip(), *nothing)),
            [components.picker, case, *display],
            [components.error, components.picker, components.score, components.upload, case, *components.shown],
            **ui.ANALYSIS,
        )
        events.append(event)
    # Only a person's choice: an example that chooses its pair brings its own result.
    chosen = components.picker.input(
        ui.guarded(partial(_choose, viewer), (gr.skip(), *nothing)),
        [components.picker, components.upload, case, components.view],
        [components.error, components.score, case, *components.shown],
        **ui.ANALYSIS,
    )
    ui.cancels(
        components.cancel,
        components.error,
        [*events, chosen],
        [components.upload, case, *components.shown],
        (None, None, *cleared()),
    )
    redrawn: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}
    components.score.change(
        ui.guarded(partial(_draw, viewer.show), cleared()),
        [case, *display],
        [components.error, *components.shown],
        **redrawn,
    )
    components.view.change(
        ui.guarded(partial(_draw, viewer.turn), cleared()[:2]),
        [case, *display],
        [components.error, *components.shown[:2]],
        **redrawn,
    )


def _upload(viewer: Viewer, pair: str, path: str | None, case: Case | None, *display: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return viewer.upload(pair, path, display_of(*display), case)


def _take(viewer: Viewer, example: Example, pair: str, case: Case | None, *display: Any) -> tuple[Any, ...]:  # noqa: ANN401
    name, shown = viewer.pair(example.model or pair).name, display_of(*display)
    if name == pair:
        return gr.skip(), gr.skip(), None, *viewer.take(pair, example, shown, case)
    score = viewer.pair(name).opening()[0]
    return name, score, None, *viewer.take(name, example, display_of(score, shown.view), case)


def _choose(viewer: Viewer, pair: str, path: str | None, case: Case | None, view: str | None) -> tuple[Any, ...]:
    score = viewer.pair(pair).opening()[0]
    return score, *viewer.upload(pair, path, display_of(score, view), case)


def _draw(draw: Callable[..., tuple[Any, ...]], case: Case | None, *display: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return draw(case, display_of(*display))


def _about(pairs: Sequence[ModelPair], examples: Sequence[Example]) -> None:
    with gr.Accordion("About the models and the examples", open=False):
        for pair in pairs:
            for role, card in (("source", pair.source.card), ("adapted", pair.adapted.card)):
                ui.card_text(f"{pair.name}, {role} model", card)
        ui.plain_lines(sorted({example.origin for example in examples}))
