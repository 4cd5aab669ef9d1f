"""Components that all pages share: head and notice, picture beside a rail, examples, words, errors, downloads."""

import html
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray

from apps import sessions, viewer
from apps.serving import Serving
from vision_core.bundles.card import Card
from vision_core.errors import InputError, UserError, one_line
from vision_core.results import RESEARCH_NOTICE

Page = gr.Blocks
# What only a command line or a configuration file takes: flags, keys such as data.max_megapixels, commands.
_COMMAND_LINE = re.compile(
    r"(?<![\w-])--[a-z]|\bpython -m |\bpip install |\bimport-weights\b"
    r"|(?<![\w./'-])(?:data|source|train|optim|detector|teacher|strong_view|pseudo_labels|lpld|model|mhim_v1|mhim_v2"
    r"|random_teacher|tissue|tiles|encoder|read|results|policy|classifier|policy_input|policy_optim|mask|released"
    r"|reinforce|alarm|mixing|averaging|finetune|transfer|image_text|proposals|candidates|marvel|predict"
    r"|labels|screen|segmenter|loss|augment|gate|calibrate|verdict)\.[a-z_]+\b"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s(?=[A-Z'])")
_OTHER_REMEDY = "Choose another file, or ask who runs this page to change its settings."
_FOLDERS_OF_A_PATH = re.compile(r"(?<![\w.])(?:'/[^'\n]*/(?=[^'/\n]+')|/(?:[^\s/'\"]+/)+)")
MADE_ONLY = "This model has only seen made images."
_ASK = "The picture may hold text that names a person. Yes, show the downloads all the same"
_MOST_BYTES = int(Serving.max_file_size.removesuffix("mb")) * 2**20  # the browser says so before it sends
_log = logging.getLogger("domainsight")
# How an event that runs a model is connected: Gradio would have a queue for each button, and run them side by side.
ANALYSIS: dict[str, Any] = {"trigger_mode": "once", "concurrency_id": "analysis", "api_visibility": "private"}


def page(title: str) -> Page:
    """Make an empty page with safe settings; use it as a context."""
    return gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True)


def head(title: str, warnings: Sequence[str] = ()) -> gr.HTML:
    """Make the one line at the top of every page, which stays in view: title, research notice, warnings on models."""
    notices = "".join(
        f'<span class="notice" role="note">{html.escape(line)}</span>' for line in (RESEARCH_NOTICE, *warnings)
    )
    text = f'<div class="line" data-most="{_MOST_BYTES}"><h1>{html.escape(title)}</h1>{notices}</div>'
    return gr.HTML(text, padding=False, elem_classes="head")


@contextmanager
def desk(page: Page, prompt: str) -> Iterator[gr.HTML]:
    """Lay out a page: the place of its picture, which is returned, at the left; what the block makes, in a rail."""
    with gr.Row(elem_classes="desk"):
        with gr.Column(elem_classes="stage"):
            place = viewer.picture_place(prompt)
        with gr.Column(elem_classes="rail"):
            yield place
    page.load(None, js=viewer.SCRIPT, api_visibility="private")
    page.unload(sessions.leave)


def banner(lines: Sequence[str]) -> gr.HTML:
    """Make a banner of warnings on the models; hidden if there are none."""
    return gr.HTML(_banner_text(lines), visible=bool(lines), padding=False)


def card_text(title: str, card: Card) -> gr.HTML:
    """Format a bundle's card."""
    facts = {
        "Model": card.identity(),
        "Trained on": card.trained_on.description,
        "Classes": ", ".join(card.class_titles.get(name, name) for name in card.classes),
        "Intended use": card.intended_use,
        "Limits": card.limits or "not stated",
        "Licence": card.licence,
    }
    return gr.HTML(f"<h3>{html.escape(title)}</h3>{facts_list(facts)}")


def facts_list(facts: Mapping[str, str]) -> str:
    """Format facts in two columns: name and value."""
    items = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>'


def plain_lines(lines: Sequence[str]) -> gr.HTML:
    """Make paragraphs of plain text."""
    return gr.HTML("".join(f"<p>{html.escape(line)}</p>" for line in lines), visible=bool(lines))


def example_strip(examples: Sequence[tuple[str, str, Path]]) -> list[gr.Button]:
    """Make a strip of examples to try, a button each: its name, why it is offered, and a thumbnail of the session."""
    with gr.Row(visible=bool(examples), elem_classes="strip"):
        buttons = [gr.Button(name, icon=picture, size="sm", elem_classes="example") for name, _, picture in examples]
    for button in buttons:  # else Gradio deletes their pictures after an hour, or when a start has to be repeated
        button.keep_in_cache = set(button.temp_files)
    return buttons


def checkpoint_picker(names: Sequence[str]) -> gr.Dropdown:
    """Make a choice among checkpoints; hidden if there is only one."""
    return gr.Dropdown(list(names), value=names[0], label="Models", visible=len(names) > 1)


def words(prompt: str) -> gr.HTML:
    """Make the result in words, the largest text of the rail, at first ``prompt``; screen readers announce it."""
    return gr.HTML(
        html.escape(prompt),
        html_template='<div class="status" role="status" aria-live="polite">${value}</div>',
        padding=False,
        elem_classes="words",
        js_on_load=None,
    )


def waiting() -> gr.Button:
    """Make the line that says what is waited for, shown while something runs, with the button that cancels it."""
    with gr.Row(elem_classes="waiting"):
        gr.HTML('<div role="status"></div>', padding=False, js_on_load=None)
        return gr.Button("Cancel", size="sm", elem_id="cancel")


def cancels(
    button: gr.Button, error: gr.HTML, events: Sequence[Any], outputs: Sequence[Any], cleared: Sequence[Any]
) -> None:
    """Let Cancel, and Clear of the upload, end a session's events and remove its case with its files.

    Neither waits for the queue, in which others may have long work.

    Args:
        button: The button of ``waiting``.
        error: The panel of ``error_panel``.
        events: What is cancelled.
        outputs: The upload, the case, and what shows it.
        cleared: Their values without a case.
    """

    def clear(request: gr.Request) -> tuple[Any, ...]:
        sessions.drop(request)
        return gr.update(value="", visible=False), *cleared

    gr.on(
        [button.click, outputs[0].clear],
        clear,
        None,
        [error, *outputs],
        cancels=list(events),
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def in_words(headline: str, *lines: str) -> str:
    """Format a result: its headline, and further sentences below in smaller letters."""
    return html.escape(headline) + "".join(f"<small>{html.escape(line)}</small>" for line in lines if line)


def colour_bar(colours: NDArray[np.uint8], ends: tuple[str, str], words: str) -> str:
    """Draw a bar of colours ``(K, 3)`` from low to high, with words at its ends and below."""
    stops = ", ".join(
        f"rgb({red} {green} {blue})" for red, green, blue in colours[:: max(1, len(colours) // 16)].tolist()
    )
    low, high = (f"<b>{html.escape(end)}</b>" for end in ends)
    bar = f'{low}<i style="background:linear-gradient(to right, {stops})"></i>{high}'
    return f'<small><span class="bar">{bar}</span>{html.escape(words)}</small>'


def overlay_controls(label: str, opacity: float) -> None:
    """Add slider, buttons and keys for an overlay's opacity, which the browser sets without asking the server.

    Space shows or hides it, + and − change it, ? lists the keys. The keys can be switched off, since single characters
    interfere with speech input (WCAG 2.1.4).

    Args:
        label: Name of the slider.
        opacity: Its first value, from 0 to 1.
    """
    gr.Slider(0.0, 1.0, value=opacity, step=0.05, label=label, buttons=[], interactive=True, elem_id="opacity")
    with gr.Row(elem_classes="overlay-keys"):
        for name, text in (("toggle", "Show or hide"), ("fainter", "Fainter"), ("stronger", "Stronger")):
            gr.Button(text, size="sm", elem_id=f"overlay-{name}")


def keys_help() -> gr.HTML:
    """List the keys of every page, with a switch that turns them off."""
    return gr.HTML(_KEYS_TEXT, padding=False, js_on_load=None)


def downloads_place() -> gr.HTML:
    """Make the place of a result's downloads, empty at first."""
    return gr.HTML("", padding=False, js_on_load=None)


def downloads(files: Mapping[Path, str], stem: str, *, may_name: bool = False) -> str:
    """List the files of a result as links, each with a line on what it is for, and one archive of all.

    Args:
        files: Files in one folder of a case, and what each is for.
        stem: Beginning of the archive's name.
        may_name: Whether the pixels may hold text that names a person: the links are then shown after a yes.
    """
    archive = next(iter(files)).parent / f"{stem}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for path in files:
            packed.write(path, path.name)
    items = "".join(
        f'<li><a href="{viewer.address(path)}" download="{html.escape(path.name)}">{html.escape(path.name)}</a> '
        f"{html.escape(about)}</li>"
        for path, about in {**files, archive: "All of these (zip)."}.items()
    )
    listed = f'<ul class="files">{items}</ul>'
    return f'<details class="ask"><summary>{_ASK}</summary>{listed}</details>' if may_name else listed


def stem_of(task: str, digits: str) -> str:
    """Name the downloads of a page: by task, date and first digits of the input's hash, never by the input's name."""
    return f"{task}-{date.today().isoformat()}-{digits}"


def case_place(forget: Callable[[Any], None]) -> gr.State:
    """Make the place of a session's case, at first None; it is forgotten within the hour after its tab was closed.

    Args:
        forget: Deletes the files of a case.
    """

    # Gradio copies what a page is made of at every visit: of a method it would copy the object, with its models.
    def delete(case: object) -> None:
        forget(case)

    return gr.State(None, delete_callback=delete)


def upload(label: str) -> gr.File:
    """Make the place of a person's own file; its content decides what it is, so any name is accepted."""
    return gr.File(label=label, height=110, elem_classes="upload")


def within(value: object, low: float, high: float, name: str) -> float:
    """Check a value of a control; what calls a page by its address may send any.

    Raises:
        InputError: It is no number from ``low`` to ``high``.
    """
    if not (isinstance(value, int | float) and low <= value <= high):  # no comparison holds for NaN
        raise InputError(f"The {name} is '{value}': expected a number from {low:g} to {high:g}.")
    return float(value)


def session_folder() -> Path:
    """Return the private folder of this server: its files may be served, and are deleted at the end."""
    return Path(get_upload_folder())


def error_panel() -> gr.HTML:
    """Make the panel for the messages of ``guarded``; screen readers announce it."""
    return gr.HTML(visible=False, padding=False)


def guarded(handler: Callable[..., Sequence[Any]], blank: Sequence[Any]) -> Callable[..., tuple[Any, ...]]:
    """Return a handler that puts the error panel's update before its results; ``blank`` replaces them on failure.

    A ``UserError`` is shown without traceback and folders, and no mark in a file's name turns its text around. Any
    other error is a bug: it is logged, and the page reports it. Either way the session goes on.
    """

    @wraps(handler)
    def run(*inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401 - Gradio passes whatever the components hold.
        try:
            return (gr.update(value="", visible=False), *handler(*inputs))
        except UserError as error:
            told = without_folders(in_words_of_a_page(str(error)))
            return (_error(one_line(told.replace("\n", " "))), *blank)
        except Exception as error:
            is_debugging = _log.isEnabledFor(logging.DEBUG)
            _log.error("internal error in a page: %s: %s", type(error).__name__, error, exc_info=is_debugging)
            return (_error("Internal error: please report it. It is named where this page was started."), *blank)

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


def _banner_text(lines: Sequence[str]) -> str:
    return "".join(f'<div class="banner" role="note">{html.escape(line)}</div>' for line in lines)


def _error(message: str) -> dict[str, Any]:
    return gr.update(value=f'<div class="complaint" role="alert">{html.escape(message)}</div>', visible=True)


_KEYS_TEXT = """
<details id="keys-help"><summary>Keys (?)</summary>
<ul><li>Space: overlay on or off</li><li>+ and −: overlay stronger or fainter</li>
<li>← and →: frame of a cine, else example, before and next</li>
<li>Z, X, 0: zoom in, out, whole picture; with Shift and arrows: move it</li>
<li>R: measure, by clicks or by arrows and Enter</li><li>W: window and level, by drag or by arrows</li>
<li>F: full screen</li><li>?: this list</li><li>Tab, Enter: next control, use it</li></ul>
<label><input type="checkbox" id="keys-on" checked> Use these keys</label></details>
"""
