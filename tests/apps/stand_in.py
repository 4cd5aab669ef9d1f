"""A predictor without a bundle, for pages whose model answers what a test wants."""

import gzip
import html
import re
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Self, TypeVar
from urllib.parse import unquote

import gradio as gr
import torch
from torch import Tensor

from apps import ui
from vision_core.pipeline import Predictor

R = TypeVar("R")


class StandIn(Predictor[R]):
    """Refuses what a page has no use for."""

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "auto") -> Self:
        raise NotImplementedError

    def write(self, result: R, path: str | Path, folder: str | Path) -> list[Path]:
        raise NotImplementedError

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError


def downloads(text: str) -> list[Path]:
    """The files that a page's list of downloads links to, without the archive of all."""
    links = re.findall(r'<a href="[^"]*file=([^"]+)" download', text)
    return [Path(unquote(link)) for link in links if not link.endswith(".zip")]


def unsaid(text: str, *wanted: str) -> list[str]:
    """The downloads, by the end of their names, that do not hold all of these texts."""
    found = []
    for path in downloads(text):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if not all(each.encode() in content for each in wanted):
            found.append(path.name.split(".", 1)[1])
    return found


def pictures(figure: str) -> dict[str, Path]:
    """The files that a figure shows: its base, and the layers over it by number."""
    sources = [Path(unquote(link)) for link in re.findall(r'<img[^>]*src="[^"]*file=([^"]+)"', figure)]
    return {"base": sources[0]} | {f"layer {number}": path for number, path in enumerate(sources[1:], start=1)}


def alt(figure: str) -> str:
    """What a figure says to people who do not see it."""
    found = re.search(r'alt="([^"]+)"', figure)
    return html.unescape(found[1]) if found else ""


def commands(page: gr.Blocks) -> list[str]:
    """What a page tells that only a command line can follow."""
    texts = [str(getattr(block, "value", "")) for block in page.blocks.values()]
    return [text for text in texts if ui.in_words_of_a_page(text) != text]


def copied(page: gr.Blocks) -> list[object]:
    """What Gradio copies at every visit of a page beside plain data; a method brings its object, with its models."""
    plain = (str, int, float, bool, type(None), FunctionType)
    found, waiting = [], [*page.get_config_file().values()]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif not isinstance(each, plain):
            found.append(each)
    return found
