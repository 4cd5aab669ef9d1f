"""The page of the slide reader. It calls a predictor and shows what it returns; it computes no scores."""

import html
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
import numpy as np
from gradio.processing_utils import save_file_to_cache
from numpy.typing import NDArray

from apps import ui
from vision_core.bundle import Card
from vision_core.errors import InputError
from vision_core.results import SlideResult
from vision_core.slides.heatmap import OPACITY, blend, headline, heat_layer, words
from vision_core.slides.margin import with_margin
from vision_core.slides.reader import SLIDE_SUFFIXES, list_slides, open_slide
from vision_core.slides.sheet import Choice, draw_sheet
from vision_core.slides.tissue import thumbnail

Image = NDArray[np.uint8]
_DISPLAY_PX = 1024  # Bounds what a session holds in memory and how long a move of the slider takes.
_TOP_TILES = 8
_TILE_PX = 256
_PROMPT = "Give a slide, or try an example."
_MADE_ONLY = "This model has only seen made images."
_UNCALLED = "not called, since the model has only seen made images"


class Predictor(Protocol):
    """A classifier of slides."""

    @property
    def card(self) -> Card:
        """What its bundle says of itself."""

    def __call__(self, path: Path, /) -> SlideResult:
        """Read a slide and score it."""

    def write(self, result: SlideResult, path: Path, folder: Path) -> list[Path]:
        """Write the result of the slide at ``path`` into ``folder``: pictures and tables."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A slide that the page offers; ``origin`` names its source and licence."""

    name: str
    path: Path
    origin: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One slide and what the model made of it: all that the opacity slider needs.

    Attributes:
        name: File name, or name of the example.
        display: ``(H, W, 3)`` uint8, the whole slide, 1024 pixels long.
        layer: ``(H, W, 4)`` uint8, the heatmap.
        result: What the model made of it.
    """

    name: str
    display: Image
    layer: Image
    result: SlideResult


def build(predictor: Predictor, examples: Sequence[Example] = (), slides_root: Path | None = None) -> gr.Blocks:
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
        ui.banner([_MADE_ONLY] if predictor.card.trained_on.synthetic else [])
        with gr.Row():
            upload = gr.File(label="Your slide", file_types=sorted(SLIDE_SUFFIXES), height=150)
            buttons = [gr.Button(f"Try: {example.name}") for example in examples]
        names = [str(path.relative_to(slides_root)) for path in list_slides(slides_root)] if slides_root else []
        chosen = gr.Dropdown(names, value=None, label="A slide on this computer", visible=bool(names))
        error, status = ui.error_panel(), ui.status_line(_PROMPT)
        opacity = gr.Slider(0.0, 1.0, value=OPACITY, step=0.05, label="Opacity of the heatmap", buttons=[])
        heatmap, sheet = _picture("Where the model looked"), _picture("Tiles it looked at most")
        with gr.Accordion("Numbers", open=False):
            numbers = gr.HTML(padding=False)
        files = gr.File(label="Downloads", file_count="multiple", interactive=False, visible=False)
        _about(predictor.card, examples)
        reader = Reader(predictor=predictor, files=files, slides_root=slides_root)
        wires = _Wires(
            upload=upload, chosen=chosen, opacity=opacity, error=error, shown=(status, heatmap, sheet, numbers, files)
        )
        _connect(wires, reader, list(zip(buttons, examples, strict=True)))
    return page


def describe(case: Case) -> str:
    """The result in words, and what the person should know of it."""
    return " ".join([f"{case.name}: {case.result.category}.", *case.result.notes])


def draw(case: Case, opacity: float) -> Image:
    """The heatmap over the slide, and the notice below it."""
    return with_margin(blend(case.display, case.layer, opacity), words(case.result))


def numbers_table(result: SlideResult) -> str:
    """Probabilities and facts as an HTML table; empty where the model calls nothing."""
    if result.category == _UNCALLED:
        return ""
    facts = {f"Probability of {name}": f"{share:.3f}" for name, share in _shares(result)}
    facts |= {"Tiles": str(len(result)), **{name: f"{value:g}" for name, value in result.facts.items()}}
    rows = (f'<tr><th scope="row">{html.escape(name)}</th><td>{value}</td></tr>' for name, value in facts.items())
    return f"<table>{''.join(rows)}</table>"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The handlers: each returns status line, heatmap, top tiles, numbers and files, and puts the case first."""

    predictor: Predictor
    files: gr.File
    slides_root: Path | None = None

    def upload(self, path: str | None, opacity: float) -> tuple[Any, ...]:
        """Score an uploaded slide; nothing uploaded is a blank page."""
        return self.analyse(Path(path), Path(path).name, opacity) if path else (None, *_blank())

    def choose(self, name: str | None, opacity: float) -> tuple[Any, ...]:
        """Score a slide below ``slides_root``.

        Raises:
            InputError: The name leads out of it.
        """
        if not (name and self.slides_root):
            return None, *_blank()
        root = self.slides_root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"'{Path(name).name}' is not below the folder of slides. Choose one of the list.")
        return self.analyse(path, Path(name).name, opacity)

    def analyse(self, path: Path, name: str, opacity: float, *, is_example: bool = False) -> tuple[Any, ...]:
        """Score a slide and write its files."""
        result = self.predictor(path)
        if self.predictor.card.trained_on.synthetic and not is_example:
            result = replace(result, category=_UNCALLED)
        with open_slide(path) as slide:
            display = thumbnail(slide, _DISPLAY_PX)
            tiles = draw_sheet(slide, result, Choice(most=_TOP_TILES, tile_px=min(_TILE_PX, result.tile_side)))
        case = Case(name=name, display=display, layer=heat_layer(result, display.shape[:2]), result=result)
        return (
            case,
            html.escape(describe(case)),
            _shown(case, opacity),
            gr.update(value=tiles, alt_text=f"Tiles that the model looked at most on {name}"),
            numbers_table(result),
            gr.update(value=self._written(result, path), visible=True),
        )

    def show(self, case: Case | None, opacity: float) -> tuple[Any, ...]:
        """Draw a case at another opacity; no model runs."""
        return (_shown(case, opacity) if case else None,)

    def _written(self, result: SlideResult, path: Path) -> list[str]:
        cache = Path(self.files.GRADIO_CACHE)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            written = self.predictor.write(result, path, Path(folder))
            return [save_file_to_cache(each, str(cache)) for each in written]


