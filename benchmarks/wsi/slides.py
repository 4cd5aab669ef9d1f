"""The study behind the table in docs/wsi.md: three networks, plain and under both versions of MHIM, three seeds.

``make bench-wsi-slides ARGS='--workers 2 --seeds 0'`` resumes per cell; ``claims.py`` makes the table. What it does is
fixed in ``protocols/wsi_slides.yaml``. All pixels come from one slide and the alteration is synthetic: an illustration.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.studies import RESULTS, Study, write_result
from benchmarks.wsi.tables import CONTROL, STUDY
from pipelines.wsi.__main__ import main as wsi
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.demo.demo_data import make_demo_data
from pipelines.wsi.evaluation.predictions import PREDICTIONS, Predictions, pool, read_predictions
from pipelines.wsi.evaluation.scores import score
from vision_core.config.loading import load
from vision_core.environment import peak_resident_mib
from vision_core.files import write_atomic
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tiling import tile_grid
from vision_core.slides.tissue.segmentation import find_tissue

PROTOCOL = STUDY.protocol()
WORK = STUDY.work_folder()
DATA = WORK / "data"
CONFIG = Path(PROTOCOL["config"])
_COST = "cost.json"  # of a fold that is done

Cell = tuple[str, str, int]


def prepare() -> None:
    """Make the slides and the features of their tiles, once."""
    if not (DATA / "ATTRIBUTION.txt").exists():
        make_demo_data(DATA)
    _run(["features", "--config", str(CONFIG), "--input", str(DATA / "slides"), "--out", str(DATA / "features")])


def network_cell(cell: Cell) -> None:
    """Train all folds of a network under a method and pool them; beside its teacher's runs, if there are any."""
    network, method, seed = cell
    path = RESULTS / STUDY.name / f"{network}-{method}-{seed}.json"
    if path.exists():
        return
    found, cost = train_folds(cell, method, goes_on=method != "plain")
    write_areas(path, STUDY, found, network=network, method=method, seed=seed, **cost)


def colour_cell() -> None:
    """Score by colour alone, by logistic regression over the same folds."""
    path = RESULTS / STUDY.name / f"{CONTROL}.json"
    if path.exists():
        return
    with (DATA / "labels.csv").open(encoding="utf-8", newline="") as file:
        slides = list(csv.DictReader(file))
    colours = np.stack([colours_of(DATA / "slides" / f"{row['slide']}.tif") for row in slides])
    classes = tuple(PROTOCOL_CONFIG.data.classes)
    labels = np.array([classes.index(row["label"]) for row in slides], np.int64)
    folds = np.array([int(row["fold"]) for row in slides])
    shares = np.empty((len(slides), 2))
    for fold in range(PROTOCOL["folds"]):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        shares[folds == fold] = model.fit(colours[folds != fold], labels[folds != fold]).predict_proba(
            colours[folds == fold]
        )
    found = Predictions(
        slides=tuple(row["slide"] for row in slides),
        patients=tuple(row["patient"] for row in slides),
        labels=labels,
        probabilities=shares,
        called=shares.argmax(axis=1).astype(np.int64),
        classes=classes,
    )
    write_areas(path, STUDY, found, network=None, method=CONTROL, seed=None)


def colours_of(path: Path) -> NDArray[np.float64]:
    """Compute mean and spread ``(6,)`` of red, green and blue over the pixels of a slide's tiles."""
    with open_slide(path) as slide:
        tiles = tile_grid(slide, find_tissue(slide, PROTOCOL_CONFIG.tissue), PROTOCOL_CONFIG.tiles)
        pixels = [slide.read(tiles.level, int(x), int(y), tiles.read_px, tiles.read_px) for x, y in tiles.corners]
    values = np.stack(pixels).reshape(-1, 3).astype(np.float64)
    return np.concatenate([values.mean(axis=0), values.std(axis=0)])


