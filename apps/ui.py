"""The pieces that all readers share: the page and its notice, the picker, the error panel, pictures, downloads."""

import html
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vision_core.bundles.card import Card
from vision_core.errors import UserError
from vision_core.results import RESEARCH_NOTICE

Page = gr.Blocks
_FOLDERS_OF_A_PATH = re.compile(r"(?<![\w.])(?:'/[^'\n]*/(?=[^'/\n]+')|/(?:[^\s/'\"]+/)+)")
MADE_ONLY = "This model has only seen made images."
_STEP = 0.1  # of opacity, a key
_log = logging.getLogger("domainsight")


def page(title: str) -> Page:
    """An empty page with the settings that safety asks for; use as a context."""
    return gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True)


def notice() -> gr.HTML:
    """The line that stands over every page, and stays when it is scrolled."""
    text = f'<div class="notice" role="note">{html.escape(RESEARCH_NOTICE)}</div>'
    return gr.HTML(text, padding=False, elem_classes="stays")


def banner(lines: Sequence[str]) -> gr.HTML:
    """What a reader must know about the models before any result; hidden when there is nothing to say."""
    return gr.HTML(_banner_text(lines), visible=bool(lines), padding=False)


def card_text(title: str, card: Card) -> gr.HTML:
    """What a bundle says of itself."""
    facts = {
        "Model": card.identity(),
        "Trained on": card.trained_on.description,
        "Classes": ", ".join(card.classes),
        "Intended use": card.intended_use,
        "Limits": card.limits or "not stated",
        "Licence": card.licence,
    }
    items = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return gr.HTML(f'<h3>{html.escape(title)}</h3><dl class="card">{items}</dl>')


def plain_lines(lines: Sequence[str]) -> gr.HTML:
    """Paragraphs of plain text."""
    return gr.HTML("".join(f"<p>{html.escape(line)}</p>" for line in lines), visible=bool(lines))


def checkpoint_picker(names: Sequence[str]) -> gr.Dropdown:
    """A choice among checkpoints; hidden where there is only one."""
    return gr.Dropdown(list(names), value=names[0], label="Models", visible=len(names) > 1)


def status_line(prompt: str) -> gr.HTML:
    """A line of words about the result, at first ``prompt``; screen readers announce its changes."""
    return gr.HTML(
        prompt, html_template='<p class="status" role="status" aria-live="polite">${value}</p>', padding=False
    )


def picture(label: str, *, scale: int | None = None, shows_label: bool = False) -> gr.Image:
    """A picture that is shown and never given.

    Args:
        label: Names it to screen readers until there is a picture.
        scale: Its width relative to those beside it.
        shows_label: Over a corner of the picture, too.
    """
    # PNG, since the default loses detail; an input would reduce 16 bits to 8.
    return gr.Image(
        label=label,
        show_label=shows_label,
        scale=scale,
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
    )


def overlay_controls(page: Page, opacity: gr.Slider) -> None:
    """Buttons and keys for an overlay's opacity: space shows or hides it, + and − step it, ? lists the keys.

    The keys can be switched off, since single characters get in the way of speech input (WCAG 2.1.4).

    Args:
        page: The page that they are part of; it is being built.
        opacity: The slider from 0 to 1 that they move.
    """
    with gr.Row():
        for name, label, move in (
            ("toggle", "Overlay on or off", "now > 0 ? ((window.shownBefore = now), 0) : window.shownBefore || 0.5"),
            ("fainter", "Fainter", f"Math.max(0, Math.round((now - {_STEP}) * 100) / 100)"),
            ("stronger", "Stronger", f"Math.min(1, Math.round((now + {_STEP}) * 100) / 100)"),
        ):
            button = gr.Button(label, size="sm", elem_id=f"overlay-{name}")
            button.click(None, [opacity], [opacity], js=f"(now) => {move}", api_visibility="private")
    gr.HTML(_KEYS_TEXT, padding=False)
    page.load(None, js=_KEYS_SCRIPT, api_visibility="private")


