"""The hub as a person meets it: every page behind a picture and a sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.demos.browsing import barriers, check_layout, examples, keep, served, status

pytestmark = [pytest.mark.browser, pytest.mark.slow]
_FIRST_WORDS = (
    "found that the source model missed",
    "Found coat",
    "Altered nuclei.",
    "Called",
    "Phantom organ present on",
)


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    with served("apps", temporary) as address:
        yield address


def test_hub__every_page_is_opened_used_and_left(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address, wait_until="domcontentloaded")
    cards = page.locator(".hub a")
    expect(cards).to_have_count(len(_FIRST_WORDS))
    expect(page.get_by_role("note")).to_have_text("For research use. Not for diagnosis.")
    for picture in page.locator(".hub img").all():
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => image.naturalWidth") > 300
    keep(page, "hub")
    assert barriers(page) == []
    for place, words in enumerate(_FIRST_WORDS):
        cards.nth(place).click()
        expect(examples(page).first).to_be_visible()
        page.wait_for_timeout(500)
        examples(page).first.click()
        expect(status(page)).to_contain_text(words)
        check_layout(page)
        page.get_by_role("link", name="All pages").click()
        expect(cards).to_have_count(len(_FIRST_WORDS))
    page.close()
