"""The study behind the tables in docs/ultrasound.md: 5 screens and 32 segmenters on synthetic cines. All synthetic.

``make bench-ultrasound-phantom ARGS='--workers 2 --seeds 0'`` resumes per cell, each in a process and on a thread of
its own, and prints what they cost; ``claims.py`` makes the tables. What it does is fixed in
``protocols/ultrasound_phantom.yaml``. A cell keeps what its network makes of every frame, so that thresholds, curves,
weights and intervals are computed afterwards from the result files.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.studies import RESULTS, write_result
from benchmarks.ultrasound.cells import (
    BINS,
    LISTS,
    PROTOCOL,
    SCORED,
    SCREEN,
    STUDY,
    TRUTH,
    Cell,
    Floats,
    cells_of,
    columns_of,
    packed,
)
from pipelines.ultrasound.__main__ import main as ultrasound
from pipelines.ultrasound.config import FrameLabel, UltrasoundData
from pipelines.ultrasound.data.lists import FrameList, read_lists
from pipelines.ultrasound.data.observers import is_present, vote
from pipelines.ultrasound.evaluation.rows import ListScores, Models, score_list
from pipelines.ultrasound.phantom.study import NOTICE, write_study
from pipelines.ultrasound.screening.scope_guard import guard_of
from pipelines.ultrasound.segment import Masks, ModelMasks
from pipelines.ultrasound.weights.bundles import Frames, Loaded, ScreenModel, SegmentModel, load_network
from vision_core.console import say
from vision_core.environment import peak_resident_mib
from vision_core.runs.folder import RunFolder

_RULE: FrameLabel = "observer_majority"
_EXACT = ("scores",)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A study on the phantom in its folders.

    Attributes:
        protocol: Its keys.
        work: Folder of data and runs.
        results: Folder of the result files.
    """

    protocol: Mapping[str, Any]
    work: Path
    results: Path

    @property
    def frames(self) -> Path:
        """Return the file of all frames."""
        return self.work / "data" / "phantom.h5"

    def path(self, name: str) -> Path:
        """Return the result file of a cell."""
        return self.results / f"{name}.json"


def prepare(bench: Bench) -> None:
    """Make the frames, and write what the observers say of them; both once."""
    prepare_frames(bench)
    if not bench.path(TRUTH).exists():
        frames = {name: _truth_columns(each) for name, each in _lists(bench).items()}
        _write(bench, TRUTH, group=TRUTH, frames=frames)


def prepare_frames(bench: Bench) -> None:
    """Make the frames, once."""
    if not (bench.work / "data" / "phantom.json").exists():  # written last
        say(make_frames(bench.work / "data", bench.protocol))


def make_frames(folder: Path, protocol: Mapping[str, Any]) -> str:
    """Write the frames of the study; returns a description."""
    height, width = protocol["size_px"]
    return write_study(folder, size=(height, width), frames=protocol["frames"], lists=protocol["subjects"])


def train(out: Path, words: Sequence[str]) -> bool:
    """Train a network by the task's own command, on one thread; one that was stopped goes on with the same bits.

    Returns:
        Whether it went on: its seconds are then those since.

    Raises:
        RuntimeError: The training failed.
    """
    torch.set_num_threads(1)
    is_resumed = RunFolder(out).is_used()
    how = ["--resume"] if is_resumed else []
    if code := ultrasound(["train", "--out", str(out), *how, "--device", "cpu", *words]):
        raise RuntimeError(f"{out.name}: exit code {code}")
    return is_resumed


def run_cell(bench: Bench, cell: Cell) -> tuple[str, float]:
    """Train a network of the study and keep what it makes of every frame; returns its name and CPU seconds."""
    begun, out, words = time.process_time(), bench.work / cell.name, words_of(bench, cell)
    is_resumed = train(out, words)
    trained = time.process_time()
    loaded = load_network(out / "model")
    if isinstance(loaded.model, ScreenModel):
        frames = {name: _screen_columns(loaded, each) for name, each in _lists(bench).items()}
    else:
        frames = {name: _segment_columns(bench, loaded.model, each) for name, each in _lists(bench).items()}
    _write(
        bench,
        cell.name,
        group=cell.group,
        label=cell.label,
        seed=cell.seed,
        settings=[word for word in words if not word.startswith("data.root")],
        validation=_validation(out),
        is_resumed=is_resumed,
        cpu_seconds=round(time.process_time() - begun, 1),
        cpu_seconds_of_training=round(trained - begun, 1),
        peak_mib=peak_resident_mib(),
        frames=frames,
    )
    return cell.name, time.process_time() - begun


