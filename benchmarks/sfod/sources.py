"""The study ``sfod-sources``: an ordinary and a strong source model, and what adaptation adds to either.

``make bench-sfod-sources ARGS='--workers 2 --seeds 0,1'`` resumes per cell: first the search of epochs on source_val,
then that of labels an image on shifts of a strip that nothing else sees, then the cells with what was found. What it
does is fixed in ``protocols/sfod_sources.yaml``.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.sfod.more_tables import name_of
from benchmarks.sfod.runs import Scored, adapt, ap50, demo_data, detect, facts, match, run, run_cells
from benchmarks.sfod.sources_tables import LABELS, METHODS, NAMES, SEARCH, STUDY, Setting, best_epochs, label_gains
from benchmarks.studies import RESULTS, write_result

PROTOCOL = STUDY.protocol()
WORK = STUDY.work_folder()
COMMAND = "make bench-sfod-sources"
# A run whose teacher finds nothing, or collapses, is a cell like others; numbers without labels choose nothing here.
_UNWATCHED = {"pseudo_labels.on_nothing": "continue", "pseudo_labels.collapse_guard": False, "verdict.images": 0}


def train(source: str, seed: int, epochs: int) -> Path:
    """Train a source model of a seed, unless it is there."""
    words = [f"data.root={demo_data(WORK)}", f"train.seed={seed}", f"train.epochs={epochs}"]
    return run(WORK / f"{source}-{epochs}-{seed}", words, Path(PROTOCOL["sources"][source]))


def try_epochs(source: str, epochs: int) -> None:
    """Train on the source's tiles and score its own validation list."""
    path = RESULTS / SEARCH / f"{source}-{epochs}.json"
    if path.exists():
        return
    seed = PROTOCOL["search"]["seed"]
    scored = detect(train(source, seed, epochs), demo_data(WORK), ["source_val"])
    told = {"source": source, "epochs": epochs, "seed": seed, "ap50": ap50(match(scored))}
    write_result(path, study=SEARCH, protocol=STUDY.protocol_hash(), **told, command=COMMAND)


def try_labels(setting: Setting, shift: str) -> None:
    """Adapt the ordinary source to half a of a shifted strip and score half b."""
    search = PROTOCOL["labels"]
    path = RESULTS / LABELS / f"{name_of(setting)}-{shift}.json"
    if path.exists():
        return
    data, start = demo_data(WORK), train("ordinary", search["seed"], best_epochs("ordinary"))
    keys = {**PROTOCOL["schedule"], **setting}
    words = {"method": search["method"], "train.seed": search["seed"], **keys, **_UNWATCHED}
    bundle = adapt(WORK / "labels" / path.stem, data, start, f"strip_{shift}_a_adapt", words)
    before, after = (ap50(match(detect(each, data, [f"strip_{shift}_b"]))) for each in (start, bundle))
    told = {"shift": shift, "settings": keys, "ap50": after, "source_ap50": before}
    write_result(path, study=LABELS, protocol=STUDY.protocol_hash(), **told, command=COMMAND)


def source_cells(source: str, seed: int) -> None:
    """Score a source model on clean tiles and on every target."""
    lists = {"clean": PROTOCOL["clean"], **PROTOCOL["targets"]}
    wanted = {target: splits for target, splits in lists.items() if not STUDY.cell_file(source, target, seed).exists()}
    bundle = train(source, seed, best_epochs(source))
    for target, splits in wanted.items():
        _write(source, target, seed, detect(bundle, demo_data(WORK), splits), {})


def adapted_cell(source: str, method: str, target: str, seed: int) -> None:
    """Adapt to each half, score the other, and pool."""
    model = f"{source}+{method}"
    if STUDY.cell_file(model, target, seed).exists():
        return
    data, start = demo_data(WORK), train(source, seed, best_epochs(source))
    settings = {**PROTOCOL["schedule"], **label_gains()[0][0]}
    words = {"method": method, "train.seed": seed, **settings, **_UNWATCHED}
    scored: Scored = []
    for seen, kept in (PROTOCOL["targets"][target], PROTOCOL["targets"][target][::-1]):
        scored += detect(adapt(WORK / f"{model}-{seen}-{seed}", data, start, f"{seen}_adapt", words), data, [kept])
    _write(model, target, seed, scored, settings)


def main() -> int:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default=",".join(map(str, PROTOCOL["seeds"])))
    arguments = parser.parse_args()
    labels = PROTOCOL["labels"]
    grid = {key: labels[key] for key in ("pseudo_labels.per_image", "optim.lr")}
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    demo_data(WORK)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        tries = itertools.product(sorted(PROTOCOL["search"]["train.epochs"], reverse=True), NAMES)  # the longest first
        run_cells(pool, try_epochs, [(source, epochs) for epochs, source in tries])
        run_cells(pool, try_labels, itertools.product(settings, labels["shifts"]))
        for seed in map(int, arguments.seeds.split(",")):
            run_cells(pool, source_cells, [(source, seed) for source in NAMES])
            run_cells(pool, adapted_cell, itertools.product(NAMES, METHODS, PROTOCOL["targets"], [seed]))
    rows = sorted((RESULTS / STUDY.name).glob("*.json"))
    print(json.dumps({path.stem: round(json.loads(path.read_text())["ap50"], 1) for path in rows}, indent=1))
    return 0


def _write(model: str, target: str, seed: int, scored: Scored, settings: Mapping[str, object]) -> None:
    cell = {"model": model, "target": target, "seed": seed}
    STUDY.write_cell(cell, settings=settings, **facts(scored), command=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