def session_folder() -> Path:
    """The private folder of this start: what lies in it may be served, and is wiped at the end."""
    return Path(get_upload_folder())


def error_panel() -> gr.HTML:
    """The place where ``guarded`` says what went wrong; screen readers announce it."""
    return gr.HTML(visible=False, padding=False)


def guarded(handler: Callable[..., Sequence[Any]], blank: Sequence[Any]) -> Callable[..., tuple[Any, ...]]:
    """Put the error panel's update before a handler's results, and ``blank`` in their place when it fails.

    A fault the user can mend is told without traceback or folder; anything else is ours: it goes to the log, and the
    page says so. Either way the session lives on.
    """

    @wraps(handler)
    def run(*inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401 - Gradio passes whatever the components hold.
        try:
            return (gr.update(value="", visible=False), *handler(*inputs))
        except UserError as error:
            return (_error(without_folders(str(error))), *blank)
        except Exception:
            _log.exception("internal error in a page")
            return (_error("Internal error; it stands in the log of this page. Please report it."), *blank)

    return run


def without_folders(message: str) -> str:
    """The message with every absolute path cut down to its last part."""
    return _FOLDERS_OF_A_PATH.sub(lambda found: "'" if found[0].startswith("'") else "", message)


def with_notice(image: NDArray[np.uint8], made_by: str) -> NDArray[np.uint8]:
    """Lay a strip with the notice and the model's name below a picture, so that they go wherever it is copied.

    Args:
        image: ``(H, W, 3)`` uint8.
        made_by: Name of the model.

    Returns:
        ``(H + strip, W, 3)`` uint8; the picture's own pixels are unchanged.
    """
    width = image.shape[1]
    font_px = max(12, width // 50)
    strip = Image.new("RGB", (width, 2 * font_px), "white")
    text = f"{RESEARCH_NOTICE} {made_by}"
    ImageDraw.Draw(strip).text((font_px / 2, font_px), text, "black", ImageFont.load_default(font_px), anchor="lm")
    return np.concatenate([image, np.asarray(strip)])


def json_download(button: gr.DownloadButton, name: str, record: Mapping[str, Any]) -> str:
    """Write a record, with the notice, where Gradio may serve it from and deletes it in time; return the path."""
    text = json.dumps({"notice": RESEARCH_NOTICE, **record}, indent=2, allow_nan=False)
    return str(save_bytes_to_cache(text.encode(), f"{Path(name).stem}.json", button.GRADIO_CACHE))


def _banner_text(lines: Sequence[str]) -> str:
    return "".join(f'<div class="banner" role="note">{html.escape(line)}</div>' for line in lines)


def _error(message: str) -> dict[str, Any]:
    return gr.update(value=f'<div class="error" role="alert">{html.escape(message)}</div>', visible=True)


_KEYS_TEXT = """
<details id="keys-help"><summary>Keys (?)</summary>
<ul><li>Space: overlay on or off</li><li>+ and −: overlay stronger or fainter</li><li>?: this list</li>
<li>Tab, Enter: next control, use it</li></ul>
<label><input type="checkbox" id="keys-on" checked> Use these keys</label></details>
"""
_KEYS_SCRIPT = """() => {
  if (window.keysListen) return;
  window.keysListen = true;
  const uses = {" ": "#overlay-toggle", "-": "#overlay-fainter", "+": "#overlay-stronger", "=": "#overlay-stronger",
                "?": "#keys-help > summary"};
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("textarea, select, [contenteditable], input:not([type=range])");
    const isPressing = event.key === " " && event.target.closest("button, a, summary, [role=button]");
    const used = document.querySelector(uses[event.key] || "none");
    const isOff = !document.querySelector("#keys-on")?.checked || event.ctrlKey || event.altKey || event.metaKey;
    if (!used || isTyping || isPressing || isOff) return;
    event.preventDefault();
    used.click();
  });
}"""
