"""The study behind the table in docs/sfod.md: five seeds, two sources, three methods, four targets, two folds.

``make bench-sfod-trees ARGS='--workers 2 --seeds 0,1'`` resumes per cell; ``claims.py`` makes the table. What it
does is fixed in ``protocols/sfod_trees.yaml``.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.sfod.runs import Scored, adapt, demo_data, detect, facts, run, run_cells
from benchmarks.sfod.tables import STUDY
from benchmarks.studies import RESULTS

PROTOCOL = STUDY.protocol()
WORK = STUDY.work_folder()


def train_source(name: str, seed: int) -> Path:
    """Train a source model of a seed, unless it is there."""
    words = [f"{key}={value}" for key, value in PROTOCOL["sources"][name].items()]
    data = demo_data(WORK)
    out = WORK / f"{name}-{seed}"
    return run(out, [f"data.root={data}", f"train.seed={seed}", *words], Path("configs/sfod/demo_source.yaml"))


def source_cells(name: str, seed: int) -> None:
    """Score a source model on every target."""
    missing = [target for target in PROTOCOL["targets"] if not STUDY.cell_file(name, target, seed).exists()]
    bundle = train_source(name, seed)
    for target in missing:
        scored = detect(bundle, demo_data(WORK), PROTOCOL["targets"][target])
        _write(name, target, seed, scored, PROTOCOL["sources"][name])


def adapted_cell(method: str, target: str, seed: int) -> None:
    """Adapt to each half, score the other, and pool."""
    if STUDY.cell_file(method, target, seed).exists():
        return
    data = demo_data(WORK)
    settings = {**PROTOCOL["schedule"], **PROTOCOL["methods"][method]}
    source = WORK / f"source-{seed}" / "model"
    scored: Scored = []
    for seen, kept in (PROTOCOL["targets"][target], PROTOCOL["targets"][target][::-1]):
        keys = {"method": method, "train.seed": seed, **settings}
        scored += detect(adapt(WORK / f"{method}-{seen}-{seed}", data, source, f"{seen}_adapt", keys), data, [kept])
    _write(method, target, seed, scored, settings)


def _write(method: str, target: str, seed: int, scored: Scored, settings: Mapping[str, object]) -> None:
    cell = {"method": method, "target": target, "seed": seed}
    STUDY.write_cell(cell, settings=settings, **facts(scored), command="make bench-sfod-trees")


def main() -> int:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default=",".join(map(str, PROTOCOL["seeds"])))
    arguments = parser.parse_args()
    demo_data(WORK)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for seed in map(int, arguments.seeds.split(",")):
            run_cells(pool, source_cells, [(name, seed) for name in PROTOCOL["sources"]])
            cells = [(method, target, seed) for target in PROTOCOL["targets"] for method in PROTOCOL["methods"]]
            run_cells(pool, adapted_cell, cells)
    results = sorted((RESULTS / STUDY.name).glob("*.json"))
    print(json.dumps({path.stem: round(json.loads(path.read_text())["ap50"], 1) for path in results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