def words_of(bench: Bench, cell: Cell) -> list[str]:
    """All settings of a cell's training, as the command line takes them."""
    protocol = bench.protocol
    settings = dict(protocol["settings"])
    assert settings.pop("loss") == "batch Dice"
    words = {
        "preset": "bedside",
        "method": SCREEN if cell.group == SCREEN else "segment",
        "data.root": bench.frames,
        "data.eval_split": None,  # the list test is scored once, at the end
        "data.about": "A phantom made by code, no patient",
        "data.synthetic": True,
        "train.seed": cell.seed,
        "loss.reduction": "batch",
        "labels.presence": _RULE,
        "labels.consensus_share": settings.pop("combination_share"),
        **{f"augment.{step}": share for step, share in settings.pop("augment").items()},
        **settings,
    }
    network = protocol["networks"]["screen" if cell.group == SCREEN else "segmenter"]
    if cell.group == SCREEN:
        words |= {f"screen.{key}": value for key, value in network.items() if key != "start"}
        words["screen.imagenet"] = "ImageNet" in network["start"]
    else:
        words |= {f"segmenter.{key}": value for key, value in network.items()}
        words["labels.sampling"] = cell.label
        words["data.only_present"] = cell.group == "positive_frames"
    if cell.group == "frame_aware":
        words["method"] = "segment_frame_aware"
        own = protocol["segmenters"]["frame_aware"]
        words |= {f"loss.frame_aware.{key}": own[key] for key in ("weight", "present_weight", "absent_weight")}
    return [f"{key}={value if isinstance(value, str | Path) else json.dumps(value)}" for key, value in words.items()]


def reliability(
    probabilities: NDArray[np.float32], shares: NDArray[np.float32], subjects: Sequence[str]
) -> NDArray[np.float64]:
    """Sum probabilities and observers' shares of pixels in bins of equal count, by subject.

    Args:
        probabilities: ``(n, H, W)``.
        shares: ``(n, H, W)`` of the observers who mark a pixel.
        subjects: ``(n,)`` whose frames they are.

    Returns:
        ``(3, subjects, 10)``: number of pixels, sum of probabilities, sum of shares; bins by rank over all pixels,
        equal ones in the order of the frames, subjects in the order of their names.
    """
    flat = probabilities.ravel()
    by_rank = np.empty(len(flat), np.uint8)
    by_rank[np.argsort(flat, kind="stable")] = np.arange(len(flat)) * BINS // len(flat)
    bins = by_rank.reshape(probabilities.shape)
    named = np.asarray(subjects, dtype=str)
    found = []
    for subject in np.unique(named):
        own = bins[named == subject].ravel()
        weights = (None, probabilities[named == subject].ravel(), shares[named == subject].ravel())
        found.append([np.bincount(own, each, BINS) for each in weights])
    return np.asarray(np.moveaxis(np.array(found, np.float64), 1, 0))


