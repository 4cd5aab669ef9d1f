"""Page of the detection viewer: shows the detections of two predictors, and computes no scores."""

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from apps import ui
from vision_core.images.drawing import ORANGE, SKY_BLUE, draw_boxes
from vision_core.images.reading import IMAGE_SUFFIXES, resize_shortest
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import Predictor
from vision_core.results import Detections, label_texts

Image = NDArray[np.uint8]
Role = Literal["source", "adapted"]
_DISPLAY_PX = 1280  # Bounds what a session holds in memory and how long a move of the slider takes.
_SMALLEST_DISPLAY_PX = 640  # Small tiles are enlarged, or labels would not be readable.
_MAX_MEGAPIXELS = 50.0
_MAX_SECONDS = 20.0
_MAX_LABELLED_BOXES = 15  # More labels would hide the objects.
_FIRST_SCORE = 0.5
_PROMPT = "Give an image, or try an example."
_COLOURS: dict[Role, tuple[int, int, int]] = {"source": ORANGE, "adapted": SKY_BLUE}


@dataclass(frozen=True, kw_only=True)
class ModelPair:
    """Source model, and the same model after adaptation."""

    name: str
    source: Predictor[Detections]
    adapted: Predictor[Detections]


@dataclass(frozen=True, kw_only=True)
class Example:
    """Example image of the page; ``origin`` names its source and licence."""

    name: str
    image: Image
    origin: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and the detections of both models.

    Attributes:
        name: File name or name of the example.
        display: ``(H, W, 3)`` uint8, 640 to 1280 pixels.
        source: Boxes of the source model, in pixels of the original image.
        adapted: Boxes of the adapted model, likewise.
        notes: Notes on the image, each a sentence.
    """

    name: str
    display: Image
    source: Detections
    adapted: Detections
    notes: tuple[str, ...] = ()

    def detections(self, role: Role) -> Detections:
        """Return the boxes of one of the two models."""
        return self.source if role == "source" else self.adapted


def build(pairs: Sequence[ModelPair], examples: Sequence[Example] = ()) -> gr.Blocks:
    """Build the page: image, boxes of both models side by side, score slider, download."""
    page = ui.page("Detection viewer")
    with page:
        gr.Markdown("# Detection viewer\nOne image, two models: as trained at the source, and adapted to a new domain.")
        ui.notice()
        ui.banner(scope_lines(pairs))
        picker = ui.checkpoint_picker([pair.name for pair in pairs])
        with gr.Row():
            upload = gr.File(label="Your image", file_types=sorted(IMAGE_SUFFIXES), height=150)
            buttons = _example_buttons(examples)
        error, summary = ui.error_panel(), ui.status_line(_PROMPT)
        score = gr.Slider(0.0, 1.0, value=_FIRST_SCORE, step=0.01, label="Show boxes with a score above", buttons=[])
        with gr.Row(equal_height=True):
            pictures = [ui.picture(f"{role.capitalize()} model", shows_label=True) for role in _COLOURS]
        download = gr.DownloadButton("Download the boxes of both models (JSON)", interactive=False)
        _about(pairs, examples)
        components = _Components(
            picker=picker, upload=upload, score=score, error=error, shown=(summary, *pictures, download)
        )
        _connect(components, Viewer(pairs=tuple(pairs), download=download), list(zip(buttons, examples, strict=True)))
    return page


def scope_lines(pairs: Sequence[ModelPair]) -> list[str]:
    """List the warnings on models trained on synthetic images alone."""
    names = [
        pair.name for pair in pairs if pair.source.card.trained_on.synthetic or pair.adapted.card.trained_on.synthetic
    ]
    return [f"{name}: this model has only seen made images." for name in names]


def describe(case: Case, score: float) -> str:
    """Describe the change by adaptation in counts of boxes."""
    source, adapted = case.source.above(score), case.adapted.above(score)
    line = (
        f"{case.name}: above a score of {score:.2f} the source model finds {_boxes(len(source))}, "
        f"the adapted model {_boxes(len(adapted))} ({len(adapted) - len(source):+d})."
    )
    before, after = _by_class(source), _by_class(adapted)
    if len(before | after) < 2:
        return line
    return f"{line} By class: " + "; ".join(f"{name} {before[name]} → {after[name]}" for name in before | after) + "."


def draw(case: Case, role: Role, score: float) -> Image:
    """Draw the boxes of one model above ``score``, with the notice below."""
    detections = case.detections(role)
    shown = detections.above(score)
    scale = case.display.shape[1] / detections.image_size[1]
    is_labelled = max(len(case.source.above(score)), len(case.adapted.above(score))) <= _MAX_LABELLED_BOXES
    texts = label_texts(shown) if is_labelled else [""] * len(shown)
    boxes = (shown.boxes * scale).astype(np.float32)
    return ui.with_notice(draw_boxes(case.display, boxes, texts, _COLOURS[role]), detections.model)


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Handlers of the page.

    Each returns status line, both pictures and the download; ``read`` and ``analyse`` return the case before them.
    """

    pairs: tuple[ModelPair, ...]
    download: gr.DownloadButton
    # Uploads are of unknown origin: a child process with limits decodes them.
    decoder: UntrustedImages = field(
        default_factory=lambda: UntrustedImages(max_megapixels=_MAX_MEGAPIXELS, seconds=_MAX_SECONDS)
    )

    def read(self, pair_name: str, path: str | None, score: float) -> tuple[Any, ...]:
        """Run both models on an uploaded file; without one, clear the page."""
        if path is None:
            return None, *_cleared()
        image, notes = self.decoder.read(Path(path))
        return self.analyse(pair_name, Path(path).name, image, score, notes)

    def analyse(
        self, pair_name: str, name: str, image: Image, score: float, notes: tuple[str, ...] = ()
    ) -> tuple[Any, ...]:
        """Run both models on an image, of which ``notes`` are sentences."""
        pair = next(pair for pair in self.pairs if pair.name == pair_name)
        display = resize_shortest(image, max(_SMALLEST_DISPLAY_PX, min(image.shape[:2])), _DISPLAY_PX)
        size = (image.shape[0], image.shape[1])
        told = dict.fromkeys((*pair.source.remarks_on(size), *pair.adapted.remarks_on(size)))
        case = Case(
            name=name,
            display=display,
            source=pair.source(image),
            adapted=pair.adapted(image),
            notes=(*notes, *(f"The image {remark}." for remark in told)),
        )
        return case, *self.show(case, score)

    def show(self, case: Case | None, score: float) -> tuple[Any, ...]:
        """Draw a case at a score, without running a model."""
        if case is None:
            return _cleared()
        return (
            html.escape(" ".join([describe(case, score), *case.notes])),
            _picture_update(case, "source", score),
            _picture_update(case, "adapted", score),
            gr.update(value=self._record(case, score), interactive=True),
        )

    def _record(self, case: Case, score: float) -> str:
        both = {"source": case.source.above(score).to_record(), "adapted": case.adapted.above(score).to_record()}
        return ui.json_download(
            self.download, case.name, {"image": case.name, "score_above": score, "notes": list(case.notes), **both}
        )


