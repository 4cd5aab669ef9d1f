"""A demo page under load: `make bench-apps-load`.

Prints the time until the page is ready, until its first result, and how long it takes to show or hide the overlay (in
the browser) and to change the view (drawn by the server): with one session, and with four that do so every three
seconds, a quarter of that apart, until 100 of each; and what memory the server gained meanwhile. Needs Chromium; the
browsers share the machine's cores with the server. What it prints stands in ``results/apps_load.json``.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.studies import RESULTS, ROOT
from vision_core.environment import usable_cores

_CHROMIUM = "/usr/bin/chromium"
_SESSIONS = 4
_REQUESTS = 100
_EVERY_SECONDS = 3.0
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_PATIENCE_MS = 120_000
# From the click to the first frame that shows the other view.
_CHANGE = """(name) => new Promise((done) => {
  const began = performance.now();
  const isThere = () => document.querySelector("figure.viewer")?.getAttribute("aria-label")?.includes(`. ${name}.`);
  const look = () => isThere() ? done(performance.now() - began) : requestAnimationFrame(look);
  [...document.querySelectorAll(".choices input")].find((each) => each.value === name).click();
  look();
})"""
# From the key to the end of the first frame with the other opacity: as a frame begins, then as its message is heard.
_TOGGLE = """() => new Promise((done) => {
  const opacity = () => document.querySelector("figure.viewer .over")?.style.opacity;
  const before = opacity(), began = performance.now(), {port1, port2} = new MessageChannel();
  port1.onmessage = () => done(performance.now() - began);
  const look = () => opacity() !== before ? port2.postMessage(0) : requestAnimationFrame(look);
  document.dispatchEvent(new KeyboardEvent("keydown", {key: " ", bubbles: true}));
  requestAnimationFrame(look);
})"""
_VIEWS = ("Source model", "Adapted model", "What changed")


@contextmanager
def served() -> Iterator[tuple[str, int, float]]:
    """Serve the detection page: its address, process id and seconds until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "demos.sfod", "--port", str(port), "--no-browser"]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "TMPDIR": temporary}, stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith("Open http"):
                break
        try:
            yield f"http://127.0.0.1:{port}", server.pid, time.monotonic() - began
        finally:
            server.terminate()


def open_case(page: Page, address: str) -> float:
    """Open the page and click its first example; returns the seconds from the click to the result."""
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(address, wait_until="domcontentloaded")
    page.locator(".strip button").first.wait_for()
    page.wait_for_timeout(500)
    began = time.monotonic()
    page.locator(".strip button").first.click()
    page.locator("figure.viewer").wait_for()
    return time.monotonic() - began


def use(
    address: str, count: int, every: float, at_result: Callable[[], float] = lambda: 0.0
) -> tuple[float, list[float], list[float]]:
    """Show or hide the overlay and change the view of one session, ``count`` times each.

    Args:
        address: Address of the page.
        count: How often.
        every: Seconds from one to the next.
        at_result: Called when the session has its result; returns the seconds to wait before it begins.

    Returns:
        Seconds to the result, those of each toggle, and those of each change.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        first = open_case(page, address)
        page.evaluate(_CHANGE, _VIEWS[0])  # the first one also loads what later ones have
        page.evaluate(_TOGGLE)
        time.sleep(at_result())
        toggles, changes = [], []
        for number in range(count):
            began = time.monotonic()
            toggles.append(page.evaluate(_TOGGLE) / 1000)
            changes.append(page.evaluate(_CHANGE, _VIEWS[(number + 1) % len(_VIEWS)]) / 1000)
            time.sleep(max(0.0, every - (time.monotonic() - began)))
        browser.close()
    return first, toggles, changes


def memory_mib(process: int) -> float:
    """Read the resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def p95(times: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(times, n=20)[-1]


def main() -> int:
    """Run the load and write what was measured."""
    with served() as (address, process, ready):
        first, *alone = use(address, _REQUESTS // _SESSIONS, 0.5)
        memory, places = [], iter(range(_SESSIONS))
        opened = threading.Barrier(_SESSIONS, action=lambda: memory.append(memory_mib(process)))

        def begin() -> float:
            opened.wait()
            return next(places) * _EVERY_SECONDS / _SESSIONS

        with ThreadPoolExecutor(_SESSIONS) as pool:
            runs = [pool.submit(use, address, _REQUESTS // _SESSIONS, _EVERY_SECONDS, begin) for _ in range(_SESSIONS)]
            together = [run.result() for run in runs]
        before, gained = memory[0], memory_mib(process) - memory[0]
    found: dict[str, float] = {"seconds_to_ready": round(ready, 2), "seconds_to_first_result": round(first, 2)}
    for place, name in enumerate(("toggle", "change")):
        one, four = p95(alone[place]), p95([seconds for run in together for seconds in run[1:][place]])
        found |= {
            f"p95_of_a_{name}_alone_ms": round(1000 * one, 1),
            f"p95_of_a_{name}_with_four_ms": round(1000 * four, 1),
            f"ratio_of_a_{name}": round(four / one, 2),
        }
    found |= {
        "memory_with_four_results_mib": round(before),
        "memory_gained_by_the_changes_mib": round(gained, 1),
        "changes": sum(len(run[2]) for run in together),
        "cores": usable_cores(),
    }
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value}")
    (RESULTS / "apps_load.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
