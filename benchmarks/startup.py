"""How long ``--help`` takes, beside an empty Python process.

Target: at most 0.4 s, and no import of torch. ``make bench-startup``.
"""

import argparse
import statistics
import subprocess
import sys
import time

RUNS = 11
TARGET_SECONDS = 0.4
_ASK = """
import sys
from pipelines.sfod.__main__ import main
try:
    main(["--help"])
except SystemExit:
    print("torch" in sys.modules)
"""


def seconds(words: list[str]) -> float:
    """Measure the wall time of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> int:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    arguments = parser.parse_args()
    ours, empty = [], []
    for _ in range(RUNS):
        ours.append(seconds(["-m", "pipelines.sfod", "train", "--help"]))
        empty.append(seconds(["-c", "pass"]))
    imports = subprocess.run([sys.executable, "-c", _ASK], check=True, capture_output=True, text=True)
    has_torch = imports.stdout.splitlines()[-1] == "True"
    median = statistics.median(ours)
    print(f"--help: median {median:.3f} s, {min(ours):.3f} to {max(ours):.3f} over {RUNS} runs")
    print(f"an empty process: median {statistics.median(empty):.3f} s; torch imported: {has_torch}")
    print(f"startup: {median:.2f} s (target <= {TARGET_SECONDS})")
    return int(arguments.check and (median > TARGET_SECONDS or has_torch))


if __name__ == "__main__":
    sys.exit(main())
