"""Work that takes long: what is waited for in words, Cancel, and a page that is loaded anew meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demos.browsing import example, examples, figure, served, session, status
from tests.demos.waiting_page import GATE

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PROMPT = "Give an image, or try an example."


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the page works until this file is there."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def address(temporary: Path, gate: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GATE, str(gate))
        with served("tests.demos.waiting_page", temporary) as address:
            yield address


@pytest.fixture(autouse=True)
def _closed(gate: Path) -> Iterator[None]:
    gate.unlink(missing_ok=True)
    yield
    gate.touch()  # whatever still works ends


def test_cancel__the_result_is_dropped_and_the_next_in_the_queue_gets_its_own(
    page: Page, browser: Browser, address: str, gate: Path
) -> None:
    waiting = page.locator(".waiting")
    example(page, "Dark").click()
    expect(waiting).to_contain_text("Working…")
    with session(browser, address) as other:
        example(other, "Light").click()
        expect(other.locator(".waiting")).to_contain_text("Waiting: one other analysis comes first.")
        page.get_by_role("button", name="Cancel").click()
        expect(waiting).to_be_hidden()
        expect(status(page)).to_have_text(PROMPT)
        gate.touch()
        expect(figure(other, "Light")).to_be_visible()
        expect(status(page)).to_have_text(PROMPT)
        expect(figure(page)).to_have_count(0)


def test_reload__what_was_dropped_is_told_once(page: Page, gate: Path) -> None:
    told = page.locator(".complaint.ours")
    example(page, "Dark").click()
    expect(page.locator(".waiting")).to_contain_text("Working…")
    page.wait_for_function("sessionStorage.getItem('working')")
    page.reload(wait_until="domcontentloaded")
    expect(told).to_contain_text("that result was dropped, and its files are deleted")
    gate.touch()
    example(page, "Light").click()
    expect(figure(page, "Light")).to_be_visible()
    expect(told).to_have_count(0)
    page.reload(wait_until="domcontentloaded")
    expect(examples(page).first).to_be_visible()
    page.wait_for_timeout(600)  # twice what the page looks after itself
    expect(told).to_have_count(0)
