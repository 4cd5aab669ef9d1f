"""The study of the open-vocabulary ladder on composed scenes: rows, choices of novel classes and seeds of two worlds.

``make bench-ovd-scenes ARGS='--workers 2 --seeds 0'`` resumes per cell; a cell that fails is told, and stops no other.
``claims.py`` makes the tables. What it does is fixed in ``protocols/ovd_scenes.yaml``.
``ARGS='--trial clothes/first/vl_plm/0 --steps 20'`` trains one cell for a few steps, scores it on the validation
scenes, and writes no result. Needs two packages of Debian; their absence is refused with the line that installs them.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.ovd.scenes.check import colour_check
from benchmarks.ovd.scenes.data import check_packages, make_image_text, make_label_files, make_scenes
from benchmarks.ovd.scenes.measures import (
    Remembering,
    candidate_rates,
    drift,
    embedded_regions,
    false_boxes,
    match_class,
    read_instances,
    resampled_ap50,
)
from benchmarks.ovd.scenes.tables import CHECK_LIMIT, STUDY, cells
from benchmarks.studies import RESULTS, write_result
from pipelines.ovd.__main__ import main as ovd
from pipelines.ovd.bundles import load_open_detector
from pipelines.ovd.config import ImageText, OvdConfig, OvdData, Predict, Proposals
from pipelines.ovd.data.reading import read_base
from pipelines.ovd.data.vocabulary_split import Split, split_classes
from pipelines.ovd.evaluation.scores import score_groups
from pipelines.ovd.image_text.loading import load_image_text
from pipelines.ovd.predict import OvdPredictor
from pipelines.ovd.pseudo_labels.label_file import read_labels
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.detection.evaluation import detect_all
from vision_core.errors import UserError
from vision_core.results import Detections

Protocol = dict[str, Any]
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of the ladder in one world, for one choice of novel classes and one seed."""

    world: str
    choice: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its result file."""
        return f"{self.world}-{self.choice}-{self.row}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a cell starts from.

    Attributes:
        data: Scenes and classes.
        models: Image–text model, generator, number of proposals.
        labels: Pseudo-labels by name.
    """

    data: OvdData
    models: OvdConfig
    labels: dict[str, Path]

    @property
    def split(self) -> Split:
        """Return the classes."""
        return split_classes(self.data.classes, self.data.novel)


def scene_data(cell: Cell, work: Path, protocol: Protocol) -> OvdData:
    """Make the scenes of a cell's world, and name its novel classes."""
    scenes = make_scenes(work, cell.world, protocol)
    index = json.loads((scenes / "train.json").read_text(encoding="utf-8"))
    classes = tuple(each["name"] for each in index["categories"])
    return OvdData(root=scenes, classes=classes, novel=tuple(protocol["worlds"][cell.world]["choices"][cell.choice]))


def prepare(cell: Cell, work: Path, protocol: Protocol) -> Prepared:
    """Make scenes, models and pseudo-labels of a cell, unless they are there."""
    torch.set_num_threads(1)
    data = scene_data(cell, work, protocol)
    image_text = make_image_text(work, cell.world, cell.seed, protocol)
    folder = work / cell.world / f"{cell.choice}-{cell.seed}"
    words = ["method=proposals", *_words(protocol["generator"]), *_words(protocol["detector"])]
    generator = train(folder / "generator", data, [*words, f"train.seed={cell.seed}"])
    models = OvdConfig(
        image_text=ImageText(kind="compact", weights=image_text),
        proposals=Proposals(weights=generator, count=protocol["proposals"]),
    )
    labels = make_label_files(folder / "labels", data, models, protocol["selections"])
    return Prepared(data=data, models=models, labels=labels)


def train(out: Path, data: OvdData, words: Sequence[str]) -> Path:
    """Run ``python -m pipelines.ovd train`` on one thread unless it is done; returns the bundle.

    Raises:
        RuntimeError: The run failed.
    """
    done = out / "run.json"
    if done.exists() and json.loads(done.read_text(encoding="utf-8")).get("status") == "done":
        return out / "model"
    where = [f"data.root={data.root}", f"data.classes=[{','.join(data.classes)}]", "data.shortest_edges_px=[]"]
    where += [f"data.novel=[{','.join(data.novel)}]", "data.synthetic=true"]
    code = ovd(["train", "--out", str(out), "--overwrite", "--device", "cpu", *where, *words])
    if code:
        raise RuntimeError(f"{out}: exit code {code}")
    return out / "model"


