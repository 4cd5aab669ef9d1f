"""The study ``sfod-scenes``: adaptation with ten classes on composed scenes, and the choice among teachers.

``make bench-sfod-scenes ARGS='--workers 2 --seeds 0'`` resumes per cell: first the search of epochs on the sources' own
validation scenes, then that of rate and labels an image on shifts and objects that nothing else sees, then the cells.
What it does is fixed in ``protocols/sfod_scenes.yaml``. Needs a package of Debian; its absence is refused with the line
that installs it. ``ARGS='--trial mt/fog/0 --steps 20'`` runs one cell for a few steps and writes no result.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ovd.scenes.measures import Matched, match_class, weighted_ap
from benchmarks.sfod.more_tables import name_of
from benchmarks.sfod.runs import adapt, run, run_cells
from benchmarks.sfod.scenes.data import make_scenes
from benchmarks.sfod.scenes.tables import LABELS, SEARCH, STUDY, Cell, best_epochs, best_setting, cells
from benchmarks.studies import RESULTS, write_result
from pipelines.sfod.config import TEACHING
from pipelines.sfod.outcome.selection import JSON_FILE
from pipelines.sfod.predict import SfodPredictor
from pipelines.sfod.verdict.comparing import load_model
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.evaluation import detect_all
from vision_core.detection.settings import DetectionData
from vision_core.environment import peak_resident_mib
from vision_core.randomness import key
from vision_core.runs.kept_teachers import list_kept, load_kept

PROTOCOL = STUDY.protocol()
WORK = STUDY.work_folder()
COMMAND = "make bench-sfod-scenes"
CPU = torch.device("cpu")
# A run whose teacher finds nothing, or collapses, is a cell like others; its last teacher is scored.
_UNWATCHED = {"pseudo_labels.on_nothing": "continue", "pseudo_labels.collapse_guard": False, "verdict.images": 0}

Floats = NDArray[np.float64]


def source(kind: str, seed: int, epochs: int | None = None) -> Path:
    """A source model, trained unless it is there; of the epochs that the search found if not told."""
    epochs = best_epochs(kind) if epochs is None else epochs
    data = {"data.root": make_scenes(WORK, PROTOCOL), "data.format": "coco", "data.split": "source"}
    data |= {"data.eval_split": "val", "data.synthetic": True, "method": "source"}
    settings = {**PROTOCOL["detector"], **PROTOCOL["source_training"], **PROTOCOL["sources"][kind]}
    settings |= {"train.epochs": epochs, "train.eval_every": epochs, "train.seed": seed}
    return run(WORK / f"{kind}-{epochs}-{seed}", [f"{name}={value}" for name, value in {**data, **settings}.items()])


def try_epochs(kind: str, epochs: int) -> None:
    """Train, and score the source's own validation scenes."""
    path = RESULTS / SEARCH / f"{kind}-{epochs}.json"
    if path.exists():
        return
    seed = PROTOCOL["source_search"]["seed"]
    scored = Scored("val")
    told = {
        "source": kind,
        "epochs": epochs,
        "seed": seed,
        "ap50": scored.of_bundle(source(kind, seed, epochs))["ap50"],
    }
    write_result(path, study=SEARCH, protocol=STUDY.protocol_hash(), **told, command=COMMAND)


def try_setting(setting: dict[str, float], shift: str) -> None:
    """Adapt the strong source under a shift of the search, and score other scenes of the same objects."""
    path = RESULTS / LABELS / f"{name_of(setting)}-{shift}.json"
    if path.exists():
        return
    search = PROTOCOL["search"]
    start, scored = source("strong", search["seed"]), Scored(f"{shift}_search_test")
    words = {"method": search["method"], "train.seed": search["seed"], **PROTOCOL["adaptation"], **setting}
    words |= {"data.format": "coco", **_UNWATCHED}
    out = WORK / "search" / path.stem
    bundle = adapt(out, make_scenes(WORK, PROTOCOL), start, f"{shift}_search_adapt", words)
    before, after = (scored.of_bundle(each)["ap50"] for each in (start, bundle))
    told = {"shift": shift, "settings": setting, "ap50": after, "source_ap50": before}
    write_result(path, study=LABELS, protocol=STUDY.protocol_hash(), **told, command=COMMAND)


