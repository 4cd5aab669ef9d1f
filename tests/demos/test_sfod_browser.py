"""The demo page as a person meets it: a real tile in, the boxes of both models out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.demos.browsing import barriers, keep, served, status, tab_to
from vision_core.assets import tree_crowns
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_image

pytestmark = pytest.mark.browser
COUNTS = re.compile(r"the source model finds (\d+) box.*the adapted model (\d+) box")


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    with served("demos.sfod", temporary) as address:
        yield address


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    path = tmp_path / "crowns.png"
    write_png(path, read_image(tree_crowns()["yell_small"].image_path)[700:956, 900:1156])
    return path


def test_upload__real_tile_shows_the_boxes_of_both_models(page: Page, tile: Path) -> None:
    page.get_by_test_id("file-upload").first.set_input_files(tile)
    counts = _counts(page)
    assert min(counts) > 0
    for role, count in zip(("Source", "Adapted"), counts, strict=True):
        expect(page.get_by_role("img", name=f"{role} model: {count} box")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the boxes").click()
    assert "Not for diagnosis" in download.value.path().read_text()
    keep(page, "demo-sfod")


def test_keyboard__example_and_score_without_a_mouse(page: Page) -> None:
    tab_to(page, "Try: ")
    page.keyboard.press("Enter")
    before = _counts(page)
    tab_to(page, "range")
    page.keyboard.press("Home")
    expect(status(page)).to_contain_text("above a score of 0.00")
    assert sum(_counts(page)) > sum(before)


def test_upload__what_is_no_image_is_told_and_the_page_lives_on(page: Page, tmp_path: Path, tile: Path) -> None:
    fake = tmp_path / "fake.png"
    fake.write_text("<html>login</html>")
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("'fake.png' cannot be decoded")
    page.get_by_role("button", name="Try: ").first.click()
    _counts(page)
    expect(alert).to_have_count(0)


def test_page__nothing_keeps_a_person_out(page: Page) -> None:
    page.get_by_role("button", name="Try: ").first.click()
    _counts(page)
    assert barriers(page) == []


def _counts(page: Page) -> tuple[int, int]:
    expect(status(page)).to_have_text(COUNTS)
    found = COUNTS.search(status(page).inner_text())
    assert found is not None
    return int(found[1]), int(found[2])
