"""The demo page as a person meets it: a slide in, where the model looked and the result in words out."""

import gzip
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
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from vision_core.assets import aperio_slide
from vision_core.results import RESEARCH_NOTICE
from vision_core.slides.reader import open_slide
from vision_core.slides.tissue import thumbnail

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
PATIENCE_MS = 120_000
SUSPICIONS = re.compile("alter|tumour|suspicious|coverage|mm2", re.IGNORECASE)
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder for temporary files."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def slides_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slides")
    shutil.copyfile(aperio_slide(), root / "=biopsy.svs")
    return root


@pytest.fixture(scope="module")
def address(temporary: Path, slides_root: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "demos.wsi", "--port", str(port), "--slides-root", str(slides_root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            _wait_for(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            assert server.wait(timeout=20) == 0, "the page did not close clean"
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


def test_keyboard__example_overlay_and_help_without_a_mouse(page: Page) -> None:
    _tab_to(page, "Try: made slide, altered")
    page.keyboard.press("Enter")
    expect(_status(page)).to_contain_text("made slide, altered nuclei: synthetic_alteration.")
    heatmap = page.get_by_role("img", name="Heatmap over made slide, altered nuclei. Result: synthetic_alteration.")
    half = _pixels(page, heatmap, 50)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    expect(_opacity(page)).to_have_value("0")
    bare = _pixels(page, heatmap, 0)
    page.keyboard.press("Space")
    expect(_opacity(page)).to_have_value("0.5")
    page.keyboard.press("+")
    expect(_opacity(page)).to_have_value("0.6")
    assert _difference(_pixels(page, heatmap, 60), bare) > _difference(half, bare) > 1
    for _ in range(2):
        page.keyboard.press("-")
    expect(_opacity(page)).to_have_value("0.4")
    page.keyboard.press("?")
    expect(page.get_by_text("overlay stronger or fainter")).to_be_visible()
    page.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Space")
    expect(_opacity(page)).to_have_value("0.4")
    _tab_to(page, "Numbers")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name="Probability of normal")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("note").filter(has_text=RESEARCH_NOTICE)).to_be_in_viewport()
    _keep(page, "demo-wsi-example")


def test_upload__real_slide_by_mouse_is_shown_and_not_called(page: Page, temporary: Path) -> None:
    of_others = _cases(temporary)
    expect(page.get_by_role("note").filter(has_text="only seen made images")).to_be_visible()
    page.get_by_test_id("file-upload").first.set_input_files(aperio_slide())
    expect(_status(page)).to_contain_text("cmu_small_region.svs: outside what the model knows; not called")
    assert not SUSPICIONS.search(_status(page).inner_text())
    heatmap = page.get_by_role("img", name="Heatmap over cmu_small_region.svs")
    page.get_by_role("button", name="Overlay on or off").click()
    with open_slide(aperio_slide()) as slide:
        whole = thumbnail(slide, 1024)
    np.testing.assert_array_equal(_pixels(page, heatmap, 0)[: whole.shape[0], : whole.shape[1]], whole)
    _check_downloads(page)
    _keep(page, "demo-wsi-real")
    assert _cases(temporary) > of_others
    page.get_by_role("button", name="Clear").first.click()
    expect(_status(page)).to_contain_text("Give a slide")
    assert _cases(temporary) == of_others


def test_sessions__two_at_once_see_their_own_slide(page: Page, browser: Browser, address: str) -> None:
    with _session(browser, address) as other:
        page.get_by_role("button", name="Try: made slide, normal").click()
        other.get_by_role("button", name="Try: made slide, unknown").click()
        expect(_status(other)).to_contain_text("made slide, unknown: outside what the model knows")
        expect(_status(page)).to_contain_text("made slide, normal: normal.")
        expect(page.get_by_role("img", name="unknown")).to_have_count(0)
        expect(other.get_by_role("img", name="made slide, normal")).to_have_count(0)


def test_choose__slide_of_the_folder_by_name_after_a_file_that_is_none(page: Page, tmp_path: Path) -> None:
    fake = tmp_path / "fake.svs"
    fake.write_text("<html>login</html>")
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("'fake.svs'")
    assert str(tmp_path) not in alert.inner_text()
    page.get_by_label("A slide on this computer").click()
    page.get_by_role("option", name="=biopsy.svs").click()
    expect(_status(page)).to_contain_text("=biopsy.svs: outside what the model knows; not called")
    expect(alert).to_have_count(0)
    assert "\n'=biopsy.svs," in _download(page, ".csv").decode()
    page.get_by_role("button", name="Try: made slide, normal").click()
    expect(_status(page)).to_contain_text("made slide, normal: normal.")
    page.get_by_label("A slide on this computer").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(_status(page)).to_contain_text("=biopsy.svs: outside what the model knows; not called")
    link = page.locator('a[download$=".csv"]').get_attribute("href")
    page.get_by_label("A slide on this computer").focus()
    page.get_by_role("button", name="Stronger").click()  # leaves the list, which must not read the slide again
    expect(_opacity(page)).to_have_value("0.6")
    page.wait_for_timeout(1_000)
    expect(_status(page)).to_contain_text("=biopsy.svs")
    assert page.locator('a[download$=".csv"]').get_attribute("href") == link


@pytest.mark.skipif(find_spec("axe_playwright_python") is None, reason="pip install axe-playwright-python")
def test_page__no_serious_finding_of_axe(page: Page) -> None:
    axe = import_module("axe_playwright_python.sync_playwright").Axe()
    page.get_by_role("button", name="Try: made slide, normal").click()
    expect(_status(page)).to_contain_text("made slide, normal: normal.")
    found = axe.run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in {"serious", "critical"}] == []


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


