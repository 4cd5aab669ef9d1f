"""The hub: a page that lists the demo pages, each with a picture and a sentence, and serves them all."""

import html
import shutil
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from apps import ui
from apps.viewer import address

# By name: what a page shows is known to the demos, which know the apps.
DEMOS = ("sfod", "ovd", "wsi", "pretrain", "ultrasound")
_PICTURES = Path(__file__).with_name("pictures")


class Entry(NamedTuple):
    """One page of the hub: its path below the hub, its title, a sentence, and its page."""

    path: str
    title: str
    about: str
    page: gr.Blocks


def hub(slides_root: Path | None = None) -> gr.Blocks:
    """Build the hub with all demo pages.

    Args:
        slides_root: Folder whose slides the slide reader offers by name.
    """
    entries = [_entry(name, slides_root) for name in DEMOS]
    page = ui.page("DomainSight")
    with page:
        ui.head("DomainSight")
        gr.HTML(_cards(entries), padding=False, js_on_load=None)
    for entry in entries:
        with page.route(entry.title, f"/{entry.path}", show_in_navbar=False):
            gr.HTML('<a class="home" href="/">All pages</a>', padding=False, js_on_load=None)
            entry.page.render()  # type: ignore[no-untyped-call]
    return page


def _entry(name: str, slides_root: Path | None) -> Entry:
    demo = import_module(f"demos.{name}")
    page = demo.page(slides_root) if name == "wsi" else demo.page()
    return Entry(path=name, title=demo.TITLE, about=demo.ABOUT, page=page)


def _cards(entries: list[Entry]) -> str:
    return f'<nav class="hub" aria-label="Pages">{"".join(map(_card, entries))}</nav>'


def _card(entry: Entry) -> str:
    served = ui.session_folder() / "examples" / f"hub-{entry.path}.jpg"
    shutil.copyfile(_PICTURES / f"{entry.path}.jpg", served)
    title, about = html.escape(entry.title), html.escape(entry.about)
    return f'<a href="/{entry.path}"><img src="{address(served)}" alt=""><h2>{title}</h2><p>{about}</p></a>'
