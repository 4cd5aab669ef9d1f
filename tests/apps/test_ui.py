import ast
import logging
import re
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from apps import ui
from pipelines.pretrain.config import PretrainConfig
from pipelines.sfod.config import SfodConfig
from pipelines.wsi.config import WsiConfig
from vision_core.errors import InputError
from vision_core.results import RESEARCH_NOTICE


def test_guarded__result_follows_a_hidden_error() -> None:
    error, value = ui.guarded(lambda number: (number + 1,), (0,))(1)
    assert (error["visible"], value) == (False, 2)


def test_guarded__user_error_is_shown_without_folders() -> None:
    def fail() -> tuple[Any, ...]:
        raise InputError("'/tmp/private folder/x/<b>.png' is empty (0 bytes).")

    error, value = ui.guarded(fail, (None,))()
    assert error["visible"] and value is None
    assert "&#x27;&lt;b&gt;.png&#x27; is empty" in error["value"]
    assert "private" not in error["value"]


def test_guarded__our_fault_goes_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> tuple[Any, ...]:
        raise ZeroDivisionError("secret")

    with caplog.at_level(logging.ERROR, logger="domainsight"):
        error, value = ui.guarded(fail, (None,))()
    assert value is None and "Internal error" in error["value"] and "secret" not in error["value"]
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("'/a/b c/d.png' is empty.", "'d.png' is empty."),
        ("/a/b/d.png: truncated", "d.png: truncated"),
        ("read /a/b/d.png and '/e/f.png'", "read d.png and 'f.png'"),
        ("1/2 of the images and/or masks", "1/2 of the images and/or masks"),
    ],
)
def test_without_folders__keeps_the_last_part(message: str, shown: str) -> None:
    assert ui.without_folders(message) == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("'a.png' is empty (0 bytes).", "'a.png' is empty (0 bytes)."),
        (
            "'a.png' declares 121 megapixels, more than 100. Give a smaller image, or raise data.max_megapixels.",
            f"'a.png' declares 121 megapixels, more than 100. Give a smaller image. {ui._OTHER_REMEDY}",
        ),
        (
            "'data.py' and 'x/read.mpp' have 3 faults. Set read.mpp=0.5. Use --mpp.",
            f"'data.py' and 'x/read.mpp' have 3 faults. {ui._OTHER_REMEDY}",
        ),
        ("Use python -m pipelines.wsi --help.", f"This cannot be used here. {ui._OTHER_REMEDY}"),
    ],
)
def test_in_words_of_a_page__keeps_what_is_wrong(message: str, shown: str) -> None:
    assert ui.in_words_of_a_page(message) == shown


def test_in_words_of_a_page__no_message_of_the_package_names_a_key() -> None:
    config_keys = {name for task in (SfodConfig, WsiConfig, PretrainConfig) for name in task.model_fields}
    sections = re.compile(rf"(?<![\w./'-])(?:{'|'.join(config_keys)})\.[a-z_]{{3,}}\b|(?<![\w-])--[a-z]")
    texts = [text for path in _SOURCES for text in _texts(path)]
    named = [text for text in texts if sections.search(text)]
    assert len(named) > 100
    left = [shown for text in named if sections.search(shown := ui.in_words_of_a_page(text))]
    assert left == []


_SOURCES = [path for folder in ("vision_core", "pipelines") for path in Path(folder).rglob("*.py")]


def _texts(path: Path) -> list[str]:
    """All texts with blanks in a module, an ``x`` for every value that is put in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in joined for part in node.values}
    plain = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in inside]
    found = []
    for node in joined:
        found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values))
    return [text for text in [*found, *(node.value for node in plain if isinstance(node.value, str))] if " " in text]


def test_with_notice__picture_above_the_strip_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 300, 3)).astype(np.uint8)
    marked = ui.with_notice(image, "sfod/lpld/abc")
    np.testing.assert_array_equal(marked[:40], image)
    strip = marked[40:]
    assert strip.max() == 255 and strip.min() < 128


def test_notice_and_banner__text_is_escaped() -> None:
    with gr.Blocks():
        assert RESEARCH_NOTICE in ui.notice().value
        assert "&lt;b&gt;" in ui.banner(["<b>"]).value
        assert ui.banner([]).visible is False


def test_checkpoint_picker__one_model_needs_no_choice() -> None:
    with gr.Blocks():
        assert ui.checkpoint_picker(["a"]).visible is False
        assert ui.checkpoint_picker(["a", "b"]).visible is True


def test_overlay_controls__three_buttons_move_the_slider_in_the_browser_alone() -> None:
    page = ui.page("test")
    with page:
        slider = gr.Slider(0, 1)
        ui.overlay_controls(page, slider)
    moves = [event for event in page.fns.values() if event.inputs == [slider]]
    assert len(moves) == 3 and all(move.fn is None and move.js and move.outputs == [slider] for move in moves)
    assert {event.api_visibility for event in page.fns.values()} == {"private"}


def test_session_folder__is_that_of_this_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert ui.session_folder() == tmp_path
