import ast
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.route_utils import delete_files_created_by_app

from apps import ui
from apps.cases import shown_name
from apps.viewer import Figure
from pipelines.ovd.config import OvdConfig
from pipelines.pretrain.config import PretrainConfig
from pipelines.sfod.config import SfodConfig
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.wsi.config import WsiConfig
from tests.apps.stand_in import alt, downloads, pictures
from vision_core.errors import InputError
from vision_core.images.drawing import write_png
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


def test_guarded__a_name_cannot_turn_the_text_of_its_error() -> None:
    def fail() -> tuple[Any, ...]:
        raise InputError(["'/tmp/a\u202egnp.exe' is damaged.", "'b\x07' too."])

    error, _ = ui.guarded(fail, (None,))()
    assert "a\\u202egnp.exe&#x27; is damaged." in error["value"] and "b\\x07" in error["value"]


def test_guarded__our_fault_goes_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> tuple[Any, ...]:
        raise ZeroDivisionError("secret")

    with caplog.at_level(logging.ERROR, logger="domainsight"):
        error, value = ui.guarded(fail, (None,))()
    assert value is None and "Internal error" in error["value"] and "secret" not in error["value"]
    assert "ZeroDivisionError: secret" in caplog.text and "Traceback" not in caplog.text
    with caplog.at_level(logging.DEBUG, logger="domainsight"):
        ui.guarded(fail, (None,))()
    assert "Traceback" in caplog.text


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
    config_keys = {name for task in _CONFIGS for name in task.model_fields}
    config_keys -= {"profile"}  # a word, no section
    sections = re.compile(rf"(?<![\w./'-])(?:{'|'.join(config_keys)})\.[a-z_]{{3,}}\b|(?<![\w-])--[a-z]")
    texts = [text for path in _SOURCES for text in _texts(path)]
    named = [text for text in texts if sections.search(text)]
    assert len(named) > 100
    left = [shown for text in named if sections.search(shown := ui.in_words_of_a_page(text))]
    assert left == []


_CONFIGS = (SfodConfig, WsiConfig, PretrainConfig, OvdConfig, UltrasoundConfig)
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


def test_head_and_banner__text_is_escaped() -> None:
    with gr.Blocks():
        said = ui.head("<i>Page", ["<b>made"]).value
        assert RESEARCH_NOTICE in said and "&lt;b&gt;made" in said and "&lt;i&gt;Page" in said
        assert "&lt;b&gt;" in ui.banner(["<b>"]).value
        assert ui.banner([]).visible is False
    assert ui.in_words("<b>", "", "<i>") == "&lt;b&gt;<small>&lt;i&gt;</small>"
    assert ui.facts_list({"<b>": "<i>"}) == '<dl class="facts"><dt>&lt;b&gt;</dt><dd>&lt;i&gt;</dd></dl>'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01, None, "0.5", [0.5]])
def test_within__what_is_no_number_of_the_range_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"The score is .*: expected a number from 0 to 1"):
        ui.within(value, 0, 1, "score")
    assert ui.within(1, 0, 1, "score") == 1.0


def test_downloads__every_file_its_line_and_one_archive(tmp_path: Path) -> None:
    files = {tmp_path / "a b.csv": "A <table>.", tmp_path / "a.json": "A record."}
    for path in files:
        path.write_text(path.name)
    text = ui.downloads(files, "slide-2026-01-01-0123abcd")
    assert downloads(text) == list(files) and "A &lt;table&gt;." in text
    with zipfile.ZipFile(tmp_path / "slide-2026-01-01-0123abcd.zip") as archive:
        assert sorted(archive.namelist()) == ["a b.csv", "a.json"]


def test_figure__texts_are_escaped_and_the_notice_is_in_it(tmp_path: Path) -> None:
    figure = Figure(key='"k', base=tmp_path / 'a"b.png', size=(3, 4), alt='<"x">', words="${1 + 1} <b>", um_per_px=0.5)
    text = figure.html()
    assert "<b>" not in text and '<"x"' not in text and alt(text) == '<"x">'
    assert f"{RESEARCH_NOTICE} ${{1 + 1}} &lt;b&gt;" in text and 'data-um="0.5"' in text
    assert pictures(text) == {"base": tmp_path / 'a"b.png'}
    assert "data-um" not in Figure(key="k", base=tmp_path, size=(3, 4), alt="").html()


def test_shown_name__what_turns_text_around_is_seen() -> None:
    assert shown_name("a\u202egnp.exe\n\x07.png") == "a\ufffdgnp.exe\ufffd\ufffd.png"
    assert shown_name("grün 東京 é.png") == "grün 東京 é.png"


def test_checkpoint_picker__one_model_needs_no_choice() -> None:
    with gr.Blocks():
        assert ui.checkpoint_picker(["a"]).visible is False
        assert ui.checkpoint_picker(["a", "b"]).visible is True


def test_overlay_controls__everything_happens_in_the_browser() -> None:
    page = ui.page("test")
    with page:
        ui.overlay_controls("Opacity", 0.5)
    assert not page.fns


def test_session_folder__is_that_of_this_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert ui.session_folder() == tmp_path


def test_examples__their_pictures_outlive_the_clearing_of_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    (tmp_path / "session").mkdir()
    write_png(picture := tmp_path / "session" / "one.png", np.zeros((8, 8, 3), np.uint8))
    with ui.page("examples") as page:
        [button] = ui.example_strip([("one", "", picture)])
    assert button.icon is not None
    served = Path(button.icon["path"])
    delete_files_created_by_app(page, None)
    assert served.is_file()
