"""A demo page under load: `make bench-apps-load`.

Prints the time until the page is ready, until its first result, and how long a change of the view takes with one
session and with four that click every three seconds, until 100 changes; and what memory the server gained meanwhile.
Needs Chromium. What it prints stands in ``results/apps_load.json``, with the machine it ran on.
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
from functools import partial
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


def change_views(
    address: str, count: int, every: float, at_result: Callable[[], object] = lambda: None
) -> tuple[float, list[float]]:
    """Change the view of one session ``count`` times.

    Args:
        address: Address of the page.
        count: How often.
        every: Seconds from one change to the next.
        at_result: Called when the session has its result.

    Returns:
        Seconds to the result, and those of each change.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        first = open_case(page, address)
        page.evaluate(_CHANGE, _VIEWS[0])  # the first one also loads what later ones have
        at_result()
        times = []
        for number in range(count):
            began = time.monotonic()
            times.append(page.evaluate(_CHANGE, _VIEWS[(number + 1) % len(_VIEWS)]) / 1000)
            time.sleep(max(0.0, every - (time.monotonic() - began)))
        browser.close()
    return first, times


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
        first, alone = change_views(address, _REQUESTS // _SESSIONS, 0.5)
        memory = []
        opened = threading.Barrier(_SESSIONS, action=lambda: memory.append(memory_mib(process)))
        with ThreadPoolExecutor(_SESSIONS) as pool:
            run = partial(change_views, address, _REQUESTS // _SESSIONS, _EVERY_SECONDS, opened.wait)
            together = [future.result()[1] for future in [pool.submit(run) for _ in range(_SESSIONS)]]
        before, gained = memory[0], memory_mib(process) - memory[0]
    shared = [seconds for times in together for seconds in times]
    found = {
        "seconds_to_ready": round(ready, 2),
        "seconds_to_first_result": round(first, 2),
        "p95_of_a_change_alone_ms": round(1000 * p95(alone), 1),
        "p95_of_a_change_with_four_ms": round(1000 * p95(shared), 1),
        "ratio": round(p95(shared) / p95(alone), 2),
        "memory_with_four_results_mib": round(before),
        "memory_gained_by_the_changes_mib": round(gained, 1),
        "changes": len(shared),
        "cores": usable_cores(),
    }
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value}")
    (RESULTS / "apps_load.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
