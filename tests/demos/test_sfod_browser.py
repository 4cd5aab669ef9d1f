"""The demo page as a person meets it: a real tile in, the boxes of both models out."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from vision_core.assets import tree_crowns
from vision_core.images import read_image, write_png

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
COMMAND = [sys.executable, "-m", "demos.sfod"]
COUNTS = re.compile(r"the source model finds (\d+) box.*the adapted model (\d+) box")
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*COMMAND, "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            _wait_for(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            assert server.wait(timeout=20) == 0, "the page did not close clean"


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """The page in a browser of its own; at the end, every request must have gone to this machine."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    hosts: set[str | None] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.goto(address, wait_until="domcontentloaded")
        expect(page.get_by_role("button", name="Try: ").first).to_be_visible()  # the page builds itself after loading
        yield page
        browser.close()
    assert hosts <= {"127.0.0.1", None}


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
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "demo-sfod.png", full_page=True)


def test_keyboard__example_and_score_without_a_mouse(page: Page) -> None:
    _tab_to(page, "Try: ")
    page.keyboard.press("Enter")
    before = _counts(page)
    _tab_to(page, "range")
    page.keyboard.press("Home")
    expect(page.locator("p.status")).to_contain_text("above a score of 0.00")
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


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        if server.poll() is not None:
            assert server.stdout is not None
            pytest.fail(f"the page did not start: {server.stdout.read().decode()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail("the page did not start in time")


def _counts(page: Page) -> tuple[int, int]:
    status = page.locator("p.status")  # Gradio has a status of its own, of loading
    expect(status).to_have_text(COUNTS)
    found = COUNTS.search(status.inner_text())
    assert found is not None
    return int(found[1]), int(found[2])


def _tab_to(page: Page, wanted: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.innerText + ' ' + document.activeElement.type")
        if wanted in focused:
            return
    pytest.fail(f"the keyboard does not reach '{wanted}'")