def source_cell(kind: str, seed: int) -> None:
    """Score a source on scenes without a shift and under each."""
    path = RESULTS / STUDY.name / f"source_{kind}-{seed}.json"
    if path.exists():
        return
    lists = {"clean": "test", **{shift: f"{shift}_test" for shift in PROTOCOL["shifts"]}}
    bundle = source(kind, seed)
    scores = {shift: Scored(name).of_bundle(bundle)["ap50"] for shift, name in lists.items()}
    told = {"row": f"source_{kind}", "seed": seed, "ap50": scores}
    write_result(path, study=STUDY.name, protocol=STUDY.protocol_hash(), **told, command=COMMAND)


def cell(which: Cell, steps: int | None = None) -> None:
    """Adapt, and score the source, each kept teacher and the last one; a trial of a few steps is printed alone."""
    path = RESULTS / STUDY.name / f"{which.name}.json"
    if path.exists() and steps is None:
        return
    begun, row = time.process_time(), PROTOCOL["rows"][which.row]
    start, settings = source(row.get("source", "strong"), which.seed), settings_of(which)
    settings |= {} if steps is None else {"train.max_steps": steps}
    out = WORK / (which.name if steps is None else f"{which.name}-{steps}")
    adapt(out, make_scenes(WORK, PROTOCOL), start, f"{which.shift}_adapt", {**settings, **_UNWATCHED})
    candidates = score_candidates(out, start, Scored(f"{which.shift}_test"))
    facts = {
        "row": which.row,
        "shift": which.shift,
        "seed": which.seed,
        "settings": {name: value for name, value in settings.items() if name != "data.format"},
        "candidates": candidates,
        **_selection(out),
        **_labels(out),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "peak_mib": peak_resident_mib(),
    }
    if steps is not None:
        print(json.dumps(facts, indent=1))
        return
    write_result(path, study=STUDY.name, protocol=STUDY.protocol_hash(), **facts, command=COMMAND)


def settings_of(which: Cell) -> dict[str, Any]:
    """All settings of an adaptation that are not defaults."""
    row = PROTOCOL["rows"][which.row]
    settings = {"data.format": "coco", "method": row["method"], "train.seed": which.seed, **PROTOCOL["adaptation"]}
    settings |= best_setting()
    if row.get("labels") == "published":
        settings.pop("pseudo_labels.per_image")
    if row["method"] == "bn":  # one pass, without labels and without a rate
        return {name: settings[name] for name in ("data.format", "method", "train.seed", "train.batch_size")}
    if row["method"] in TEACHING - {"fixed_pl"}:
        settings |= {"verdict.select": True}
    return settings


def score_candidates(out: Path, start: Path, scored: "Scored") -> list[dict[str, Any]]:
    """Score the source (step 0), kept teachers and the last state, each with its difference to the source."""
    model = load_model(start, CPU)
    before = scored.of_bundle(start)
    found: list[dict[str, Any]] = [{"step": 0, **scored.told(before)}]
    kept = list_kept(out)
    for step, path in kept.items():
        model.detector.load_state_dict(load_kept(path))
        after = scored.of(SfodPredictor(model.detector, model.card, CPU))
        found.append({"step": step, **scored.told(after, before)})
    if not kept:
        found.append({"step": None, **scored.told(scored.of_bundle(out / "model"), before)})
    return found