@dataclass(frozen=True, kw_only=True)
class _Wires:
    """The components that events join."""

    upload: gr.File
    chosen: gr.Dropdown
    opacity: gr.Slider
    error: gr.HTML
    shown: tuple[gr.Component, ...]


def _connect(wires: _Wires, reader: Reader, examples: Sequence[tuple[gr.Button, Example]]) -> None:
    case = gr.State(None)
    everything = [wires.error, case, *wires.shown]
    once: dict[str, Any] = {"trigger_mode": "once", "api_visibility": "private"}
    blank = (None, *_blank())
    gr.on(
        [wires.upload.upload, wires.upload.clear],
        ui.guarded(reader.upload, blank),
        [wires.upload, wires.opacity],
        everything,
        **once,
    )
    # What is not uploaded takes the place of an upload.
    replaced = [wires.error, wires.upload, *everything[1:]]
    choose = ui.guarded(partial(_choose, reader), (None, *blank))
    wires.chosen.input(choose, [wires.chosen, wires.opacity], replaced, **once)
    for button, example in examples:
        take = ui.guarded(partial(_take, reader, example), (None, *blank))
        button.click(take, [wires.opacity], replaced, **once)
    wires.opacity.change(
        ui.guarded(reader.show, (None,)),
        [case, wires.opacity],
        [wires.error, wires.shown[1]],
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
    )


def _take(reader: Reader, example: Example, opacity: float) -> tuple[Any, ...]:
    return None, *reader.analyse(example.path, example.name, opacity, is_example=True)


def _choose(reader: Reader, name: str | None, opacity: float) -> tuple[Any, ...]:
    return None, *reader.choose(name, opacity)


def _blank() -> tuple[Any, ...]:
    return _PROMPT, None, None, "", gr.update(value=None, visible=False)


def _shown(case: Case, opacity: float) -> dict[str, Any]:
    text = f"Heatmap over {case.name}. {headline(case.result)}."
    return gr.update(value=draw(case, opacity), alt_text=text)


def _shares(result: SlideResult) -> list[tuple[str, float]]:
    return [(name, float(share)) for name, share in zip(result.classes, result.probabilities, strict=False)]


def _picture(label: str) -> gr.Image:
    # PNG, since the default loses detail; never an input, since it would reduce 16 bits to 8.
    # The label would cover a corner; it names the picture to screen readers until there is one.
    return gr.Image(label=label, show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"])


def _about(card: Card, examples: Sequence[Example]) -> None:
    with gr.Accordion("About the model and the examples", open=False):
        ui.card_text("The model", card)
        ui.plain_lines(sorted({example.origin for example in examples}))
