"""Work that takes long: what is waited for in words, Cancel, and a page that is loaded anew meanwhile."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demos.browsing import example, examples, figure, keep, served, session, status
from tests.demos.waiting_page import GATE
from vision_core.images.drawing import write_png

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


def test_reload__what_was_dropped_is_told_once(page: Page, gate: Path, temporary: Path) -> None:
    told = page.locator(".complaint.ours")
    example(page, "Dark").click()
    expect(page.locator(".waiting")).to_contain_text("Working…")
    page.wait_for_function("sessionStorage.getItem('working')")
    page.reload(wait_until="domcontentloaded")
    expect(told).to_contain_text("that result was dropped, and its files are deleted")
    gate.touch()
    for _ in range(100):  # until the work that nobody waits for has ended
        if not (left := list(temporary.glob("domainsight-app-*/case-*"))):
            break
        page.wait_for_timeout(200)
    assert not left
    example(page, "Light").click()
    expect(figure(page, "Light")).to_be_visible()
    expect(told).to_have_count(0)
    expect(page.locator(".desk.working")).to_have_count(0)
    page.reload(wait_until="domcontentloaded")
    expect(examples(page).first).to_be_visible()
    page.wait_for_timeout(600)  # twice what the page looks after itself
    expect(told).to_have_count(0)


def test_clear__waits_for_nobodys_work(page: Page, browser: Browser, address: str, gate: Path, temporary: Path) -> None:
    own = _own(gate.parent)
    gate.touch()
    page.get_by_test_id("file-upload").first.set_input_files(own)
    expect(figure(page, own.name)).to_be_visible()
    assert list(temporary.rglob(own.name))
    gate.unlink()
    with session(browser, address) as other:
        example(other, "Dark").click()
        expect(other.locator(".waiting")).to_contain_text("Working…")
        page.get_by_role("button", name="Clear").first.click()
        expect(status(page)).to_have_text(PROMPT)
        expect(other.locator(".waiting")).to_contain_text("Working…")
        assert not list(temporary.rglob(own.name))
        gate.touch()
        expect(figure(other, "Dark")).to_be_visible()


def test_button__twenty_clicks_are_one_job(page: Page, gate: Path) -> None:
    calls = gate.with_name(f"{gate.name}.calls")
    calls.unlink(missing_ok=True)
    button = example(page, "Dark")
    for _ in range(20):
        button.click()
    expect(page.locator(".waiting")).to_contain_text("Working…")
    gate.touch()
    expect(figure(page, "Dark")).to_be_visible()
    page.wait_for_timeout(500)  # another job would begin at once
    assert calls.read_text().splitlines() == ["called"] * 2  # source and adapted model


def test_queue__fifty_at_once_are_not_all_kept_and_a_person_is_told(
    page: Page, address: str, gate: Path, temporary: Path
) -> None:
    config = httpx.get(f"{address}/config").json()
    event = next(each for each in config["dependencies"] if _is_click_on(each, "Dark", config))
    values = {each["id"]: each["props"].get("value") for each in config["components"]}

    def join(number: int) -> int:
        call = {"data": [values[place] for place in event["inputs"]], "fn_index": event["id"]}
        session = {"session_hash": f"visitor {number}"}
        return httpx.post(f"{address}/gradio_api/queue/join", json=call | session, timeout=60).status_code

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(join, range(50)))
    assert set(answers) == {200, 503}
    assert answers.count(200) <= 17  # one runs, sixteen wait
    example(page, "Light").click()
    expect(page.locator(".complaint.ours")).to_have_text(re.compile("^Too many analyses wait already"))
    expect(page.locator(".waiting")).to_be_hidden()
    expect(page.locator(".toast-body")).to_have_count(0)
    keep(page, "demo-sfod-full-queue")
    own = _own(gate.parent)
    page.get_by_test_id("file-upload").first.set_input_files(own)
    expect(page.locator(".upload .filename")).to_be_visible()
    expect(page.locator(".waiting")).to_be_hidden()
    for _ in range(100):  # the upload that was refused goes a moment after it was
        if not (left := list(temporary.rglob(own.name))):
            break
        page.wait_for_timeout(100)
    assert not left
    gate.touch()
    page.wait_for_timeout(2000)  # those that wait take a moment each
    example(page, "Light").click()
    expect(figure(page, "Light")).to_be_visible()
    expect(page.locator(".complaint.ours")).to_have_count(0)


def _own(folder: Path) -> Path:
    """A person's image."""
    write_png(folder / "own.png", np.full((60, 70, 3), 120, np.uint8))
    return folder / "own.png"


def _is_click_on(event: dict[str, Any], name: str, config: dict[str, Any]) -> bool:
    named = {each["id"] for each in config["components"] if each["props"].get("value") == name}
    return any(place in named and kind == "click" for place, kind in event["targets"])
