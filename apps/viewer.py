"""The picture of a page: layers over each other, zoomed, panned and measured in the browser by ``viewer.js``.

Everything a picture needs lies in the folder of its case, so that it goes when the case is cleared.
"""

import html
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from apps.cine import CineFrame, cine_bar
from vision_core.results import RESEARCH_NOTICE

_FILE_ROUTE = "/gradio_api/file="
SCRIPT = Path(__file__).with_name("viewer.js").read_text(encoding="utf-8")
_TOOLS = (  # action, name with its key, lines of an icon of 24 by 24
    ("in", "Zoom in (Z)", "M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14M16 16l5 5M8 11h6M11 8v6"),
    ("out", "Zoom out (X)", "M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14M16 16l5 5M8 11h6"),
    ("fit", "Whole picture (0)", "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5"),
    ("ruler", "Measure: two clicks (R)", "M3 16L16 3l5 5L8 21zM7 12l2 2M10 9l3 3M13 6l2 2"),
    ("full", "Full screen (F)", "M3 5h18v14H3zM8 9h8v6H8z"),
)
_GREY_TOOL = ("grey", "Window and level by drag (W)", "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18")


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Two layers on both sides of a divider that a person moves, such as before and after.

    Attributes:
        before: HTML of the layer on the left.
        after: HTML of the layer on the right.
        names: Their names.
    """

    before: str
    after: str
    names: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Grey:
    """Stored values of a picture with more than 8 bits, for window and level in the browser.

    Attributes:
        path: PNG whose red and green bytes are the high and low byte of a code; blue is 255 where a pixel is padding,
            and black in every window.
        lowest: Value of the code 0.
        step: Difference between the values of two codes.
        presets: Name, centre and width of each window; the first is the one that the picture was made with.
        is_inverted: Whether low values are bright.
    """

    path: Path
    lowest: float
    step: float
    presets: Sequence[tuple[str, float, float]]
    is_inverted: bool = False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One picture of a case.

    Attributes:
        key: The same for drawings of one picture, which keep zoom and place; unguessable, or not secret.
        base: PNG or JPEG in the folder of the case.
        size: ``(height, width)`` of the picture in its own pixels.
        alt: What is seen, for people who do not see it.
        over: HTML of the layer that the opacity of the page applies to; empty: none.
        halves: Two layers with a divider, instead of ``over``.
        um_per_px: Microns per pixel of the picture; None: unknown.
        is_slide: Whether the magnification in view is told.
        grey: Values for window and level.
        words: What the picture shows, below it; the research notice precedes it, also in full screen.
        frames: Frames of a cine; ``base`` and ``over`` are those of the first that is shown.
        first: Place among ``frames`` of that one.
        num_frames: Frames of the file; more than ``frames`` where not all are shown.
    """

    key: str
    base: Path
    size: tuple[int, int]
    alt: str
    over: str = ""
    halves: Halves | None = None
    um_per_px: float | None = None
    is_slide: bool = False
    grey: Grey | None = None
    words: str = ""
    frames: Sequence[CineFrame] = ()
    first: int = 0
    num_frames: int = 0

    def html(self) -> str:
        """Write the figure."""
        height, width = self.size
        scale = f'data-um="{self.um_per_px:.9g}"' if self.um_per_px else ""
        told = f"{RESEARCH_NOTICE} {self.words}".strip()
        inside = (
            f'<div class="view"><div class="paper" style="aspect-ratio:{width}/{height}">'
            f'<img class="base" src="{address(self.base)}" alt="{_escape(self.alt)}" draggable="false">'
            f"{self._layers()}"
            f'<svg class="ruled" viewBox="0 0 {width} {height}" aria-hidden="true"></svg></div>'
            f'<div class="scale" aria-live="off"></div><div class="measured" role="status"></div></div>'
            f'<div class="tools" role="group" aria-label="Tools of the picture">{self._tools()}</div>'
            f"{self._divider()}{self._cine()}<figcaption>{_escape(told)}</figcaption>"
        )
        # Gradio changes an element in place: by this sum the script knows a new drawing.
        drawn = zlib.crc32(f"{self.key} {inside}".encode())
        return (
            f'<figure class="viewer" tabindex="0" role="group" aria-label="Picture: {_escape(self.alt)}" '
            f'data-key="{_escape(self.key)}" data-drawn="{drawn}" data-width="{width}" data-height="{height}" {scale} '
            f"{'data-slide' if self.is_slide else ''} {self._grey()}>{inside}</figure>"
        )

    def _cine(self) -> str:
        if len(self.frames) < 2:
            return ""
        return cine_bar(self.frames, address, self.first, self.num_frames)

    def _layers(self) -> str:
        if self.halves is None:
            return f'<div class="layer over">{self.over}</div>' if self.over or self.frames else ""
        before, after = (html.escape(name) for name in self.halves.names)
        return (
            f'<div class="layer half before">{self.halves.before}</div>'
            f'<div class="layer half after">{self.halves.after}</div>'
            f'<div class="line" aria-hidden="true"><b>{before}</b><b>{after}</b></div>'
        )

    def _divider(self) -> str:
        if self.halves is None:
            return ""
        before, after = (_escape(name) for name in self.halves.names)
        return (
            f'<input class="divider" type="range" min="0" max="100" value="50" step="1" '
            f'aria-label="Divider: {before} at its left, {after} at its right">'
        )

    def _tools(self) -> str:
        tools = [*_TOOLS, *([_GREY_TOOL] if self.grey else [])]
        buttons = "".join(
            f'<button type="button" data-tool="{action}" title="{name}" aria-label="{name}">'
            f'<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{lines}"/></svg></button>'
            for action, name, lines in tools
        )
        return buttons + self._presets()

    def _grey(self) -> str:
        if self.grey is None:
            return ""
        grey = self.grey
        return (
            f'data-grey="{address(grey.path)}" data-lowest="{grey.lowest:.9g}" data-step="{grey.step:.9g}" '
            f'data-centre="{grey.presets[0][1]:.9g}" data-window="{grey.presets[0][2]:.9g}" '
            f"{'data-inverted' if grey.is_inverted else ''}"
        )

    def _presets(self) -> str:
        if self.grey is None:
            return ""
        options = "".join(
            f'<option value="{centre:.9g} {width:.9g}">{_escape(name)}</option>'
            for name, centre, width in self.grey.presets
        )
        return f'<select class="presets" aria-label="Window">{options}</select><span class="windowed"></span>'


def address(path: Path) -> str:
    """Return the address at which the page's server gives a file of a case."""
    return _FILE_ROUTE + quote(str(path))


def image_layer(path: Path, part: tuple[float, float, float, float] = (0, 0, 1, 1)) -> str:
    """Write a layer from a picture over a part of the base.

    Args:
        path: Picture, in the folder of the case.
        part: Left, top, width and height of the part, as shares of the base.
    """
    left, top, width, height = (f"{100 * share:.4f}%" for share in part)
    place = f"left:{left};top:{top};width:{width};height:{height}"
    return f'<img src="{address(path)}" alt="" draggable="false" style="{place}">'


def picture_place(prompt: str) -> gr.HTML:
    """Make the place of a page's picture; until there is one, it shows ``prompt``."""
    return gr.HTML(empty_place(prompt), padding=False, elem_classes="place", js_on_load=None)


def empty_place(prompt: str) -> str:
    """Write what is shown where a picture will be."""
    return f'<div class="viewer empty"><p>{html.escape(prompt)}</p></div>'


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
