"""The demo page as a person meets it: an image in, what the policy hides and what the classifier says out."""

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from pipelines.pretrain.preprocessing import centre_view
from vision_core.assets import radiology_files
from vision_core.bundle import read_card
from vision_core.dicom import read_dicom_image
from vision_core.results import RESEARCH_NOTICE

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
BUNDLE = ROOT / "demos" / "checkpoints" / "pretrain-demo" / "model"
PATIENCE_MS = 120_000
DOWNLOADS = 3
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder for temporary files."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "demos.pretrain", "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    log = tmp_path_factory.mktemp("log") / "server.txt"
    with (
        log.open("w") as told,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=told, stderr=told) as server,
    ):
        try:
            _wait_for(log, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            assert server.wait(timeout=20) == 0, f"the page did not close clean: {log.read_text()}"
            assert not [path for path in temporary.rglob("*") if path.is_file()], "files were left behind"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with _session(browser, address) as page:
        yield page


@pytest.fixture
def slice_path(tmp_path: Path) -> Path:
    """A real CT slice under a name without a suffix, as scanners write them."""
    return Path(shutil.copyfile(radiology_files()["ct_head"], tmp_path / "IM0001"))


def test_keyboard__example_masks_and_opacity_without_a_mouse(page: Page) -> None:
    _tab_to(page, "Try: MR, brain")
    page.keyboard.press("Enter")
    expect(_status(page)).to_have_text(re.compile("^MR, brain: As it is, called .* hides .* of the contrast"))
    mean = _pixels(page, _overlay(page), "overlay-0-050")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    bare = _pixels(page, _overlay(page), "overlay-0-000")
    assert _difference(mean, bare) > 1
    page.keyboard.press("Space")
    expect(page.get_by_role("columnheader", name="seed 2")).to_be_visible()
    _tab_to(page, "Draw other masks")
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="seed 5")).to_be_visible()
    np.testing.assert_array_equal(_pixels(page, _overlay(page), "seed-3/overlay-0-050"), mean)  # the mean has no seed
    _tab_to(page, "radio", backwards=True)
    page.keyboard.press("Space")  # the last of them
    assert _difference(_pixels(page, _overlay(page), "seed-3/overlay-3-050"), mean) > 1
    expect(page.get_by_role("img", name="The mask of seed 5 over MR, brain.")).to_be_visible()
    _keep(page, "demo-pretrain-example")


def test_upload__dicom_by_mouse_downloads_and_clear(page: Page, slice_path: Path, temporary: Path) -> None:
    expect(page.get_by_role("note").filter(has_text="same-subject: an illustration")).to_be_visible()
    before = _cases(temporary)
    page.get_by_test_id("file-upload").first.set_input_files(slice_path)
    expect(_status(page)).to_contain_text("IM0001: As it is, called")
    page.get_by_role("button", name="Overlay on or off").click()
    rules = read_card(BUNDLE).preprocessing
    view = centre_view(read_dicom_image(slice_path), rules["resize_px"], rules["input_px"])
    times = round(512 / rules["input_px"])
    shown = _pixels(page, _overlay(page), "overlay-0-000")
    np.testing.assert_array_equal(shown[:512:times, :512:times], view)
    record = json.loads(_download(page, ".json"))
    rows = list(csv.DictReader(io.StringIO(_download(page, ".csv").decode())))
    assert record["notice"] == RESEARCH_NOTICE == rows[0]["notice"]
    assert "same-subject" in record["remarks"][0]
    assert [row["under"] for row in rows] == ["clean image", "mean mask", "seed 0", "seed 1", "seed 2"]
    strip = np.asarray(Image.open(io.BytesIO(_download(page, ".masks.png"))))[-60:]
    assert strip.max() == 255 and strip.min() < 100  # words on white
    _keep(page, "demo-pretrain-dicom")
    assert _cases(temporary) > before
    page.get_by_role("button", name="Clear").first.click()
    expect(_status(page)).to_contain_text("Give an image")
    assert _cases(temporary) == before


def test_upload__what_is_no_image_is_told_and_the_page_lives_on(page: Page, tmp_path: Path, temporary: Path) -> None:
    fake = tmp_path / "fake.dcm"
    fake.write_text("<html>login</html>" * 20)
    before = _cases(temporary)
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("'fake.dcm' is not a DICOM file")
    assert _cases(temporary) == before
    page.get_by_role("button", name="Try: retina").click()
    expect(_status(page)).to_contain_text("retina, of no class that it knows: As it is")
    expect(alert).to_have_count(0)


def test_sessions__two_at_once_see_their_own_image(page: Page, browser: Browser, address: str) -> None:
    with _session(browser, address) as other:
        page.get_by_role("button", name="Try: histology").click()
        other.get_by_role("button", name="Try: ultrasound").click()
        expect(_status(page)).to_contain_text("histology, skin: As it is")
        expect(_status(other)).to_contain_text("ultrasound, heart: As it is")
        expect(page.get_by_role("img", name="ultrasound")).to_have_count(0)
        expect(other.get_by_role("img", name="histology")).to_have_count(0)


@contextmanager
def _session(browser: Browser, address: str) -> Iterator[Page]:
    """The page in a session of its own; at the end, every request must have gone to this machine."""
    hosts: set[str | None] = set()
    with browser.new_context(viewport={"width": 1280, "height": 1000}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.goto(address, wait_until="domcontentloaded")
        expect(page.get_by_role("button", name="Try: ").first).to_be_visible()  # the page builds itself after loading
        yield page
    assert hosts <= {"127.0.0.1", None}


def _wait_for(log: Path, server: subprocess.Popen[bytes]) -> None:
    # Not for the port: while Gradio is looking whether it can reach itself, a browser would be in its way.
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline and server.poll() is None:
        if "Open http" in log.read_text():
            return
        time.sleep(0.2)
    pytest.fail(f"the page did not start: {log.read_text()}")


def _status(page: Page) -> Locator:
    return page.locator("p.status")  # Gradio has a status of its own, of loading


def _overlay(page: Page) -> Locator:
    return page.get_by_role("img", name=re.compile("^The (mean mask|mask of seed [0-9]+) over "))


def _pixels(page: Page, picture: Locator, file: str) -> NDArray[np.uint8]:
    """The picture as it came to the browser, without the strip below."""
    expect(picture).to_have_attribute("src", re.compile(file))
    source = picture.get_attribute("src")
    assert source is not None
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB"))[:512, :512]


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def _download(page: Page, ending: str) -> bytes:
    for _ in range(DOWNLOADS):  # Chromium cancels one whose link the page draws anew at that moment
        with page.expect_download() as download:
            page.locator(f'a[download$="{ending}"]').first.click()
        if (fault := download.value.failure()) is None:
            return download.value.path().read_bytes()
    raise AssertionError(f"{ending}: {fault}")


def _cases(temporary: Path) -> set[str]:
    """Files of cases and of uploads in the folder of the server."""
    found = [path for path in temporary.glob("domainsight-app-*/*/**/*") if path.is_file() and "demo" not in path.parts]
    return {str(path) for path in found if path.suffix not in {".css", ".js"}}


def _keep(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def _tab_to(page: Page, wanted: str, *, backwards: bool = False) -> None:
    for _ in range(40):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        focused = page.evaluate("document.activeElement.innerText + ' ' + document.activeElement.type")
        if wanted in focused:
            return
    pytest.fail(f"the keyboard does not reach '{wanted}'")
