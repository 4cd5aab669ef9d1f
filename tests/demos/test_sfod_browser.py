"""The demo page as a person meets it: a real tile in, what the adaptation changed out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demos.browsing import (
    LOOKS,
    Scheme,
    barriers,
    check_layout,
    download,
    example,
    examples,
    expect_opacity,
    figure,
    keep,
    served,
    session,
    status,
    tab_to,
    walk_every_control,
)
from vision_core.assets import tree_crowns
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_image

pytestmark = pytest.mark.browser
COUNTS = re.compile(r"the source model finds (\d+) tree crowns?, the adapted model (\d+) tree")
# What is seen right after a key, before the browser does anything else.
_AT_ONCE = """() => [" ", " "].map((key) => {
  document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  return document.querySelector("figure.viewer .over").style.opacity;
})"""


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    with served("demos.sfod", temporary) as address:
        yield address


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    path = tmp_path / "crowns.png"
    write_png(path, read_image(tree_crowns()["yell_small"].image_path)[700:956, 900:1156])
    return path


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_first_example__picture_and_words_are_in_view_after_one_click(
    browser: Browser, address: str, size: tuple[int, int], scheme: Scheme
) -> None:
    with session(browser, address, size, scheme) as page:
        examples(page).first.click()
        expect(status(page)).to_have_text(re.compile("found that the source model missed"))
        check_layout(page)
        keep(page, f"demo-sfod-{size[0]}-{scheme}")


def test_upload__real_tile_shows_the_boxes_of_both_models(page: Page, tile: Path) -> None:
    examples(page).first.click()
    expect(page.locator(".strip .chosen")).to_have_count(1)
    page.get_by_test_id("file-upload").first.set_input_files(tile)
    expect(figure(page, "crowns.png")).to_be_visible()
    expect(page.locator(".strip .chosen")).to_have_count(0)
    counts = _counts(page)
    page.get_by_role("slider", name="Boxes with a score above").fill("0.4")
    expect(status(page)).to_contain_text("Above a score of 0.40")
    counts = _counts(page)
    assert min(counts) > 0
    for view, boxes in (
        ("Source model", counts[0]),
        ("Adapted model", counts[1]),
        ("Both, with a divider", sum(counts)),
    ):
        page.get_by_role("radio", name=view).check()
        expect(figure(page, view).locator("rect")).to_have_count(2 * boxes)
    divider = page.get_by_role("slider", name=re.compile("^Divider"))
    divider.focus()
    page.keyboard.press("Home")
    assert figure(page).evaluate("figure => figure.style.getPropertyValue('--divide')") == "0%"
    record = json.loads(download(page, ".json"))
    assert [len(record[role]["objects"]) for role in ("source", "adapted")] == list(counts)
    assert "Not for diagnosis" in record["notice"]
    keep(page, "demo-sfod-divider")


def test_keyboard__every_control_without_a_mouse(page: Page) -> None:
    tab_to(page, "In fog")
    page.keyboard.press("Enter")
    before = _counts(page)
    expect(figure(page)).to_be_focused()
    page.keyboard.press("Space")
    expect_opacity(page, 0)
    page.keyboard.press("Space")
    expect_opacity(page, 1)
    page.keyboard.press("-")
    expect_opacity(page, 0.9)
    assert page.evaluate(_AT_ONCE) == ["0", "0.9"]
    expect(page.get_by_role("slider", name="Opacity of the boxes")).to_have_value("0.9")
    expect(page.get_by_role("spinbutton", name="Opacity of the boxes")).to_have_value("0.9")
    page.keyboard.press("z")
    assert float(figure(page).get_attribute("data-zoom") or 0) == pytest.approx(1.5)
    before_pan = figure(page).locator(".paper").bounding_box()
    page.keyboard.press("Shift+ArrowRight")
    after_pan = figure(page).locator(".paper").bounding_box()
    assert before_pan and after_pan and after_pan["x"] < before_pan["x"] - 40
    expect(figure(page).locator(".view")).to_have_css("touch-action", "none")
    page.keyboard.press("0")
    assert figure(page).get_attribute("data-zoom") == "1.000"
    expect(figure(page).locator(".view")).to_have_css("touch-action", "pan-y")  # a finger scrolls the page
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowRight")
    expect(figure(page).locator(".measured")).to_have_text(re.compile("px, scale unknown"))
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    expect(status(page)).to_contain_text("the night is rendered")
    page.keyboard.press("ArrowLeft")
    expect(status(page)).to_contain_text("the fog is rendered")
    page.get_by_role("slider", name="Boxes with a score above").focus()
    page.keyboard.press("Home")
    expect(status(page)).to_contain_text("Above a score of 0.00")
    assert sum(_counts(page)) > sum(before)
    page.keyboard.press("Space")
    expect_opacity(page, 0.9)  # the keys were the slider's, and the next drawing keeps what was set
    details = page.get_by_role("button", name="Details")
    details.focus()
    page.keyboard.press("Space")
    expect(page.locator("dl.facts").first).to_be_visible()
    expect_opacity(page, 0.9)
    page.locator(".head h1").click()
    expect(figure(page)).to_be_focused()
    page.keyboard.press("Space")
    expect_opacity(page, 0)
    walk_every_control(page)


@pytest.mark.slow
def test_upload__what_is_no_image_is_told_and_the_page_lives_on(page: Page, tmp_path: Path) -> None:
    for name, words in (("fake.png", "'fake.png' cannot be decoded"), ("a\u202egnp.docx", "'a\\u202egnp.docx'")):
        (fake := tmp_path / name).write_text("<html>login</html>")
        page.get_by_test_id("file-upload").first.set_input_files(fake)
        alert = page.locator(".complaint")
        expect(alert).to_contain_text(words)
        expect(page.locator(".upload .stem")).to_have_text(Path(name).stem.replace("\u202e", "\ufffd"))
        page.get_by_role("button", name="Clear").first.click()
        expect(alert).to_have_count(0)
    example(page, "Clear day").click()
    _counts(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page__nothing_keeps_a_person_out(browser: Browser, address: str, scheme: Scheme) -> None:
    with session(browser, address, scheme=scheme) as page:
        examples(page).first.click()
        _counts(page)
        assert barriers(page) == []


def _counts(page: Page) -> tuple[int, int]:
    expect(status(page)).to_have_text(COUNTS)
    found = COUNTS.search(status(page).inner_text())
    assert found is not None
    return int(found[1]), int(found[2])
