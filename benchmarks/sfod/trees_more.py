"""More rows beside those of ``trees``: labels written once, WSCoL and WSCo, alone and with LPLD.

``make bench-sfod-trees-more ARGS='--workers 2 --seeds 0'`` resumes per cell: first the search of learning rate and
threshold on shifts of a strip that nothing else sees, then the cells with what it found. What it does is fixed in
``protocols/sfod_trees_more.yaml``.
"""

import argparse
import itertools
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.sfod.more_tables import SEARCH, STUDY, Setting, best_setting, name_of
from benchmarks.sfod.runs import Scored, adapt, ap50, demo_data, detect, facts, match, run, run_cells
from benchmarks.studies import RESULTS, write_result

PROTOCOL = STUDY.protocol()
WORK = STUDY.work_folder()
COMMAND = "make bench-sfod-trees-more"
# A run whose teacher finds nothing is a cell like others: the watch over it would end the run without a score. Numbers
# without labels, a third of a run's time, choose nothing here.
_UNWATCHED = {"pseudo_labels.on_nothing": "continue", "verdict.images": 0}


def source(seed: int) -> Path:
    """Train the source model of a seed, unless it is there."""
    words = [f"data.root={demo_data(WORK)}", f"train.seed={seed}"]
    return run(WORK / f"source-{seed}", words, Path("configs/sfod/demo_source.yaml"))


def try_setting(method: str, setting: Setting, shift: str) -> None:
    """Adapt to half a of a shifted strip and score half b."""
    path = RESULTS / SEARCH / f"{method}-{name_of(setting)}-{shift}.json"
    if path.exists():
        return
    seed = PROTOCOL["search"]["seed"]
    data, start = demo_data(WORK), source(seed)
    keys = {**PROTOCOL["search"]["schedule"], **setting}
    words = {"method": method, "train.seed": seed, **keys, **_UNWATCHED}
    bundle = adapt(WORK / "search" / path.stem, data, start, f"strip_{shift}_a_adapt", words)
    before, after = (ap50(match(detect(each, data, [f"strip_{shift}_b"]))) for each in (start, bundle))
    told = {"method": method, "shift": shift, "settings": keys, "ap50": after, "source_ap50": before}
    write_result(path, study=SEARCH, protocol=STUDY.protocol_hash(), **told, command=COMMAND)


def cell(method: str, target: str, seed: int) -> None:
    """Adapt to each half, score the other, and pool."""
    path = RESULTS / STUDY.name / f"{method}-{target}-{seed}.json"
    if path.exists():
        return
    data, start = demo_data(WORK), source(seed)
    settings = {**PROTOCOL["schedule"], **best_setting(method), **PROTOCOL["methods"][method]}
    words = {"method": method, "train.seed": seed, **settings, **_UNWATCHED}
    scored: Scored = []
    for seen, kept in (PROTOCOL["targets"][target], PROTOCOL["targets"][target][::-1]):
        scored += detect(adapt(WORK / f"{method}-{seen}-{seed}", data, start, f"{seen}_adapt", words), data, [kept])
    # The same seed gives another source model on another processor: the one that this cell started from is scored too.
    before = ap50(match(detect(start, data, PROTOCOL["targets"][target])))
    told = {"method": method, "target": target, "seed": seed, "settings": settings, "source_ap50": before}
    write_result(path, study=STUDY.name, protocol=STUDY.protocol_hash(), **told, **facts(scored), command=COMMAND)


def main() -> int:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default=",".join(map(str, PROTOCOL["seeds"])))
    arguments = parser.parse_args()
    seeds = [int(each) for each in arguments.seeds.split(",")]
    search = PROTOCOL["search"]
    grid = {key: search[key] for key in ("optim.lr", "pseudo_labels.threshold")}
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    demo_data(WORK)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        run_cells(pool, source, [(seed,) for seed in {search["seed"], *seeds}])
        run_cells(pool, try_setting, itertools.product(search["methods"], settings, search["shifts"]))
        for seed in seeds:
            run_cells(
                pool, cell, [(method, target, seed) for target in PROTOCOL["targets"] for method in PROTOCOL["methods"]]
            )
    print(json.dumps({path.stem: round(json.loads(path.read_text())["ap50"], 1) for path in _results()}, indent=1))
    return 0


def _results() -> list[Path]:
    return sorted((RESULTS / STUDY.name).glob("*.json"))


if __name__ == "__main__":
    sys.exit(main())
