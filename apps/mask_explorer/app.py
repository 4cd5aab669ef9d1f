"""Page of the mask explorer: masks of a policy over an image, and the classifier's scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from apps import ui
from apps.cases import Example, thumbnail_file
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
_MASKS = ("Mean mask", *(f"Sample {number}" for number in range(1, NUM_SAMPLES + 1)), "All, side by side")


def build(explorer: MaskExplorer, examples: Sequence[Example] = (), remarks: Sequence[str] = ()) -> gr.Blocks:
    """Build the page: image, masks, scores with and without them, downloads.

    Args:
        explorer: Classifier and policy of a run.
        examples: Example images; a model of made images shows scores for its own examples alone.
        remarks: Remarks on every result, a sentence each; shown on the page and written to every file.
    """
    page, viewer = ui.page("Mask explorer"), Viewer(explorer=explorer, remarks=tuple(remarks))
    with page:
        ui.head("Mask explorer", [ui.MADE_ONLY] if explorer.card.trained_on.synthetic else [])
        with ui.desk(page, PROMPT) as place:
            words, cancel, error = ui.words(PROMPT), ui.waiting(), ui.error_panel()
            upload = ui.upload("Your image (PNG, JPEG, TIFF, DICOM)")
            shown = [(each.name, each.why, thumbnail_file(viewer.reader.read(each.path)[0])) for each in examples]
            buttons = ui.example_strip(shown)
            ui.banner([*remarks, *_scope(explorer)])
            which = gr.Radio(list(_MASKS), value=_MASKS[0], type="index", label="Show", elem_classes="choices")
            ui.overlay_controls("Opacity of the mask", 0.5)
            seed = gr.Slider(0, _MOST_SEED, value=0, step=1, label="Seed of sample 1 (the others follow)", buttons=[])
            others = gr.Button("Draw other masks", size="sm")
            with gr.Accordion("Downloads", open=False):
                files = ui.downloads_place()
            with gr.Accordion("Scores and details", open=False):
                details = gr.HTML(padding=False, elem_classes="details", js_on_load=None)
            _about(explorer, examples)
            ui.keys_help()
        components = _Components(
            upload=upload, which=which, seed=seed, others=others, cancel=cancel, error=error,
            shown=(place, words, details, files),
        )  # fmt: skip
        _connect(components, viewer, list(zip(buttons, examples, strict=True)))
    return page


@dataclass(frozen=True, kw_only=True)
class _Components:
    """Components that events connect."""

    upload: gr.File
    which: gr.Radio
    seed: gr.Slider
    others: gr.Button
    cancel: gr.Button
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(components: _Components, viewer: Viewer, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = ui.case_place(viewer.forget)
    everything = [components.error, case, *components.shown]
    case_and_display = [case, components.which, components.seed]
    nothing = (None, *empty_outputs())
    last: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
    events = [
        components.upload.upload(
            ui.guarded(partial(_upload, viewer), nothing),
            [components.upload, *case_and_display],
            everything,
            **ui.ANALYSIS,
        )
    ]
    for button, example in examples:
        event = button.click(
            ui.guarded(partial(_take, viewer, example), (None, *nothing)),
            case_and_display,
            [components.error, components.upload, *everything[1:]],  # an example takes the place of an upload
            **ui.ANALYSIS,
        )
        events.append(event)
    ui.cancels(components.cancel, components.error, events, [components.upload, *everything[1:]], (None, *nothing))
    components.seed.change(
        ui.guarded(partial(_resample, viewer), nothing), case_and_display, everything, **{**ui.ANALYSIS, **last}
    )
    components.which.change(
        ui.guarded(partial(_show, viewer), (None,)),
        case_and_display,
        [components.error, components.shown[0]],
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


def _display(which: float | None, seed: float | None) -> Display:
    """Check the values of the controls; a browser may send others.

    Raises:
        InputError: One is out of range.
    """
    return Display(
        which=int(ui.within(which, 0, NUM_SAMPLES + 1, "number of the mask")),
        first_seed=int(ui.within(seed, 0, _MOST_SEED, "seed")),
    )


def _scope(explorer: MaskExplorer) -> list[str]:
    card = explorer.card
    return [line for line in (_STAGES.get(card.method, ""), "" if card.scope else _NO_GUARD) if line]


def _about(explorer: MaskExplorer, examples: Sequence[Example]) -> None:
    with gr.Accordion("About the model and the examples", open=False):
        ui.plain_lines([_INTRODUCTION])
        ui.card_text("The classifier", explorer.card)
        ui.card_text("The policy", explorer.policy_card)
        ui.plain_lines(sorted({example.origin for example in examples}))
