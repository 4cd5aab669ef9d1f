"""Two processes of one image train as one does with two: same samples of anchors and regions, same judgements.

In single precision, as detectron2 decodes boxes: numbers agree to about a millionth.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.initial_weights import new_detector
from pipelines.sfod.learners.adaptation import adaptation_learner
from pipelines.sfod.learners.source import SourceLearner
from pipelines.sfod.pipeline import build_views
from tests.pipelines import torchrun
from tests.pipelines.sfod.tiny import CLASSES, DETECTOR, SUPERVISED
from tests.vision_core.detection.synthetic import make_voc
from tests.vision_core.two_processes import run_two
from vision_core.config import loading as config
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.model.detector import Detector
from vision_core.detection.views import LabelledViews, TargetViews
from vision_core.errors import Interrupted
from vision_core.runs.folder import RunFolder
from vision_core.runs.kept_teachers import list_kept, load_kept
from vision_core.training.learner import Learner, Prepared, TrainingSet
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

ONE = Runtime(device=torch.device("cpu"))
NEAR = 1e-6
COUNT = 3  # an epoch ends with one image alone
SMALL = (
    *(f"detector.{name}={value}" for name, value in DETECTOR.items()),
    "detector.roi_batch=8",  # each image yields as many
    "detector.test_detections=3",
    "train.epochs=1",
    "train.log_every=1",
    "train.keep_teachers=2",
)
TEACHING = ("pseudo_labels.threshold=0.6", "lpld.iou=0.9", "lpld.foreground=0.5", "lpld.background=1")
CASES = {
    "source": ("method=source", "teacher.every=step"),
    "statistics": ("method=bn",),
    "mean teacher": ("method=mt", *TEACHING),
    "LPLD": ("method=lpld", "teacher.every=step", *TEACHING),
    # Some images have a pseudo label, others have none and are left out.
    "LPLD, some empty": ("method=lpld", "pseudo_labels.skip_empty_hpl=true", *TEACHING, "pseudo_labels.threshold=0.79"),
    "fixed labels": ("method=fixed_pl", "train.epochs=2", *TEACHING),
    # Bank and prototypes; in the last step of an epoch one process has no image.
    "WSCo": ("method=wsco_full+lpld", "teacher.every=step", "train.epochs=2", *TEACHING),
    "WSCo, some empty": ("method=wsco_full", *TEACHING, "pseudo_labels.threshold=0.79"),
    "all empty": (
        "method=mt",
        "pseudo_labels.skip_empty_hpl=true",
        "pseudo_labels.threshold=1",
        "pseudo_labels.on_nothing=continue",
    ),
}
STOPPED = "WSCo"


@cache
def sure_detector() -> Detector:
    """Random heads on the shipped backbone, sure of what they say: some images pass the threshold; to be copied."""
    detector, _ = new_detector(config.load(SfodConfig, None, [*SMALL, *CASES["source"]]), CLASSES)
    with torch.no_grad():
        detector.roi_heads.box_predictor.cls_score.weight.mul_(2)
    return detector


def prepare(settings: SfodConfig) -> tuple[Learner, TrainingSet]:
    detector = deepcopy(sure_detector())
    torch.manual_seed(0)  # for what a learner adds to it, made before or not
    is_source = settings.method == "source"
    data = settings.data.model_copy(update={"classes": CLASSES})
    dataset = read_dataset(data, data.split, with_labels=is_source)
    items = build_views(LabelledViews if is_source else TargetViews, settings, dataset, detector)
    if is_source:
        return SourceLearner(detector, average=settings.teacher, seed=settings.train.seed), items
    return adaptation_learner(settings, detector, num_images=len(items)), items


def fit_in(runtime: Runtime, folder: Path, data: Path, words: Sequence[str], *, halts: bool = False) -> None:
    settings = config.load(SfodConfig, None, [f"data.root={data}", *SMALL, *words])
    learner, items = prepare(settings)
    if halts:
        halt(learner)
    counters = fit(
        Prepared(learner=learner, items=items), settings, runtime, RunFolder(folder, is_written=runtime.is_first)
    )
    torch.save({**learner.state_dict(), "updates": torch.tensor(counters.updates)}, folder / f"rank-{runtime.rank}.pt")


def halt(learner: Learner) -> None:
    """The second process is told to stop in its second step."""
    after_step = learner.after_step

    def stop(step: int) -> None:
        after_step(step)
        if step == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    learner.after_step = stop  # type: ignore[method-assign]


def all_in(runtime: Runtime, root: Path, data: Path, batch_size: int) -> None:
    for case, words in CASES.items():
        # A pass normalises by its own batch: statistics are compared with one process of as large a batch.
        size = 1 if case == "statistics" else batch_size
        fit_in(runtime, root / case, data, [*words, f"train.batch_size={size}"])
    if runtime.world_size > 1:
        stopped = [*CASES[STOPPED], f"train.batch_size={batch_size}"]
        with suppress(Interrupted):
            fit_in(runtime, root / "parts", data, stopped, halts=True)
            raise AssertionError("the second process was told to stop, and both went on")
        fit_in(runtime, root / "parts", data, stopped)


def states(folder: Path, ranks: int) -> list[dict[str, Tensor]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All cases in one process and in two, which start but once."""
    data = make_voc(tmp_path_factory.mktemp("data"), count=COUNT)
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    for name in (*CASES, "parts"):
        (whole / name).mkdir()
        (parts / name).mkdir()
    all_in(ONE, whole, data, 2)
    assert run_two(all_in, parts, data, 1, seconds=300) == [0, 0]
    return whole, parts


