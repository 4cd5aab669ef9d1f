"""Components that all pages share: page and notice, picker, error panel, pictures, downloads."""

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
# What only a command line or a configuration file takes: flags, keys such as data.max_megapixels, commands.
_COMMAND_LINE = re.compile(
    r"(?<![\w-])--[a-z]|\bpython -m |\bpip install |\bimport-weights\b"
    r"|(?<![\w./'-])(?:data|source|train|optim|detector|teacher|strong_view|pseudo_labels|lpld|model|mhim_v1|mhim_v2"
    r"|random_teacher|tissue|tiles|encoder|read|results|policy|classifier|policy_input|policy_optim|mask|released"
    r"|reinforce|alarm|mixing|averaging|finetune|transfer)\.[a-z_]+\b"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s(?=[A-Z'])")
_OTHER_REMEDY = "Choose another file, or ask who runs this page to change its settings."
_FOLDERS_OF_A_PATH = re.compile(r"(?<![\w.])(?:'/[^'\n]*/(?=[^'/\n]+')|/(?:[^\s/'\"]+/)+)")
MADE_ONLY = "This model has only seen made images."
_OPACITY_STEP = 0.1
_log = logging.getLogger("domainsight")


def page(title: str) -> Page:
    """Make an empty page with safe settings; use it as a context."""
    return gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True)


def notice() -> gr.HTML:
    """Make the notice at the top of every page; it stays in view."""
    text = f'<div class="notice" role="note">{html.escape(RESEARCH_NOTICE)}</div>'
    return gr.HTML(text, padding=False, elem_classes="stays")


def banner(lines: Sequence[str]) -> gr.HTML:
    """Make a banner of warnings on the models; hidden if there are none."""
    return gr.HTML(_banner_text(lines), visible=bool(lines), padding=False)


def card_text(title: str, card: Card) -> gr.HTML:
    """Format a bundle's card."""
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
    """Make paragraphs of plain text."""
    return gr.HTML("".join(f"<p>{html.escape(line)}</p>" for line in lines), visible=bool(lines))


def checkpoint_picker(names: Sequence[str]) -> gr.Dropdown:
    """Make a choice among checkpoints; hidden if there is only one."""
    return gr.Dropdown(list(names), value=names[0], label="Models", visible=len(names) > 1)


def status_line(prompt: str) -> gr.HTML:
    """Make a status line, at first ``prompt``; screen readers announce its changes."""
    return gr.HTML(
        prompt, html_template='<p class="status" role="status" aria-live="polite">${value}</p>', padding=False
    )


def picture(label: str, *, scale: int | None = None, shows_label: bool = False) -> gr.Image:
    """Make a picture for output only.

    Args:
        label: Name for screen readers until there is a picture.
        scale: Width relative to the components beside it.
        shows_label: Show the label over a corner of the picture.
    """
    # PNG, since the default format loses detail.
    return gr.Image(
        label=label,
        show_label=shows_label,
        scale=scale,
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
    )


def overlay_controls(page: Page, opacity: gr.Slider) -> None:
    """Add buttons and keys for an overlay's opacity.

    Space shows or hides it, + and − change it, ? lists the keys. The keys can be switched off, since single characters
    interfere with speech input (WCAG 2.1.4).

    Args:
        page: Page that is being built.
        opacity: Slider from 0 to 1.
    """
    with gr.Row():
        for name, label, move in (
            ("toggle", "Overlay on or off", "now > 0 ? ((window.shownBefore = now), 0) : window.shownBefore || 0.5"),
            ("fainter", "Fainter", f"Math.max(0, Math.round((now - {_OPACITY_STEP}) * 100) / 100)"),
            ("stronger", "Stronger", f"Math.min(1, Math.round((now + {_OPACITY_STEP}) * 100) / 100)"),
        ):
            button = gr.Button(label, size="sm", elem_id=f"overlay-{name}")
            button.click(None, [opacity], [opacity], js=f"(now) => {move}", api_visibility="private")
    gr.HTML(_KEYS_TEXT, padding=False)
    page.load(None, js=_KEYS_SCRIPT, api_visibility="private")


def session_folder() -> Path:
    """Return the private folder of this server: its files may be served, and are deleted at the end."""
    return Path(get_upload_folder())


def error_panel() -> gr.HTML:
    """Make the panel for the messages of ``guarded``; screen readers announce it."""
    return gr.HTML(visible=False, padding=False)


def guarded(handler: Callable[..., Sequence[Any]], blank: Sequence[Any]) -> Callable[..., tuple[Any, ...]]:
    """Return a handler that puts the error panel's update before its results; ``blank`` replaces them on failure.

    A ``UserError`` is shown without traceback and folders. Any other error is a bug: it is logged, and the page reports
    it. Either way the session goes on.
    """

    @wraps(handler)
    def run(*inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401 - Gradio passes whatever the components hold.
        try:
            return (gr.update(value="", visible=False), *handler(*inputs))
        except UserError as error:
            return (_error(without_folders(in_words_of_a_page(str(error)))), *blank)
        except Exception:
            _log.exception("internal error in a page")
            return (_error("Internal error; see the log of this page, and please report it."), *blank)

    return run


def in_words_of_a_page(message: str) -> str:
    """Take advice out of a message that only a command line can follow."""
    if not _COMMAND_LINE.search(message):
        return message
    kept = []
    for sentence in _SENTENCE_END.split(message):
        parts = [part for part in sentence.split(", or ") if not _COMMAND_LINE.search(part)]
        kept += [f"{', or '.join(parts).rstrip('.!?,;: ')}."] if parts else []
    return " ".join([*(kept or ["This cannot be used here."]), _OTHER_REMEDY])


def without_folders(message: str) -> str:
    """Cut every absolute path of a message down to its last part."""
    return _FOLDERS_OF_A_PATH.sub(lambda found: "'" if found[0].startswith("'") else "", message)


def with_notice(image: NDArray[np.uint8], made_by: str) -> NDArray[np.uint8]:
    """Add a strip with the notice and the model's name below a picture, so that copies have them, too.

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
    """Write a record with the notice as JSON to Gradio's cache; returns the path."""
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
