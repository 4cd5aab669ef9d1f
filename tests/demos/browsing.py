"""What the tests of all demo pages share: a served page, a browser's session, and what a person does there."""

import io
import os
import re
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
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_MS = 120_000
_ARTIFACTS = ROOT / "artifacts"
_REACH = 40
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def served(module: str, temporary: Path, *flags: str) -> Iterator[str]:
    """The address of a page; at the end it must close clean and leave no file in its folder for temporary ones."""
    log = temporary.with_suffix(".txt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", module, "--port", str(port), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
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


@contextmanager
def session(browser: Browser, address: str) -> Iterator[Page]:
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


def status(page: Page) -> Locator:
    """The line of words about the result; Gradio has one of its own, of loading."""
    return page.locator("p.status")


def tab_to(page: Page, wanted: str, *, backwards: bool = False) -> None:
    """Move the focus to what has this text or type."""
    for _ in range(_REACH):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        focused = page.evaluate("document.activeElement.innerText + ' ' + document.activeElement.type")
        if wanted in focused:
            return
    pytest.fail(f"the keyboard does not reach '{wanted}'")


def pixels(page: Page, picture: Locator, file: str) -> NDArray[np.uint8]:
    """A picture ``(H, W, 3)`` as it came to the browser, when its file has a name with ``file`` in it."""
    expect(picture).to_have_attribute("src", re.compile(file))
    source = picture.get_attribute("src")
    assert source is not None
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB"))


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The mean of what two pictures differ by, in grey levels."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def download(page: Page, ending: str) -> bytes:
    """The bytes of the file with this ending."""
    with page.expect_download() as event:
        page.locator(f'a[download$="{ending}"]').first.click()
    assert (fault := event.value.failure()) is None, f"{ending}: {fault}"
    return event.value.path().read_bytes()


def keep(page: Page, name: str) -> None:
    """Leave a picture of the page for who wants to look."""
    _ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=_ARTIFACTS / f"{name}.png", full_page=True)


def barriers(page: Page) -> list[str]:
    """What axe finds that keeps somebody out of the page: the names of serious and critical findings."""
    found = Axe().run(page).response["violations"]
    return [each["id"] for each in found if each["impact"] in {"serious", "critical"}]


def _wait_for(log: Path, server: "subprocess.Popen[bytes]") -> None:
    # Not for the port: while Gradio is looking whether it can reach itself, a browser would be in its way.
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline and server.poll() is None:
        if "Open http" in log.read_text():
            return
        time.sleep(0.2)
    pytest.fail(f"the page did not start: {log.read_text()}")
