"""What the study of pretraining and its search share: ordinary runs of ``pipelines.pretrain`` on one thread, scored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pretrain.tables import STUDY
from pipelines.pretrain.__main__ import main as pretrain
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.demo.small_real import HELD_OUT_FOLDER, make_small_real
from pipelines.pretrain.evaluation.scores import Predictions, predict
from pipelines.pretrain.weights.bundles import load_classifier
from vision_core.evaluation.classification import macro_f1, macro_scores

PROTOCOL = STUDY.protocol()
WORK = STUDY.work_folder()
DATA = WORK / "data"
HELD_OUT = DATA / HELD_OUT_FOLDER
_DONE = "made"
_RESAMPLES = 1000

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Percents of a model on a list.

    Attributes:
        macro_f1: Mean over classes.
        accuracy: Over images.
        interval: 95 % of the former, over resampled images.
        images: How many.
    """

    macro_f1: float
    accuracy: float
    interval: tuple[float, float]
    images: int


def prepare() -> None:
    """Make the images, once."""
    if not (DATA / "ATTRIBUTION.txt").exists():
        make_small_real(DATA, PROTOCOL["longest_px"])


def method_settings(method: str, rate: float) -> Settings:
    """Collect all settings of a method at a base learning rate."""
    settings = {**PROTOCOL["settings"], **PROTOCOL["methods"][method]}
    settings |= {key: share * rate for key, share in PROTOCOL["rates"].items()}
    return settings | {"optim.lr": PROTOCOL["raised_rate"].get(method, 1) * rate}


def as_words(root: Path, seed: int, settings: Mapping[str, Any]) -> list[str]:
    """Format settings as the command line takes them."""
    return [
        *(f"{key}={json.dumps(value)}" for key, value in settings.items()),
        f"data.root={root}",
        f"train.seed={seed}",
    ]


def run(out: Path, root: Path, seed: int, settings: Mapping[str, Any]) -> Path:
    """Train with these settings, on one thread, unless it is done; returns ``out``.

    Raises:
        RuntimeError: The run failed.
    """
    torch.set_num_threads(1)
    if (out / _DONE).exists():
        return out
    code = pretrain(["train", "--out", str(out), "--overwrite", "--device", "cpu", *as_words(root, seed, settings)])
    if code:
        raise RuntimeError(f"{out}: exit code {code}")
    (out / _DONE).touch()
    return out


def score(bundle: Path, root: Path, part: str) -> Scored:
    """Score a classifier on a list, on the centre crop of clean images."""
    model = load_classifier(bundle)
    sizes = {key: model.card.preprocessing[key] for key in ("image_px", "resize_px")}
    images = read_images(PretrainData(root=root, cache=None, classes=model.card.classes, **sizes), part)
    found = predict(
        model.network.eval(), CentreViews(images, PretrainData(root=root, cache=None, **sizes)), bundle.name
    )
    return scored(found)


def scored(found: Predictions) -> Scored:
    """Score given answers in percent, with an interval over images."""
    truth, called = found.truth, found.scores.argmax(axis=1)
    values = macro_scores(truth, called)
    draw = np.random.default_rng(0)
    resampled = [draw.integers(0, len(truth), len(truth)) for _ in range(_RESAMPLES)]
    low, high = np.percentile(
        [100 * macro_f1(truth[each], called[each], only_present=True) for each in resampled], (2.5, 97.5)
    )
    return Scored(
        macro_f1=100 * values.f1, accuracy=100 * values.accuracy, interval=(float(low), float(high)), images=len(truth)
    )


def is_stopped(run_folder: Path) -> bool:
    """Tell whether the policy of a run was stopped on the way."""
    notes = json.loads((run_folder / "run.json").read_text(encoding="utf-8")).get("notes", [])
    return any("ALARM" in note for note in notes)


def last_entropy(run_folder: Path) -> float | None:
    """Read the mean entropy of the policy's cells when it was last logged."""
    lines = (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line).get("policy_entropy") for line in lines]
    return next((value for value in reversed(values) if value is not None), None)
