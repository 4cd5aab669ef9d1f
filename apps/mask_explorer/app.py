"""Page of the mask explorer: masks of a policy over an image, and the classifier's scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from apps import ui
from apps.cases import Example
from apps.mask_explorer.explorer import NUM_SAMPLES, MaskExplorer
from apps.mask_explorer.handlers import PROMPT, Case, Display, Viewer, empty_outputs

_NO_GUARD = (
    "The classifier has no guard of its scope: it predicts one of its classes for any image, with scores that are not "
    "calibrated."
)
_INTRODUCTION = (
    "In pretraining, a policy network draws a noise mask for each image. The image is multiplied by the mask, so that "
    "hidden parts fade to mean grey. This page shows the masks of an image, and the classifier's scores with and "
    "without them. After pretraining the policy is discarded: the classifier is used without masks."
)
_STAGES = {  # the stage of the classifier decides how its scores under masks are to be read
    "pretrain": "This classifier comes from the stage under masks: on clean images it is expected to be weak.",
    "finetune": "This classifier was fine-tuned on clean images after the stage under masks: "
    "under masks it is expected to be weak.",
    "transfer": "This classifier was trained on other images than the policy.",
}
_MOST_SEED = 999
_MASKS = ("Mean mask", *(f"Sample {number}" for number in range(1, NUM_SAMPLES + 1)))


def build(explorer: MaskExplorer, examples: Sequence[Example] = (), remarks: Sequence[str] = ()) -> gr.Blocks:
    """Build the page: image, masks, scores with and without them, downloads.

    Args:
        explorer: Classifier and policy of a run.
        examples: Example images; a model of made images shows scores for its own examples alone.
        remarks: Remarks on every result, a sentence each; shown on the page and written to every file.
    """
    page = ui.page("Mask explorer")
    with page:
        gr.Markdown(f"# Mask explorer\n{_INTRODUCTION}")
        ui.notice()
        ui.banner([*_scope(explorer), *remarks])
        with gr.Row():
            # Any name is accepted, since DICOM files often have no suffix; the content decides.
            upload = gr.File(label="Your image (PNG, JPEG, TIFF, DICOM)", height=150)
            with gr.Column(visible=bool(examples)):
                buttons = [gr.Button(f"Try: {example.name}") for example in examples]
        error, status = ui.error_panel(), ui.status_line(PROMPT)
        with gr.Row():
            which = gr.Radio(list(_MASKS), value=_MASKS[0], type="index", label="Mask over the image")
            seed = gr.Slider(0, _MOST_SEED, value=0, step=1, label="Seed of sample 1 (the others follow)", buttons=[])
            others = gr.Button("Draw other masks")
        opacity = gr.Slider(0.0, 1.0, value=0.5, step=0.05, label="Opacity of the mask", buttons=[])
        ui.overlay_controls(page, opacity)
        with gr.Row():
            overlay = ui.picture("Mask over the image", scale=2)
            sheet = ui.picture("All masks, and the image under them", scale=3)
        with gr.Accordion("Scores", open=True):
            numbers = gr.HTML(padding=False)
        files = gr.File(label="Downloads", file_count="multiple", interactive=False, visible=False)
        _about(explorer, examples)
        components = _Components(
            upload=upload, which=which, opacity=opacity, seed=seed, others=others, error=error,
            shown=(status, overlay, sheet, numbers, files),
        )  # fmt: skip
        _connect(
            components, Viewer(explorer=explorer, remarks=tuple(remarks)), list(zip(buttons, examples, strict=True))
        )
    return page


@dataclass(frozen=True, kw_only=True)
class _Components:
    """Components that events connect."""

    upload: gr.File
    which: gr.Radio
    opacity: gr.Slider
    seed: gr.Slider
    others: gr.Button
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(components: _Components, viewer: Viewer, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = gr.State(None, delete_callback=viewer.forget)  # within the hour after its tab was closed
    everything = [components.error, case, *components.shown]
    case_and_display = [case, components.which, components.opacity, components.seed]
    nothing = (None, *empty_outputs())
    once: dict[str, Any] = {"trigger_mode": "once", "api_visibility": "private"}
    last: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
    gr.on(
        [components.upload.upload, components.upload.clear],
        ui.guarded(partial(_upload, viewer), nothing),
        [components.upload, *case_and_display],
        everything,
        **once,
    )
    for button, example in examples:
        button.click(
            ui.guarded(partial(_take, viewer, example), (None, *nothing)),
            case_and_display,
            [components.error, components.upload, *everything[1:]],  # an example takes the place of an upload
            **once,
        )
    components.seed.change(ui.guarded(partial(_resample, viewer), nothing), case_and_display, everything, **last)
    gr.on(
        [components.which.change, components.opacity.change],
        ui.guarded(partial(_show, viewer), (None,)),
        case_and_display,
        [components.error, components.shown[1]],
        show_progress="hidden",
        **last,
    )
    step = f"(now) => (now + {NUM_SAMPLES}) % {_MOST_SEED + 1}"
    components.others.click(None, [components.seed], [components.seed], js=step, api_visibility="private")


def _upload(viewer: Viewer, path: str | None, before: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return viewer.upload(path, _display(*controls), before)


def _take(viewer: Viewer, example: Example, before: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return None, *viewer.take(example, _display(*controls), before)


def _resample(viewer: Viewer, case: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return viewer.resample(case, _display(*controls))


def _show(viewer: Viewer, case: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return viewer.show(case, _display(*controls))


def _display(which: float | None, opacity: float | None, seed: float | None) -> Display:
    """Clip the values of the controls; a browser may send others."""
    return Display(
        which=min(max(int(which or 0), 0), NUM_SAMPLES),
        opacity=min(max(opacity or 0.0, 0.0), 1.0),
        first_seed=min(max(int(seed or 0), 0), _MOST_SEED),
    )


def _scope(explorer: MaskExplorer) -> list[str]:
    card = explorer.card
    lines = [ui.MADE_ONLY if card.trained_on.synthetic else "", _STAGES.get(card.method, "")]
    return [line for line in (*lines, "" if card.scope else _NO_GUARD) if line]


def _about(explorer: MaskExplorer, examples: Sequence[Example]) -> None:
    with gr.Accordion("About the model and the examples", open=False):
        ui.card_text("The classifier", explorer.card)
        ui.card_text("The policy", explorer.policy_card)
        ui.plain_lines(sorted({example.origin for example in examples}))