@pytest.mark.parametrize("case", CASES)
def test_fit__two_processes_are_as_one(case: str, trained: tuple[Path, Path]) -> None:
    [expected], [first, second] = states(trained[0] / case, 1), states(trained[1] / case, 2)
    for name, tensor in expected.items():
        if name == "updates" and case == "statistics":
            continue
        assert torch.equal(first[name], second[name]), name
        # A score behind all layers; features at boxes that are themselves behind all layers.
        near = NEAR * {"watch": 10, "memory": 100}.get(name.partition(".")[0], 1)
        torch.testing.assert_close(first[name], tensor, rtol=near, atol=near, msg=partial("{}: {}".format, name))


@pytest.mark.parametrize("case", ["mean teacher", "WSCo"])
def test_fit__two_processes_keep_the_teachers_of_one(case: str, trained: tuple[Path, Path]) -> None:
    one, two = (list_kept(folder / case) for folder in trained)
    assert list(one) == list(two)
    assert len(one) == 2
    for step, path in one.items():
        other = load_kept(two[step])
        for name, tensor in load_kept(path).items():  # a millionth may fall on the other side of a half's last bit
            torch.testing.assert_close(other[name], tensor, rtol=2e-3, atol=1e-6, msg=partial("{}: {}".format, name))


def test_fit__the_cases_are_what_they_are_called(trained: tuple[Path, Path]) -> None:
    [empty] = states(trained[0] / "all empty", 1)
    for case in ("LPLD, some empty", "WSCo, some empty"):
        [labelled] = states(trained[0] / case, 1)
        seen, with_labels, _ = labelled["watch.window"].tolist()
        assert seen == COUNT
        assert 0 < with_labels < seen
    [remembering], [fixed] = states(trained[0] / "WSCo", 1), states(trained[0] / "fixed labels", 1)
    assert remembering["memory.bank.pushed"].sum() > COUNT
    assert remembering["memory.prototypes.known"].any()
    assert (fixed["table.rows"][:, 0] >= 0).all()
    assert empty["watch.window"][:2].tolist() == [COUNT, 0]
    assert empty["updates"] == 0


def test_fit__two_processes_resume_with_the_same_bits(trained: tuple[Path, Path]) -> None:
    for whole, resumed in zip(states(trained[1] / STOPPED, 2), states(trained[1] / "parts", 2), strict=True):
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    kept = [
        {step: path.read_bytes() for step, path in list_kept(trained[1] / name).items()} for name in (STOPPED, "parts")
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


@pytest.mark.slow
def test_torchrun__a_killed_process_then_a_stop_leave_a_run_that_resumes(tmp_path: Path) -> None:
    """Faults X14 and X4."""
    run, data = tmp_path / "run", make_voc(tmp_path / "data", count=COUNT)
    words = [f"data.root={data}", *SUPERVISED, "train.batch_size=1", "train.save_every=2", "train.log_every=1"]
    training = torchrun.start("sfod", run, [*words, "train.epochs=100000"])
    torchrun.wait_for_steps(run, 3)
    os.kill(torchrun.pid_of(training, rank=1), signal.SIGKILL)
    code, said = torchrun.finish(training, seconds=60)
    assert code != 0
    assert "2 processes of 1" in said
    assert said.count("error[ENVIRONMENT] Another process of this training is gone") == 1
    facts = torchrun.facts(run)
    assert (facts["status"], facts["exit_code"]) == ("failed", 5)

    done = len((run / "metrics.jsonl").read_text().splitlines())
    training = torchrun.start("sfod", run, ["--resume"])
    torchrun.wait_for_steps(run, done + 2)
    training.terminate()
    _, said = torchrun.finish(training, seconds=60)
    assert said.count("error[INTERRUPTED] Stopped at step") == 1
    assert said.count(f"Resume with: torchrun --nproc-per-node 2 -m pipelines.sfod train --out {run} --resume") == 1
    facts = torchrun.facts(run)
    assert (facts["status"], facts["exit_code"]) == ("interrupted", 130)
    last = torch.load(run / "last.pt", weights_only=True)
    assert last["counters"]["step"] == len((run / "metrics.jsonl").read_text().splitlines())
    assert last["processes"] == 2
