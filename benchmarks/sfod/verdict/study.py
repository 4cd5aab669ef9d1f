"""The meta-set of the verdict: differences of the numbers and of AP50 on corruptions of the source's strip.

``make bench-sfod-verdict ARGS='--workers 2'`` resumes per cell; ``ARGS=--fit`` fits on all cells and writes the rule.
What it does is fixed in ``protocols/sfod_verdict.yaml``.
"""

import argparse
import itertools
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sfod.runs import Scored, adapt, ap50, demo_data, match, run, run_cells
from benchmarks.sfod.sources_tables import best_epochs, label_gains
from benchmarks.sfod.verdict.strip import strip_data
from benchmarks.sfod.verdict.tables import STUDY, fitted
from benchmarks.studies import RESULTS, write_result
from pipelines.sfod.verdict.comparing import load_model
from pipelines.sfod.verdict.numbers import (
    BASELINES,
    NUMBERS,
    Source,
    boxes_per_image,
    compute_numbers,
    mirror_agreement,
)
from pipelines.sfod.verdict.probing import Prober
from pipelines.sfod.verdict.source import RULE_FILE, read_source, to_detections
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectionData
from vision_core.detection.weights.bundles import prepare
from vision_core.files import to_json, write_atomic
from vision_core.images.reading import read_image
from vision_core.runs.kept_teachers import list_kept, load_kept

PROTOCOL = STUDY.protocol()
WORK = STUDY.work_folder()
COMMAND = "make bench-sfod-verdict"
_UNWATCHED = {"pseudo_labels.on_nothing": "continue", "pseudo_labels.collapse_guard": False, "verdict.images": 0}


def source(name: str) -> Path:
    """A source model of the protocol's seed, trained unless it is there."""
    words = [f"data.root={demo_data(WORK)}", f"train.seed={PROTOCOL['seed']}", f"train.epochs={best_epochs(name)}"]
    return run(WORK / f"source-{name}", words, Path(PROTOCOL["sources"][name]))


def cells() -> list[tuple[str, str, str, str]]:
    """Source, method, setting and corruption of every cell; the first corruption first."""
    runs = [("strong", *each) for each in itertools.product(PROTOCOL["methods"], PROTOCOL["settings"])]
    runs.append(("ordinary", "mt", "good"))
    return [(*each, corruption) for corruption in PROTOCOL["corruptions"] for each in runs]


def cell(name: str, method: str, setting: str, corruption: str) -> None:
    """Adapt, and look at the source and at each kept teacher."""
    path = RESULTS / STUDY.name / f"{name}-{method}-{setting}-{corruption}.json"
    if path.exists():
        return
    data, start = strip_data(WORK), source(name)
    found = label_gains()[0][0] if setting in PROTOCOL["found"] else {}
    settings = {"method": method, **PROTOCOL["schedule"], **found, **PROTOCOL["settings"][setting]}
    out = WORK / path.stem
    adapt(out, data, start, f"strip_{corruption}_a_adapt", {**settings, "train.seed": PROTOCOL["seed"], **_UNWATCHED})
    model = load_model(start, torch.device("cpu"))
    known, _ = read_source(model.card)
    scored = read_dataset(
        DetectionData(root=data, classes=model.card.classes), f"strip_{corruption}_b", with_labels=True
    )
    rows: list[dict[str, Any]] = [{"step": 0, **look(model.detector, known, scored)}]
    for step, kept in list_kept(out).items():
        model.detector.load_state_dict(load_kept(kept))
        rows.append({"step": step, **look(model.detector, known, scored)})
    told: Mapping[str, Any] = {"source": name, "method": method, "setting": setting, "corruption": corruption}
    facts = {**told, "settings": settings, "seed": PROTOCOL["seed"], "candidates": rows, "command": COMMAND}
    write_result(path, study=STUDY.name, protocol=STUDY.protocol_hash(), **facts)


def look(detector: Detector, known: Source, scored: DetectionDataset) -> dict[str, Any]:
    """Numbers without labels, boxes an image by class and AP50 of a detector on a labelled list."""
    prober = Prober(detector, known.operating_score)
    probes, found = [], []
    for record in scored.records:
        pixels = read_image(record.path)
        image = prepare(pixels, detector.settings)
        probes.append(prober(image, record.path.name))
        found.append(to_detections(probes[-1], detector.classes, (image.shape[1], image.shape[2]), pixels.shape))
    numbers = compute_numbers(probes, known)
    pairs: Scored = [(scored, found)]
    return {
        "ap50": ap50(match(pairs)),
        "boxes_per_image": boxes_per_image(probes).tolist(),
        "mirror": mirror_agreement(probes),
        **{each: _finite(numbers[each][0]) for each in (*NUMBERS, *BASELINES)},
    }


def main() -> int:
    """Run the cells that are missing, or fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fit", action="store_true", help=f"fit the rule on all cells and write {RULE_FILE.name}")
    arguments = parser.parse_args()
    if arguments.fit:
        write_atomic(RULE_FILE, to_json(fitted()))
        return 0
    strip_data(WORK)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        run_cells(pool, source, [(name,) for name in PROTOCOL["sources"]])
        run_cells(pool, cell, cells())
    return 0


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
