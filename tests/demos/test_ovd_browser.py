"""The demo page as a person meets it: words in, boxes of what they name out."""

import json
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


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    with served("demos.ovd", temporary) as address:
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
        expect(page.get_by_role("note").filter(has_text="Learned with boxes")).to_be_visible()
        examples(page).first.click()
        expect(status(page)).to_contain_text("Found coat: 1; ankle boot: 1.")
        expect(page.get_by_label("Words to look for")).to_have_value("coat, ankle boot")
        check_layout(page)
        keep(page, f"demo-ovd-{size[0]}-{scheme}")


def test_keyboard__words_are_typed_and_answered_without_a_mouse(page: Page) -> None:
    tab_to(page, "By name alone")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("sneaker: 1")
    expect(figure(page)).to_be_focused()
    page.keyboard.press("Space")
    expect_opacity(page, 0)
    page.keyboard.press("Space")
    words = page.get_by_label("Words to look for")
    words.focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("giraffe, lung + x-ray")  # letters, a blank and a plus: no key of the page
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("has not learned words like 'giraffe'")
    expect(figure(page).locator("rect")).to_have_count(0)
    expect_opacity(page, 1)
    assert barriers(page) == []
    walk_every_control(page)


@pytest.mark.slow
def test_words__others_and_those_that_are_not_wanted(page: Page) -> None:
    example(page, "By name alone").click()
    expect(status(page)).to_contain_text("Found bag: 1; sneaker: 1.")
    before = figure(page).locator("rect").count()
    page.get_by_label("Words to look for").fill("")
    page.get_by_role("button", name="Look for these words").click()
    expect(status(page)).to_contain_text("coat: 2")
    assert figure(page).locator("rect").count() > before
    page.get_by_label("Words to look for").fill("coat")
    page.get_by_label("Not these").fill("bag")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("Competing, and not shown: bag.")
    record = json.loads(download(page, ".json"))
    assert {each["label"] for each in record["objects"]} == {"coat"}
    assert record["not_wanted"] == "bag" and "Not for diagnosis" in record["notice"]
    page.get_by_role("slider", name="Boxes with a score above").fill("1")
    expect(status(page)).to_contain_text("Nothing found for 'coat'.")
    page.get_by_label("Words to look for").fill(",".join("a" * 30))
    page.keyboard.press("Enter")
    expect(page.locator(".complaint")).to_contain_text("too many words")
    expect(figure(page)).to_be_visible()  # what was there stays


@pytest.mark.slow
def test_upload__real_image_and_what_is_none(page: Page, tile: Path, tmp_path: Path) -> None:
    page.get_by_label("Words to look for").fill("tree")
    page.get_by_test_id("file-upload").first.set_input_files(tile)
    expect(status(page)).to_contain_text("'tree'")
    keep(page, "demo-ovd-real")
    page.get_by_role("button", name="Clear").first.click()
    expect(status(page)).to_contain_text("Give an image")
    (fake := tmp_path / "fake.png").write_text("<html>login</html>")
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    expect(page.locator(".complaint")).to_contain_text("'fake.png' cannot be decoded")
    expect(page.locator(".complaint")).to_be_in_viewport(ratio=1)
    example(page, "Learned").click()
    expect(page.locator(".complaint")).to_have_count(0)


@pytest.mark.slow
def test_sessions__two_at_once_have_words_of_their_own(page: Page, browser: Browser, address: str) -> None:
    with session(browser, address) as other:
        example(page, "Learned").click()
        example(other, "By name alone").click()
        expect(status(page)).to_contain_text("Found coat: 1; ankle boot: 1.")
        expect(status(other)).to_contain_text("sneaker: 1")
        expect(figure(other, "By name alone")).to_be_visible()