class Scored:
    """A labelled list, with what is computed of a detector on it.

    Args:
        name: Of the list.
    """

    def __init__(self, name: str) -> None:
        self._root, self._name = make_scenes(WORK, PROTOCOL), name
        self._dataset: DetectionDataset | None = None
        count = len(self.dataset.records)
        places = np.arange(count)
        draws = np.random.default_rng(key("resample", name)).multinomial(
            count, np.full(count, 1 / count), PROTOCOL["resamples"]
        )
        self._weights = np.concatenate([np.ones((1, count)), [places % 2 == 0, places % 2 == 1], draws]).astype(float)

    @property
    def dataset(self) -> DetectionDataset:
        """The list with its boxes."""
        if self._dataset is None:
            data = DetectionData(root=self._root, format="coco")
            self._dataset = read_dataset(data, self._name, with_labels=True)
        return self._dataset

    def of_bundle(self, bundle: Path) -> dict[str, Any]:
        """Score a bundle; see ``of``."""
        return self.of(SfodPredictor.from_checkpoint(bundle))

    def of(self, predictor: SfodPredictor) -> dict[str, Any]:
        """COCO AP50 in percent of a detector: of all scenes, of those of even and of odd number, and of resamples."""
        torch.set_num_threads(1)
        records = self.dataset.records
        found = detect_all(predictor, self.dataset, self._name)
        nowhere = [[0] * len(record.labels) for record in records]
        matched = [match_class(records, found, label, nowhere) for label in range(len(self.dataset.classes))]
        values = [_mean_ap(matched, weights) for weights in self._weights]
        return {"ap50": values[0], "ap50_halves": values[1:3], "resamples": np.array(values[3:])}

    def told(self, after: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a result file holds of a score, with the 95 % interval of its difference to the source."""
        told = {name: after[name] for name in ("ap50", "ap50_halves")}
        if before is not None:
            low, high = np.percentile(after["resamples"] - before["resamples"], [2.5, 97.5])
            told["difference"] = [round(float(low), 3), round(float(high), 3)]
        return told


def _mean_ap(matched: Sequence[Matched], weights: Floats) -> float:
    values = [weighted_ap(each, weights, np.ones(1)) for each in matched]
    return round(100 * float(np.mean([value for value in values if value is not None])), 3)


def _selection(out: Path) -> dict[str, Any]:
    """The choice without labels of a run that made one."""
    path = out / JSON_FILE
    if not path.exists():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    return {"selected": record["selected"], "without_labels": record["candidates"]}


def _labels(out: Path) -> dict[str, Any]:
    """Pseudo labels an image in the first ten steps and over the run, and updates of the run."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    labels = [line["hpl_per_image"] for line in lines if "hpl_per_image" in line]
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    told = {"updates": facts.get("updates")}
    return told | (
        {"labels_first": float(np.mean(labels[:10])), "labels_mean": float(np.mean(labels))} if labels else {}
    )


def main() -> int:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", help="some of them, with commas")
    parser.add_argument("--trial", metavar="ROW/SHIFT/SEED", help="one cell, which writes no result")
    parser.add_argument("--steps", type=int, default=20, help="of a trial")
    arguments = parser.parse_args()
    make_scenes(WORK, PROTOCOL)
    if arguments.trial:
        row, shift, seed = arguments.trial.split("/")
        cell(Cell(row=row, shift=shift, seed=int(seed)), arguments.steps)
        return 0
    seeds = None if arguments.seeds is None else set(map(int, arguments.seeds.split(",")))
    chosen = [each for each in cells() if seeds is None or each.seed in seeds]
    kinds = {(PROTOCOL["rows"][each.row].get("source", "strong"), each.seed) for each in chosen}
    search = PROTOCOL["search"]
    grid = {name: search[name] for name in ("optim.lr", "pseudo_labels.per_image")}
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        tries = sorted(PROTOCOL["source_search"]["train.epochs"], reverse=True)
        run_cells(pool, try_epochs, [(kind, epochs) for epochs in tries for kind in PROTOCOL["sources"]])
        run_cells(pool, try_setting, itertools.product(settings, PROTOCOL["search_shifts"]))
        run_cells(pool, source_cell, sorted(kinds, key=lambda each: each[1]))
        run_cells(pool, cell, [(each,) for each in chosen])
    return 0


if __name__ == "__main__":
    sys.exit(main())