def train_cell(cell: Cell, work: Path, protocol: Protocol, steps: int | None = None) -> tuple[Prepared, Path]:
    """Train a cell, for fewer steps where told; returns what it started from and its bundle."""
    made = prepare(cell, work, protocol)
    row = dict(protocol["rows"][cell.row])
    words = [f"candidates.file={made.labels[row.pop('labels')]}", f"train.seed={cell.seed}"]
    words += [*_words(protocol["detector"]), *_words(protocol["training"]), *_words(row)]
    words += [] if steps is None else [f"train.max_steps={steps}"]
    suffix = "" if steps is None else f"-{steps}"
    return made, train(work / cell.world / f"{cell.choice}-{cell.seed}" / f"{cell.row}{suffix}", made.data, words)


def measure(cell: Cell, made: Prepared, bundle: Path, protocol: Protocol, list_name: str) -> dict[str, Any]:
    """Score a bundle on a list: AP50 with resamples, candidates, false boxes; for ``marvel`` also the drift."""
    data, split = made.data, made.split
    scored = read_dataset(data, list_name, with_labels=True)
    found = detect_all(OvdPredictor.from_checkpoint(bundle, "cpu"), scored, cell.name)
    row = score_groups(cell.row, scored, found, split)
    labels = read_labels(made.labels[protocol["rows"][cell.row]["labels"]], read_base(data)[0], split)
    typed = made.models.model_copy(update={"predict": Predict(classes=", ".join(split.novel))})
    false, scenes = false_boxes(OvdPredictor.from_checkpoint(bundle, "cpu", config=typed), scored, split.novel)
    facts = {
        "scenes": len(scored),
        "boxes": row.counts["boxes"],
        "ap50": {name: _percent(row.metrics[f"{name}_ap50"]) for name in ("novel", "base", "all")},
        "per_class": {name: _percent(row.per_class[f"{name}.ap50"]) for name in split.classes},
        "resampled": _resampled(cell, scored, found, split, protocol),
        "candidates": candidate_rates(labels, read_dataset(data, data.split, with_labels=True), split.novel),
        "false_boxes": false,
        "false_boxes_scenes": scenes,
    }
    if cell.row in protocol["drift"]["rows"]:
        content = load_open_detector(bundle)
        regions = embedded_regions(content, scored.records[: protocol["drift"]["scenes"]])
        model = Remembering(load_image_text(made.models.image_text))
        facts["drift"] = drift(content, model, regions, split.classes, protocol["drift"]["names"])
    return facts


def _resampled(
    cell: Cell, scored: DetectionDataset, found: Sequence[Detections], split: Split, protocol: Protocol
) -> dict[str, list[float]]:
    root = scored.records[0].path.parent
    instances, count = read_instances(root.with_suffix(".json"))
    matched = {name: match_class(scored.records, found, label, instances) for label, name in enumerate(split.classes)}
    groups = {"novel": split.novel, "base": split.base}
    over = protocol["worlds"][cell.world]["resampled"]
    return resampled_ap50(matched, groups, (len(scored), count), over, protocol["resamples"])


def result_path(cell: Cell) -> Path:
    """Name the result file of a cell."""
    return RESULTS / STUDY.name / f"{cell.name}.json"


def run_cell(cell: Cell) -> None:
    """Train and score a cell on the test scenes, unless its result is there."""
    path = result_path(cell)
    if path.exists():
        return
    protocol, started = STUDY.protocol(), time.process_time()
    made, bundle = train_cell(cell, STUDY.work_folder(), protocol)
    facts = measure(cell, made, bundle, protocol, "test")
    write_result(
        path,
        study=STUDY.name,
        protocol=STUDY.protocol_hash(),
        world=cell.world,
        choice=cell.choice,
        row=cell.row,
        seed=cell.seed,
        settings={**protocol["training"], **protocol["rows"][cell.row]},
        **facts,
        cpu_seconds=round(time.process_time() - started),
        command="make bench-ovd-scenes",
    )


def run_check(world: str) -> float:
    """Score the detector that sees only saturation and edge density, unless its result is there; returns its AP50."""
    path = RESULTS / STUDY.name / f"{world}-check.json"
    if path.exists():
        return float(json.loads(path.read_text(encoding="utf-8"))["ap50"])
    protocol = STUDY.protocol()
    choice = next(iter(protocol["worlds"][world]["choices"]))
    data = scene_data(Cell(world=world, choice=choice, row="check", seed=0), STUDY.work_folder(), protocol)
    lists = [read_dataset(data, name, with_labels=True) for name in ("train", "test")]
    found = colour_check(*lists)
    write_result(
        path,
        study=STUDY.name,
        protocol=STUDY.protocol_hash(),
        world=world,
        row="check",
        ap50=found,
        command="make bench-ovd-scenes",
    )
    return found


