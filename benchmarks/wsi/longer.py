"""A control of the study of slides: the networks alone, trained on for as many epochs as MHIM trains.

``make bench-wsi-longer`` goes on from the plain cells of ``make bench-wsi-slides`` and resumes per cell; fixed in
``protocols/wsi_longer.yaml``.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

from benchmarks.studies import RESULTS
from benchmarks.wsi.longer_tables import PROTOCOL, STUDY
from benchmarks.wsi.slides import train_folds, write_areas

WORKERS = 2


def longer_cell(network: str, seed: int) -> None:
    """Train all folds of a network on from where the plain one ended, and pool them."""
    path = RESULTS / STUDY.name / f"{network}-{seed}.json"
    if not path.exists():
        found, cost = train_folds((network, "plain", seed), "longer", goes_on=True)
        write_areas(path, STUDY, found, network=network, seed=seed, **cost)


def main() -> int:
    """Run the cells that are missing."""
    cells = list(product(PROTOCOL["networks"], PROTOCOL["seeds"]))
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"), max_tasks_per_child=1) as workers:
        list(workers.map(longer_cell, *zip(*cells, strict=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