@dataclass(frozen=True, kw_only=True)
class _Components:
    """Components that events connect."""

    picker: gr.Dropdown
    upload: gr.File
    score: gr.Slider
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(components: _Components, viewer: Viewer, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = gr.State(None)
    outputs = [components.error, case, *components.shown]
    once: dict[str, Any] = {"trigger_mode": "once", "api_visibility": "private"}
    gr.on(
        [components.upload.upload, components.upload.clear, components.picker.change],
        ui.guarded(viewer.read, (None, *_cleared())),
        [components.picker, components.upload, components.score],
        outputs,
        **once,
    )
    for button, example in examples:
        analyse = partial(_analyse_example, viewer, example)
        button.click(
            ui.guarded(analyse, (None, None, *_cleared())),
            [components.picker, components.score],
            [components.error, components.upload, case, *components.shown],
            **once,
        )
    components.score.change(
        ui.guarded(viewer.show, _cleared()),
        [case, components.score],
        [components.error, *components.shown],
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
    )


def _analyse_example(viewer: Viewer, example: Example, pair_name: str, score: float) -> tuple[Any, ...]:
    return None, *viewer.analyse(pair_name, example.name, example.image, score)


def _cleared() -> tuple[Any, ...]:
    return _PROMPT, None, None, gr.update(value=None, interactive=False)


def _picture_update(case: Case, role: Role, score: float) -> dict[str, Any]:
    text = f"{role.capitalize()} model: {_boxes(len(case.detections(role).above(score)))} on {case.name}"
    return gr.update(value=draw(case, role, score), alt_text=text)


def _example_buttons(examples: Sequence[Example]) -> list[gr.Button]:
    with gr.Column(visible=bool(examples)):
        return [gr.Button(f"Try: {example.name}") for example in examples]


def _about(pairs: Sequence[ModelPair], examples: Sequence[Example]) -> None:
    with gr.Accordion("About the models and the examples", open=False):
        for pair in pairs:
            for role, card in (("source", pair.source.card), ("adapted", pair.adapted.card)):
                ui.card_text(f"{pair.name}, {role} model", card)
        ui.plain_lines(sorted({example.origin for example in examples}))


def _by_class(detections: Detections) -> Counter[str]:
    return Counter(detections.classes[label] for label in detections.labels)


def _boxes(number: int) -> str:
    return "1 box" if number == 1 else f"{number} boxes"
