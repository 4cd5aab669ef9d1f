"""Find the demo's CPU schedule on shifts and pixels that are not reported: noise, blur and colour cast of a strip.

The strip is the band of the source image that source training never saw; half a is adapted to, half b is scored. The
winner is the setting with the best mean gain of the mean teacher over the three shifts; LPLD then runs with the same
one, so that the search favours the baseline. ``make bench-sfod-schedule`` resumes per cell; ``ARGS=--table``
prints what is there.
"""

import argparse
import itertools
import json
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.sfod.runs import adapt, ap50, demo_data, detect, match, run, run_cells
from benchmarks.studies import RESULTS, write_result

WORK = Path("runs") / "bench-sfod-schedule"
SHIFTS = ("noise", "blur", "colour_cast")
GRID = {
    "optim.lr": (0.001, 0.003),
    "teacher.keep_rate": (0.99,),
    "pseudo_labels.threshold": (0.5, 0.6, 0.7),
}
FIXED = {"train.epochs": 9, "train.batch_size": 2, "optim.clip_norm": 5, "teacher.every": "step"}
STUDY = RESULTS / "sfod-schedule"


def settings() -> list[dict[str, float]]:
    """List every point of the grid."""
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]


def name_of(setting: dict[str, float]) -> str:
    """Name the file of a point."""
    return "-".join(f"{key.rpartition('.')[2]}{value:g}" for key, value in setting.items())


def cell(setting: dict[str, float], shift: str) -> None:
    """Adapt to half a of a shifted strip and score half b."""
    path = STUDY / f"{name_of(setting)}-{shift}.json"
    if path.exists():
        return
    data = demo_data(WORK)
    split = f"strip_{shift}_b"
    source = WORK / "source" / "model"
    bundle = adapt(WORK / path.stem, data, source, f"strip_{shift}_a_adapt", {"method": "mt", **FIXED, **setting})
    scored = detect(bundle, data, [split])
    before = detect(source, data, [split])
    write_result(
        path,
        study="sfod-schedule",
        shift=shift,
        settings={**FIXED, **setting},
        ap50=ap50(match(scored)),
        source_ap50=ap50(match(before)),
    )


def table() -> str:
    """Format the mean gain over the shifts by setting, best first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(STUDY.glob("*.json"))]
    lines = []
    for setting in settings():
        rows = [row for row in found if {**FIXED, **setting} == row["settings"]]
        gains = {row["shift"]: row["ap50"] - row["source_ap50"] for row in rows}
        if len(gains) == len(SHIFTS):
            told = "  ".join(f"{shift} {gains[shift]:+5.1f}" for shift in SHIFTS)
            lines.append((statistics.fmean(gains.values()), f"{name_of(setting):40} {told}"))
    rows = [f"{text}  mean {mean:+5.1f}" for mean, text in sorted(lines, reverse=True)]
    return "\n".join([f"{len(found)} runs, {len(rows)} of {len(settings())} settings tried on all shifts", *rows])


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        data = demo_data(WORK)
        run(WORK / "source", [f"data.root={data}"], Path("configs/sfod/demo_source.yaml"))
        with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
            run_cells(pool, cell, itertools.product(settings(), SHIFTS))
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