def in_band(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the pixels ``(k, 2)`` of each observer's contour: within the band of the others, and all.

    The band of the others goes from the contour of what all of them mark to that of what any of them marks, both
    included. A contour is the pixels of a mask that have a neighbour outside it, by side.

    Args:
        masks: ``(k, H, W)``; a frame that someone leaves empty has no band and counts nothing.
    """
    if not masks.any(axis=(1, 2)).all():
        return np.zeros((len(masks), 2), np.int64)
    counts = []
    for held_out, mask in enumerate(masks):
        others = np.delete(masks, held_out, axis=0)
        contour = mask & ~ndimage.binary_erosion(mask)
        band = others.any(axis=0) & ~ndimage.binary_erosion(others.all(axis=0))
        counts.append([(contour & band).sum(), contour.sum()])
    return np.array(counts, np.int64)


class _Kept:
    """Masks of a segmenter, whose probabilities are kept."""

    identity = "this run"

    def __init__(self, model: SegmentModel) -> None:
        self.masking = ModelMasks(model)
        self.probabilities: list[NDArray[np.float32]] = []

    def __call__(self, frames: Frames, texts: Sequence[str]) -> Masks:
        found = self.masking(frames, texts)
        assert found.probabilities is not None
        self.probabilities.append(found.probabilities)
        return replace(found, probabilities=None)


def _lists(bench: Bench) -> Mapping[str, FrameList]:
    return read_lists(UltrasoundData(root=bench.frames), LISTS).by_name


def _truth_columns(frames: FrameList) -> dict[str, str]:
    masks = [frames.read(index).masks for index in range(len(frames))]
    counts = np.array([in_band(each) for each in masks])  # (n, k, 2)
    named = np.asarray(frames.subjects, dtype=str)
    sums = np.array([counts[named == subject].sum(axis=0) for subject in np.unique(named)])
    shares = sums[..., 0] / sums[..., 1]
    present = np.array([is_present(each, _RULE) for each in masks])
    consensus = np.array([vote(each).any() for each in masks])
    return {
        "subjects": " ".join(named),
        **columns_of({"present": present, "has_consensus": consensus}),
        **{f"in_band_{observer}": packed(each) for observer, each in enumerate(shares.T)},
    }


def _screen_columns(loaded: Loaded, frames: FrameList) -> dict[str, str]:
    assert isinstance(loaded.model, ScreenModel)
    found = score_list(frames, _RULE, Models(screen=loaded.model, guard=guard_of(loaded.card)), frames.name)
    assert found.outside is not None
    return columns_of({"scores": found.scores, "outside": found.outside}, _EXACT)


def _segment_columns(bench: Bench, model: SegmentModel, frames: FrameList) -> dict[str, str]:
    kept, is_scored = _Kept(model), frames.name in SCORED
    found = score_list(frames, _RULE, Models(masking=kept), frames.name, with_distances=is_scored)
    columns = {"dice": found.dice, "areas": found.areas, "confidence": found.confidence}
    if is_scored:
        columns |= _distances_mm(bench, found)
        shares = np.stack([frames.read(index).masks.mean(axis=0, dtype=np.float32) for index in range(len(frames))])
        assert frames.subjects is not None
        sums = reliability(np.concatenate(kept.probabilities), shares, frames.subjects)
        columns |= {name: each.ravel() for name, each in zip(("pixels", "probability", "share"), sums, strict=True)}
    return columns_of(columns, ("pixels", "probability", "share"))


def _distances_mm(bench: Bench, found: ListScores) -> dict[str, Floats]:
    facts = json.loads((bench.work / "data" / "phantom.json").read_text(encoding="utf-8"))["subjects"]
    assert found.subjects is not None
    spacing = np.array([facts[subject]["spacing_mm"] for subject in found.subjects])  # of square pixels
    return {"hausdorff_95": found.hausdorff_95 * spacing, "surface": found.surface * spacing}


def _validation(run: Path) -> list[Any]:
    """Step and score of every validation, from the log of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ("eval/dice", "eval/frame_accuracy")
    return [[each["step"], round(each[name], 5)] for each in lines for name in names if name in each]


def _write(bench: Bench, name: str, **facts: object) -> None:
    kept = {"study": STUDY.name, "protocol": STUDY.protocol_hash(), "synthetic": NOTICE}
    write_result(bench.path(name), **kept, **facts, command=f"make bench-{STUDY.name}")


def main() -> int:
    """Run the cells that are missing, and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", help="some of them, with commas")
    arguments = parser.parse_args()
    bench = Bench(protocol=PROTOCOL, work=STUDY.work_folder(), results=RESULTS / STUDY.name)
    prepare(bench)
    seeds = set(map(int, arguments.seeds.split(","))) if arguments.seeds else None
    cells = [each for each in cells_of(bench.protocol) if seeds is None or each.seed in seeds]
    left = [each for each in cells if not bench.path(each.name).exists()]
    minutes: list[float] = []
    # A process for each cell, for its peak of memory.
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as workers:
        for name, seconds in workers.map(run_cell, [bench] * len(left), left):
            minutes.append(seconds / 60)
            done = len(cells) - len(left) + len(minutes)
            to_come = float(np.mean(minutes)) * (len(left) - len(minutes))
            say(f"{name}: {minutes[-1]:.1f} CPU minutes; {done} of {len(cells)} cells, {to_come:.0f} minutes to come")
    return 0


if __name__ == "__main__":
    sys.exit(main())
