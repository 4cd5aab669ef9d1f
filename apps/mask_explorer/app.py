"""The page of the mask explorer. It calls a policy and a classifier and shows what they return."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from apps import ui
from apps.cases import Example
from apps.mask_explorer.explorer import NUM_SAMPLES
from apps.mask_explorer.handlers import PROMPT, Case, Explorer, Looks, Viewer, blank

_NO_GUARD = (
    "The classifier has no guard of its scope: it names one of its classes whatever the image shows, with scores that "
    "are not calibrated."
)
_WHAT = (
    "In pretraining, a policy network looks at each image and says how a noise mask is distributed. The mask "
    "multiplies the image: what is hidden fades to mean grey. Here you see what it hides, and what the classifier says "
    "with and without the mask. In use there is no mask: the policy is thrown away."
)
_STAGES = {  # what a classifier of each stage has seen decides how its scores under masks are to be read
    "pretrain": "This classifier comes from the stage under masks: on clean images it is expected to be weak.",
    "finetune": "This classifier was fine-tuned on clean images after the stage under masks: "
    "under masks it is expected to be weak.",
    "transfer": "This classifier was moved to other images than those of the policy.",
}
_MOST_SEED = 999
_MASKS = ("Mean mask", *(f"Sample {number}" for number in range(1, NUM_SAMPLES + 1)))


def build(explorer: Explorer, examples: Sequence[Example] = (), remarks: Sequence[str] = ()) -> gr.Blocks:
    """The page: an image in; its masks under a slider, scores with and without them, and downloads.

    Args:
        explorer: The classifier and the policy of a run.
        examples: Images to try; only of those a model of made data speaks.
        remarks: What must be known of every result, a sentence each; above the page and in every file.
    """
    page = ui.page("Mask explorer")
    with page:
        gr.Markdown(f"# Mask explorer\n{_WHAT}")
        ui.notice()
        ui.banner([*_scope(explorer), *remarks])
        with gr.Row():
            # Any name, since files of DICOM often have no suffix; what they are is seen from their content.
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
            overlay = ui.picture("What the policy hides", scale=2)
            sheet = ui.picture("All masks, and the image under them", scale=3)
        with gr.Accordion("Scores", open=True):
            numbers = gr.HTML(padding=False)
        files = gr.File(label="Downloads", file_count="multiple", interactive=False, visible=False)
        _about(explorer, examples)
        wires = _Wires(
            upload=upload, which=which, opacity=opacity, seed=seed, others=others, error=error,
            shown=(status, overlay, sheet, numbers, files),
        )  # fmt: skip
        _connect(wires, Viewer(explorer=explorer, remarks=tuple(remarks)), list(zip(buttons, examples, strict=True)))
    return page


@dataclass(frozen=True, kw_only=True)
class _Wires:
    """The components that events join."""

    upload: gr.File
    which: gr.Radio
    opacity: gr.Slider
    seed: gr.Slider
    others: gr.Button
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(wires: _Wires, viewer: Viewer, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = gr.State(None, delete_callback=viewer.forget)  # within the hour after its tab was closed
    everything = [wires.error, case, *wires.shown]
    case_and_looks = [case, wires.which, wires.opacity, wires.seed]
    nothing = (None, *blank())
    once: dict[str, Any] = {"trigger_mode": "once", "api_visibility": "private"}
    last: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
    gr.on(
        [wires.upload.upload, wires.upload.clear],
        ui.guarded(partial(_upload, viewer), nothing),
        [wires.upload, *case_and_looks],
        everything,
        **once,
    )
    for button, example in examples:
        button.click(
            ui.guarded(partial(_take, viewer, example), (None, *nothing)),
            case_and_looks,
            [wires.error, wires.upload, *everything[1:]],  # an example takes the place of an upload
            **once,
        )
    wires.seed.change(ui.guarded(partial(_resample, viewer), nothing), case_and_looks, everything, **last)
    gr.on(
        [wires.which.change, wires.opacity.change],
        ui.guarded(partial(_show, viewer), (None,)),
        case_and_looks,
        [wires.error, wires.shown[1]],
        show_progress="hidden",
        **last,
    )
    step = f"(now) => (now + {NUM_SAMPLES}) % {_MOST_SEED + 1}"
    wires.others.click(None, [wires.seed], [wires.seed], js=step, api_visibility="private")


def _upload(viewer: Viewer, path: str | None, before: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return viewer.upload(path, _looks(*controls), before)


def _take(viewer: Viewer, example: Example, before: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return None, *viewer.take(example, _looks(*controls), before)


def _resample(viewer: Viewer, case: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return viewer.resample(case, _looks(*controls))


def _show(viewer: Viewer, case: Case | None, *controls: float | None) -> tuple[Any, ...]:
    return viewer.show(case, _looks(*controls))


def _looks(which: float | None, opacity: float | None, seed: float | None) -> Looks:
    """What a browser sends need not be within the ranges of the controls."""
    return Looks(
        which=min(max(int(which or 0), 0), NUM_SAMPLES),
        opacity=min(max(opacity or 0.0, 0.0), 1.0),
        first_seed=min(max(int(seed or 0), 0), _MOST_SEED),
    )


def _scope(explorer: Explorer) -> list[str]:
    card = explorer.card
    lines = [ui.MADE_ONLY if card.trained_on.synthetic else "", _STAGES.get(card.method, "")]
    return [line for line in (*lines, "" if card.scope else _NO_GUARD) if line]


def _about(explorer: Explorer, examples: Sequence[Example]) -> None:
    with gr.Accordion("About the model and the examples", open=False):
        ui.card_text("The classifier", explorer.card)
        ui.card_text("The policy", explorer.policy_card)
        ui.plain_lines(sorted({example.origin for example in examples}))