def trial(words: str, steps: int) -> dict[str, Any]:
    """Train one cell for a few steps and score it on the validation scenes; no result is written."""
    world, choice, row, seed = words.split("/")
    cell = Cell(world=world, choice=choice, row=row, seed=int(seed))
    work, protocol = STUDY.work_folder(), STUDY.protocol()
    clock = [time.process_time()]
    made = prepare(cell, work, protocol)
    clock.append(time.process_time())
    _, bundle = train_cell(cell, work, protocol, steps)
    clock.append(time.process_time())
    facts = measure(cell, made, bundle, protocol, "val")
    clock.append(time.process_time())
    facts.pop("resampled")
    seconds = {
        name: round(after - before, 1)
        for name, before, after in zip(("preparing", "training", "scoring"), clock, clock[1:], strict=False)
    }
    return {**facts, "cpu_seconds": seconds, "steps": steps}


def main() -> int:
    """Run the cells that are missing, seed 0 of every row first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default=",".join(map(str, STUDY.protocol()["seeds"])))
    parser.add_argument("--trial", metavar="WORLD/CHOICE/ROW/SEED", help="one cell on validation scenes, no result")
    parser.add_argument("--steps", type=int, default=20, help="of a trial")
    arguments = parser.parse_args()
    try:
        check_packages(STUDY.protocol()["packages"])
    except UserError as error:
        print(f"bench-ovd-scenes: {error}", file=sys.stderr)
        return 1
    if arguments.trial:
        print(json.dumps(trial(arguments.trial, arguments.steps), indent=1))
        return 0
    # One thread each in every worker: with more the same seed trains other weights.
    context, one = get_context("spawn"), (1,)
    with ProcessPoolExecutor(arguments.workers, context, initializer=torch.set_num_threads, initargs=one) as pool:
        missing = run_missing(pool, [int(seed) for seed in arguments.seeds.split(",")])
    if missing:
        print(f"bench-ovd-scenes: {len(missing)} cells are missing, the first is {missing[0].name}", file=sys.stderr)
    return int(bool(missing))


def run_missing(pool: Executor, seeds: Sequence[int]) -> list[Cell]:
    """Run the cells that have no result, seed by seed; returns those that have none at the end.

    A world whose check fails is not used.
    """
    checked = _finish(pool, run_check, list(STUDY.protocol()["worlds"]))
    used = {world for world, found in checked.items() if found < CHECK_LIMIT}
    for world, found in checked.items():
        if world not in used:
            print(f"bench-ovd-scenes: {world} is not used: saturation and edges find {found:.1f}", file=sys.stderr)
    wanted = [Cell(world=world, choice=choice, row=row, seed=seed) for world, choice, row, seed in cells()]
    for seed in seeds:
        todo = [cell for cell in wanted if cell.seed == seed and cell.world in used and not result_path(cell).exists()]
        worlds = _finish(pool, _prepare_world, list({cell.world: cell for cell in todo}.values()))
        sound = {cell.world for cell in worlds}
        chosen = {(cell.world, cell.choice): cell for cell in todo if cell.world in sound}
        choices = {(cell.world, cell.choice) for cell in _finish(pool, _prepare_choice, list(chosen.values()))}
        _finish(pool, run_cell, [cell for cell in todo if (cell.world, cell.choice) in choices])
    return [cell for cell in wanted if cell.seed in seeds and not result_path(cell).exists()]


def _finish(pool: Executor, task: Callable[[_Item], Any], items: Sequence[_Item]) -> dict[_Item, Any]:
    """Run a task on all items; returns what it gave for each. A failure is told, and leaves its item out."""
    done = {}
    for item, future in [(item, pool.submit(task, item)) for item in items]:
        try:
            done[item] = future.result()
        except Exception:  # of any kind: hours of other cells are not lost with it
            traceback.print_exc()
            print(f"bench-ovd-scenes: {task.__name__} failed for {item}; the others go on", file=sys.stderr)
    return done


def _prepare_world(cell: Cell) -> None:
    """Make what all choices of a world and seed share, so that no two workers make it at once."""
    make_scenes(STUDY.work_folder(), cell.world, STUDY.protocol())
    make_image_text(STUDY.work_folder(), cell.world, cell.seed, STUDY.protocol())


def _prepare_choice(cell: Cell) -> None:
    """Make what all rows of a choice and seed share."""
    prepare(cell, STUDY.work_folder(), STUDY.protocol())


def _words(settings: dict[str, Any]) -> list[str]:
    return [
        f"{name}={json.dumps(value) if isinstance(value, list | bool) else value}" for name, value in settings.items()
    ]


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 3)


if __name__ == "__main__":
    sys.exit(main())