def _check_downloads(page: Page) -> None:
    record = json.loads(_download(page, ".json"))
    assert record["category"].endswith("not called, since the model has only seen made images")
    table = _download(page, ".csv").decode()
    tiles = json.loads(gzip.decompress(_download(page, ".tiles.geojson.gz")))
    tissue = json.loads(_download(page, ".tissue.geojson"))
    assert {record["notice"], tiles["notice"], tissue["notice"]} == {RESEARCH_NOTICE} and RESEARCH_NOTICE in table
    assert not SUSPICIONS.search(json.dumps(record) + table)
    corners = np.array([each["geometry"]["coordinates"][0] for each in tiles["features"]])
    assert len(corners) == record["tiles"] and (corners[:, 0] == corners[:, -1]).all()
    assert corners.min() >= 0 and (corners.max(axis=(0, 1)) <= [record["width"], record["height"]]).all()
    strip = np.asarray(Image.open(io.BytesIO(_download(page, ".heatmap.png"))))[-60:]
    assert strip.max() == 255 and strip.min() < 100  # words on white


def _download(page: Page, ending: str) -> bytes:
    link = page.locator(f'a[download$="{ending}"]')
    with page.expect_download() as download:
        link.first.click()
    assert (fault := download.value.failure()) is None, f"{ending}: {fault}"
    return download.value.path().read_bytes()


def _status(page: Page) -> Locator:
    return page.locator("p.status")  # Gradio has a status of its own, of loading


def _opacity(page: Page) -> Locator:
    return page.get_by_role("slider", name="Opacity of the heatmap")


def _pixels(page: Page, picture: Locator, percent: int) -> NDArray[np.uint8]:
    """A heatmap as it came to the browser, at an opacity."""
    expect(picture).to_have_attribute("src", re.compile(f"heatmap-{percent:03d}"))
    source = picture.get_attribute("src")
    assert source is not None
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB"))


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def _cases(temporary: Path) -> set[Path]:
    """Files of cases and of uploads in the folder of the server; Gradio leaves an empty one of each upload."""
    found = [path for path in temporary.rglob("*") if path.is_file() and "demo" not in path.parts]
    return {path for path in found if path.stat().st_size}


def _keep(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def _tab_to(page: Page, wanted: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.innerText + ' ' + document.activeElement.type")
        if wanted in focused:
            return
    pytest.fail(f"the keyboard does not reach '{wanted}'")
