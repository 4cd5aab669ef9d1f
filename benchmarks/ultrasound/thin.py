"""Whether the thin U-Net keeps the Dice of the standard one on the phantom: three seeds of each. All synthetic.

``make bench-ultrasound-thin`` resumes per cell, each in a process and on a thread of its own, and prints what they cost
and the table; ``ARGS=--check`` exits 1 unless all cells are there and the thin one is within a point. Fixed in
``protocols/ultrasound_thin.yaml``.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

from benchmarks.studies import RESULTS, write_result
from benchmarks.ultrasound import cells
from benchmarks.ultrasound.cells import Cell, columns_of
from benchmarks.ultrasound.phantom import Bench, prepare_frames, train, words_of
from benchmarks.ultrasound.thin_tables import CELLS, PROTOCOL, STUDY, is_within, table
from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.evaluation.rows import Models, score_list
from pipelines.ultrasound.phantom.study import NOTICE
from pipelines.ultrasound.segment import ModelMasks
from pipelines.ultrasound.weights.bundles import SegmentModel, load_network
from vision_core.console import say

_TEST = "test"


def as_phantom(bench: Bench, network: str) -> Bench:
    """Return the study of the phantom with this one's data and settings, and a network of it as its segmenter."""
    main, own = cells.PROTOCOL, bench.protocol
    changed = {
        **{name: own[name] for name in ("subjects", "frames", "size_px")},
        "networks": {**main["networks"], "segmenter": own["networks"][network]},
        "settings": {**main["settings"], **own["settings"]},
    }
    return replace(bench, protocol={**main, **changed})


def run_cell(bench: Bench, network: str, seed: int) -> tuple[str, float]:
    """Train a network and score it on the test list; returns its name and CPU seconds."""
    begun, name = time.process_time(), f"{network}-{seed}"
    out, cell = bench.work / name, Cell(seed, "all_frames", bench.protocol["labels"])
    words = words_of(as_phantom(bench, network), cell)
    is_resumed = train(out, words)
    model = load_network(out / "model", kind="segmenter").model
    assert isinstance(model, SegmentModel)
    frames = read_lists(UltrasoundData(root=bench.frames), [_TEST])[_TEST]
    found = score_list(frames, "observer_majority", Models(masking=ModelMasks(model)), name, with_distances=False)
    assert found.subjects is not None
    write_result(
        bench.path(name),
        study=STUDY.name,
        protocol=STUDY.protocol_hash(),
        synthetic=NOTICE,
        network=network,
        seed=seed,
        settings=[word for word in words if not word.startswith("data.root")],
        is_resumed=is_resumed,
        cpu_seconds=round(time.process_time() - begun, 1),
        subjects=" ".join(found.subjects),
        **columns_of({"present": found.present, "dice": found.dice, "areas": found.areas}),
        command=f"make bench-{STUDY.name}",
    )
    return name, time.process_time() - begun


def main() -> int:
    """Run the cells that are missing, print what they cost, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="run nothing; exit 1 unless it is within a point")
    arguments = parser.parse_args()
    bench = Bench(protocol=PROTOCOL, work=STUDY.work_folder(), results=RESULTS / STUDY.name)
    left = [cell for cell in CELLS if not bench.path("{}-{}".format(*cell)).exists()]
    if left and not arguments.check:
        prepare_frames(bench)
        with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as workers:
            for name, seconds in workers.map(run_cell, [bench] * len(left), *zip(*left, strict=True)):
                say(f"{name}: {seconds / 60:.1f} CPU minutes")
    print(table())
    return int(arguments.check and not is_within(STUDY.rows()))


if __name__ == "__main__":
    sys.exit(main())