def train_folds(cell: Cell, name: str, *, goes_on: bool) -> tuple[Predictions, dict[str, float]]:
    """Train on every fold, unless that is done.

    Args:
        cell: Network, method and seed.
        name: What the runs are called, beside network and seed.
        goes_on: Begin with the plain network of the same fold and seed.

    Returns:
        What the runs say of their test folds, all together; the mean of their CPU seconds and the highest of their
        peaks of memory, as facts of the result.
    """
    torch.set_num_threads(1)
    network, _, seed = cell
    folders = []
    for fold in range(PROTOCOL["folds"]):
        source = _folder(network, "plain", seed, fold) / "model" if goes_on else None
        folders.append(_train(_folder(network, name, seed, fold), cell, fold, source))
    found = pool([read_predictions(folder / "pictures" / PREDICTIONS) for folder in folders])
    costs = [json.loads((folder / _COST).read_text(encoding="utf-8")) for folder in folders]
    seconds = float(np.mean([cost["cpu_seconds"] for cost in costs]))
    return found, {"cpu_seconds_per_fold": seconds, "peak_mib": max(cost["peak_mib"] for cost in costs)}


def _train(out: Path, cell: Cell, fold: int, source: Path | None) -> Path:
    if (out / _COST).exists():
        return out
    network, method, seed = cell
    settings = {
        **PROTOCOL["settings"],
        **PROTOCOL["of_network"].get(network, {}),
        **PROTOCOL["of_method"].get(method, {}),
        "method": method,
        "model.name": network,
        # As the plain networks have it, from which MHIM begins; v2 as released has GELU.
        "model.embedding.activation": "relu",
        "data.root": DATA / "slides",
        "data.labels": DATA / "labels.csv",
        "data.features": DATA / "features" / "outputs",
        "data.format": "features",
        "data.folds": PROTOCOL["folds"],
        "data.fold": fold,
        "train.seed": seed,
    }
    if source:
        settings["source.weights"] = source
    words = [f"{key}={value}" for key, value in settings.items()]
    begun = time.process_time()
    _run(["train", "--config", str(CONFIG), "--out", str(out), "--overwrite", "--device", "cpu", *words])
    cost = {"cpu_seconds": round(time.process_time() - begun, 1), "peak_mib": peak_resident_mib()}
    write_atomic(out / _COST, json.dumps(cost))
    return out


def _folder(network: str, name: str, seed: int, fold: int) -> Path:
    return WORK / f"{network}-{name}-{seed}" / f"fold-{fold}"


def _run(words: Sequence[str]) -> None:
    code = wsi(list(words))
    if code:
        raise RuntimeError(f"{' '.join(words)}: exit code {code}")


def write_areas(path: Path, study: Study, found: Predictions, **facts: Any) -> None:  # noqa: ANN401 (what it holds)
    """Write the result file of a cell of a study."""
    row = score("pooled", "all folds", found)
    assert row.metrics["auc"] is not None
    write_result(
        path,
        study=study.name,
        protocol=study.protocol_hash(),
        **facts,
        slides=len(found),
        patients=len(set(found.patients)),
        auc=100 * row.metrics["auc"],
        interval=[100 * edge for edge in row.intervals["auc"]],
        macro_accuracy=row.metrics["macro_accuracy"],
        command=f"make bench-{study.name}",
        synthetic="recomposed pixels of one slide, altered nuclei",
    )


PROTOCOL_CONFIG = load(WsiConfig, CONFIG)


def main() -> int:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default=",".join(map(str, PROTOCOL["seeds"])))
    arguments = parser.parse_args()
    prepare()
    colour_cell()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    # Each cell in a process of its own, for its peak of memory; plain networks first, as they are the teachers.
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as workers:
        others = [each for each in PROTOCOL["methods"] if each != "plain"]
        for networks, methods in product((("abmil", "dsmil"), ("transmil",)), (["plain"], others)):
            list(workers.map(network_cell, product(networks, methods, seeds)))
    results = sorted((RESULTS / STUDY.name).glob("*.json"))
    print(json.dumps({path.stem: round(json.loads(path.read_text())["auc"], 1) for path in results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
