"""What the tests of all demo pages share: a served page, a browser's session, and what a person does there."""

import io
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin, urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from tests.forked import Forked

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_MS = 120_000
_ARTIFACTS = ROOT / "artifacts"
_REACH = 40
Scheme = Literal["light", "dark"]
# One look is quick; the others are slow together.
LOOKS = (
    ((1440, 900), "light"),
    pytest.param((1440, 900), "dark", marks=pytest.mark.slow),
    pytest.param((1024, 768), "light", marks=pytest.mark.slow),
    pytest.param((390, 844), "light", marks=pytest.mark.slow),
    pytest.param((390, 844), "dark", marks=pytest.mark.slow),
)
_PLACES = """() => {
  const box = (part) => (({top, bottom, left, right}) => ({top, bottom, left, right}))(part.getBoundingClientRect());
  const find = (name) => box(document.querySelector(name));
  const hidden = (part) => part.scrollHeight - part.clientHeight;
  const isSeen = (part) => part.offsetParent && part.getBoundingClientRect().height > 4;
  const parts = [document.querySelector(".stage"), ...[...document.querySelector(".rail").children].filter(isSeen)];
  const shared = (a, b) => Math.min(Math.min(a.right, b.right) - Math.max(a.left, b.left),
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const overlaps = parts.flatMap((one, at) => parts.slice(at + 1).filter((other) => shared(box(one), box(other)) > 2)
    .map((other) => [one.className, other.className]));
  return {picture: find("figure.viewer .view"), words: find(".status"), head: find(".head"), notice: find(".notice"),
    caption: find("figure.viewer figcaption"), hidden: hidden(document.querySelector("figure.viewer figcaption")),
    scrolls: document.documentElement.scrollWidth, width: innerWidth, height: innerHeight, overlaps};
}"""
# Marks every control that is to be seen, and tells its name and the key that uses it.
_CONTROLS = """() => {
  const keyOf = (part) => {
    if (part.type === "range") return part.valueAsNumber < part.max ? "ArrowRight" : "ArrowLeft";
    if (part.type === "radio") return part.checked ? "" : "Space";  // each of Gradio's is a stop of Tab
    if (part.type === "checkbox") return "Space";
    if (part.matches("select")) return part.selectedIndex < part.length - 1 ? "ArrowDown" : "ArrowUp";
    if (part.matches("input, textarea")) return part.readOnly ? "" : "1";
    return part.matches("a, button, summary") ? "Enter" : "";
  };
  const isSeen = (part) => part.tabIndex >= 0 && !part.disabled && part.checkVisibility({visibilityProperty: true});
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")];
  return Object.fromEntries(all.filter(isSeen).map((part, at) => {
    const mark = part.dataset.walk = `${at}`;
    const name = part.ariaLabel || part.innerText?.trim() || part.title || part.labels?.[0]?.innerText || "";
    return [mark, [name || part.outerHTML.slice(0, 120), keyOf(part)]];
  }));
}"""
# From now on keys reach the controls, and the controls nothing else: what they would do is noted.
_LISTEN = """() => {
  window.heard = new Set();
  // A number that is left is sent too, and its answer would replace controls.
  for (const kind of ["click", "input", "change", "blur"]) addEventListener(kind, (event) => {
    if (kind !== "blur") heard.add(event.target.closest?.("[data-walk]")?.dataset.walk);
    event.stopImmediatePropagation();
    event.preventDefault();
  }, true);
}"""
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def served(module: str, temporary: Path, *flags: str) -> Iterator[str]:
    """The address of a page; at the end it must close clean and leave no file in its folder for temporary ones."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    server = Forked(["-m", module, "--port", str(port), "--no-browser", *flags], partial(_in, environment))
    try:
        _wait_for(server)
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        told = server.communicate(timeout=20)
        assert server.returncode == 0, f"the page did not close clean: {told}"
        assert told[0].startswith("Loading the models…\nOpen http") and "Warning" not in told[1], told
        assert "Traceback" not in told[1], told
        assert not [path for path in temporary.rglob("*") if path.is_file()], "files were left behind"


@contextmanager
def session(
    browser: Browser, address: str, size: tuple[int, int] = (1440, 900), scheme: Scheme = "light"
) -> Iterator[Page]:
    """The page in a session of its own; at the end, no request must have left this machine, and no script failed."""
    hosts: set[str | None] = set()
    faults: list[str] = []
    viewport: ViewportSize = {"width": size[0], "height": size[1]}
    with browser.new_context(viewport=viewport, color_scheme=scheme) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.goto(address, wait_until="domcontentloaded")
        expect(examples(page).first).to_be_visible()  # the page builds itself after loading
        yield page
    assert hosts <= {"127.0.0.1", None}
    assert faults == []


def examples(page: Page) -> Locator:
    """The buttons of the examples."""
    return page.locator(".strip button")


def example(page: Page, name: str) -> Locator:
    """The button of the example with this name."""
    return examples(page).filter(has_text=name)


def status(page: Page) -> Locator:
    """The result in words; Gradio has a line of its own, of loading."""
    return page.locator(".words .status")


def figure(page: Page, name: str = "") -> Locator:
    """The picture of the page, when it says ``name`` to people who do not see it."""
    return page.get_by_role("group", name=re.compile(f"^Picture: .*{re.escape(name)}", re.DOTALL))


def check_layout(page: Page) -> None:
    """After a result: its picture and its words are in view, nothing lies over anything else, no sideways scroll."""
    expect(figure(page)).to_be_visible()
    page.wait_for_timeout(300)  # the picture is scrolled to
    places = page.evaluate(_PLACES)
    height, width = places["height"], places["width"]
    top, bottom = places["picture"]["top"], places["picture"]["bottom"]
    assert min(bottom, height) - max(top, places["head"]["bottom"]) >= height / 2, "half of the picture is in view"
    top = places["words"]["top"]
    assert top >= places["head"]["bottom"] and top + 20 <= height, "the words are in view"
    assert places["picture"]["top"] >= places["head"]["bottom"] - 1, "the head covers the picture"
    assert places["caption"]["bottom"] <= height, "the notice under the picture is cut"
    assert places["hidden"] <= 2, "the words under the picture are cut"
    assert places["scrolls"] <= width, "the page scrolls sideways"
    assert places["overlaps"] == []
    assert places["notice"]["top"] >= 0 and places["notice"]["bottom"] <= height


def tab_to(page: Page, wanted: str, *, backwards: bool = False) -> None:
    """Move the focus to what has this text or type."""
    for _ in range(_REACH):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        focused = page.evaluate("document.activeElement.innerText + ' ' + document.activeElement.type")
        if wanted in focused:
            return
    pytest.fail(f"the keyboard does not reach '{wanted}'")


def walk_every_control(page: Page) -> None:
    """Every control is reached by Tab alone and answers its key; the page is of no use afterwards."""
    for closed in (".label-wrap:not(.open)", "details:not([open]) > summary"):
        while (next_one := page.locator(closed).filter(visible=True)).count():
            next_one.first.focus()
            page.keyboard.press("Enter")
            page.wait_for_timeout(100)
    drawn = ""
    while drawn != (drawn := page.locator(".desk").inner_html()):  # a result may still come, which replaces controls
        page.wait_for_timeout(1500)
    controls: dict[str, tuple[str, str]] = page.evaluate(_CONTROLS)
    page.evaluate(_LISTEN)
    missing = dict(controls)
    for _ in range(2 * len(controls) + 10):
        page.keyboard.press("Tab")
        mark = page.evaluate("document.activeElement.dataset.walk")
        if mark in missing and (pressed := missing.pop(mark)[1]):
            page.keyboard.press(pressed)
        if not missing:
            break
    heard = page.evaluate("[...heard]")
    silent = {mark: name for mark, (name, key) in controls.items() if key and mark not in heard}
    assert not missing, f"the keyboard does not reach {missing}"
    assert not silent, f"these do not answer: {silent}"


def pixels(page: Page, layer: str = ".base") -> NDArray[np.uint8]:
    """A layer of the picture ``(H, W, 3)`` as it came to the browser."""
    source = figure(page).locator(f"{layer} img, img{layer}").first.get_attribute("src")
    assert source is not None
    return np.asarray(Image.open(io.BytesIO(page.request.get(urljoin(page.url, source)).body())).convert("RGB"))


def expect_opacity(page: Page, value: float) -> None:
    """How much of the layer over the picture is to be seen."""
    expect(figure(page).locator(".layer").first).to_have_css("opacity", f"{value:g}")


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The mean of what two pictures differ by, in grey levels."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def download(page: Page, ending: str) -> bytes:
    """The bytes of the file with this ending."""
    link = page.locator(f'a[download$="{ending}"]').first
    if not link.is_visible():
        page.get_by_role("button", name="Downloads").click()
    with page.expect_download() as event:
        link.click()
    assert (fault := event.value.failure()) is None, f"{ending}: {fault}"
    return event.value.path().read_bytes()


def keep(page: Page, name: str) -> None:
    """Leave a picture of the page for who wants to look."""
    expect(page.locator(".desk.working")).to_have_count(0)  # pale while it works
    _ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=_ARTIFACTS / f"{name}.png")


def barriers(page: Page) -> list[str]:
    """What axe finds that is in somebody's way: the names of its findings, slight ones too."""
    page.wait_for_timeout(500)  # what fades in or out is no finding
    return [each["id"] for each in Axe().run(page).response["violations"]]


def _in(environment: Mapping[str, str]) -> None:
    """Take over variables; the folder for temporary files was asked for before."""
    os.environ.update(environment)
    tempfile.tempdir = None


def _wait_for(server: Forked) -> None:
    # Not for the port: while Gradio is looking whether it can reach itself, a browser would be in its way.
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline and server.poll() is None:
        if "Open http" in "".join(server.so_far()):
            return
        time.sleep(0.2)
    pytest.fail(f"the page did not start: {server.so_far()}")
