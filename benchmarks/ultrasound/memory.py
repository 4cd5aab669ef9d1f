"""Peak memory of ``predict`` on a short and a long cine: ``make bench-ultrasound-memory``.

Cines of 640 x 480 JPEG frames go through the bedside pair of the demo, results written; some frames have a mask, which
is counted. Each is predicted in a process of its own, which a child process decodes for; both peaks count. Beside it
stands what reading the whole cine at once takes, as ``pixel_array`` of pydicom does. Written to
``results/ultrasound_memory.json``.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.studies import RESULTS, ROOT
from vision_core.environment import usable_cores

LENGTHS = (100, 3000)
MOST_GROWTH = 0.05
_SUBJECT = 64
_PAIR = ROOT / "demos" / "checkpoints" / "ultrasound-demo"


def ours(path: Path) -> dict[str, int]:
    """Predict a cine and write its results; returns the number of frames, and of those with a mask."""
    from pipelines.ultrasound.config import UltrasoundConfig
    from pipelines.ultrasound.predict import UltrasoundPredictor

    predictor = UltrasoundPredictor.from_checkpoint(
        _PAIR / "screen", "cpu", UltrasoundConfig(segment=_PAIR / "segment")
    )
    found = predictor(path)
    with tempfile.TemporaryDirectory() as folder:
        predictor.write(found, path, folder)
    predictor.close()
    return {"frames": len(found), "marked": int(found.present.sum())}


def at_once(path: Path) -> dict[str, int]:
    """Read all frames into memory; returns their number."""
    from pydicom import dcmread

    return {"frames": len(dcmread(path).pixel_array)}


def measure(name: str, path: Path) -> dict[str, float]:
    """Run one of both in a process of its own: its answer, seconds, peak of the process and of its child in MiB."""
    command = [sys.executable, "-m", "benchmarks.ultrasound.memory", "--one", name, str(path)]
    began = time.monotonic()
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def main(arguments: list[str]) -> int:
    """Measure all, print and write the figures; 1 if ours grows by more than 5 %."""
    if arguments[:1] == ["--one"]:
        found = {"ours": ours, "at once": at_once}[arguments[1]](Path(arguments[2]))
        own, child = (
            resource.getrusage(each).ru_maxrss / 1024 for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        print(json.dumps({**found, "peak_mib": round(own, 1), "child_mib": round(child, 1)}))
        return 0
    from benchmarks.ultrasound.cines import SIZE, sweep_frames, write_jpeg_cine

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="ultrasound-memory-") as temporary:
        for length in LENGTHS:
            write_jpeg_cine(path := Path(temporary) / f"cine-{length}.dcm", sweep_frames(_SUBJECT), length)
            for name in ("ours", "at once"):
                rows.append({"reader": name, "length": length, **measure(name, path)})
                print(rows[-1], flush=True)
    short, long = (row for row in rows if row["reader"] == "ours")
    growth = {each: round(long[each] / short[each] - 1, 4) for each in ("peak_mib", "child_mib")}
    record = {"size": list(SIZE), "rows": rows, "growth_of_ours": growth, "cores": usable_cores()}
    (RESULTS / "ultrasound_memory.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    grown = f"{growth['peak_mib']:.1%}, its child by {growth['child_mib']:.1%}"
    print(f"From {LENGTHS[0]} to {LENGTHS[1]} frames ours grows by {grown}.")
    return int(max(growth.values()) > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
