"""What the tree-crown studies share: ordinary runs of ``pipelines.sfod`` on one thread, and detections of halves."""

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.sfod.__main__ import main as sfod
from pipelines.sfod.demo.demo_data import make_demo_data
from pipelines.sfod.predict import SfodPredictor
from vision_core.detection.average_precision import Matches, eleven_points, match_image, pool_matches, recall_precision
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.evaluation import detect_all
from vision_core.detection.settings import DetectionData
from vision_core.results import Detections

Scored = list[tuple[DetectionDataset, list[Detections]]]


def demo_data(folder: Path) -> Path:
    """Make the demo's data below ``folder``, once."""
    data = folder / "data"
    if not (data / "ATTRIBUTION.txt").exists():
        make_demo_data(data)
    return data


def run(out: Path, words: Sequence[str], config: Path | None = None) -> Path:
    """Train with these words, on one thread, unless it is done; returns the bundle.

    Raises:
        RuntimeError: The run failed.
    """
    torch.set_num_threads(1)
    done = out / "run.json"
    if done.exists() and json.loads(done.read_text(encoding="utf-8")).get("status") == "done":
        return out / "model"
    options = ["--config", str(config)] if config else []
    code = sfod(["train", *options, "--out", str(out), "--overwrite", "--device", "cpu", *words])
    if code:
        raise RuntimeError(f"{out}: exit code {code}")
    return out / "model"


def adapt(out: Path, data: Path, source: Path, split: str, settings: Mapping[str, object]) -> Path:
    """Adapt a source bundle to the images of ``split``, unless it is done; returns the bundle."""
    words = [f"data.root={data}", f"data.split={split}", f"source.weights={source}"]
    return run(out, [*words, *(f"{key}={value}" for key, value in settings.items())])


def run_cells(pool: Executor, task: Callable[..., object], cells: Iterable[tuple[Any, ...]]) -> None:
    """Run a task on every cell; one that fails is told and stops no other.

    Raises:
        RuntimeError: Some failed.
    """
    failed = 0
    for arguments, future in [(arguments, pool.submit(task, *arguments)) for arguments in cells]:
        try:
            future.result()
        except Exception:  # of any kind: hours of other cells are not lost with it
            traceback.print_exc()
            print(f"{task.__name__} failed for {arguments}; the others go on", file=sys.stderr)
            failed += 1
    if failed:
        raise RuntimeError(f"{task.__name__} failed for {failed} cells, see above")


def detect(bundle: Path, data: Path, splits: Sequence[str]) -> Scored:
    """Detect with a bundle on labelled lists; returns both."""
    torch.set_num_threads(1)
    predictor = SfodPredictor.from_checkpoint(bundle)
    settings = DetectionData(root=data, classes=predictor.card.classes)
    sets = [read_dataset(settings, split, with_labels=True) for split in splits]
    return [(each, detect_all(predictor, each, f"{bundle.parent.name} on {each.name}")) for each in sets]


def facts(scored: Scored) -> dict[str, object]:
    """Collect what a result file says of scored lists: boxes, AP50 pooled and of each list, its interval."""
    matches = match(scored)
    return {
        "images": len(matches),
        "boxes": boxes(scored),
        "ap50": ap50(matches),
        "ap50_halves": [ap50(match([half])) for half in scored],
        "interval": bootstrap(matches),
    }


def match(scored: Scored) -> list[Matches]:
    """Match every tile's detections with its boxes, in the order of the lists."""
    return [
        match_image(record, found, 0, dataset.classes[0])
        for dataset, detections in scored
        for record, found in zip(dataset.records, detections, strict=True)
    ]


def ap50(matches: Sequence[Matches]) -> float:
    """Compute the VOC-2007 AP50 over tiles, in percent."""
    num_truths, outcomes = pool_matches(matches)
    return 100 * eleven_points(*recall_precision(outcomes, num_truths)) if num_truths else 0.0


def bootstrap(matches: Sequence[Matches], resamples: int = 1000) -> tuple[float, float]:
    """Compute a 95 % percentile interval of the pooled AP50 over resampled tiles."""
    draw = np.random.default_rng(0)
    count = len(matches)
    values = [ap50([matches[tile] for tile in draw.integers(0, count, count)]) for _ in range(resamples)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def boxes(scored: Scored) -> int:
    """Count the labelled boxes that are scored."""
    return int(sum((~record.difficult).sum() for dataset, _ in scored for record in dataset.records))
