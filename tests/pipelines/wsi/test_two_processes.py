"""Two processes of one bag train as one does that moves after two: masks and dropout are keyed by bag.

In double precision: Adam makes a whole step of a gradient that should be zero and is a rounding error.
"""

import dataclasses
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.bags import Bag
from pipelines.wsi.features.survey import survey_features
from pipelines.wsi.pipeline import WsiPipeline
from pipelines.wsi.weights.bundles import load_network
from tests.pipelines import torchrun
from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features
from tests.vision_core.two_processes import run_two
from vision_core.config import loading as config
from vision_core.errors import Interrupted
from vision_core.runs.folder import RunFolder
from vision_core.training.learner import Learner, Prepared, TrainingSet
from vision_core.training.loaders import Place
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

ONE = Runtime(device=torch.device("cpu"))
NEAR = 1e-9
SPLITS = ("train",) * 7 + ("val", "val", "test", "test")  # an epoch ends with one bag alone
DROPOUT = ("model.abmil.dropout=0.1", "model.transmil.heads=2", "model.transmil.dropout=0.1")
CASES = {
    "plain": ("method=plain",),
    "v1": ("method=mhim_v1", "mhim_v1.masking={random: 0.3, high: 0.2, high_schedule: cosine, high_pool: 0.5}"),
    "v1 TransMIL": ("method=mhim_v1", "model.name=transmil", "mhim_v1.teacher={schedule: cosine, mode: train}"),
    "v2": ("method=mhim_v2", "mhim_v2.recycling.keep_rate=0.5", "mhim_v2.teacher.keep_rate=0.5"),
    "v2 DSMIL": ("method=mhim_v2", "model.name=dsmil", "mhim_v2.recycling={keep: 0.5, keep_rate: 0.9}"),
}
STOPPED = "v2"
Halt = Callable[[Learner], None]


class Doubled:
    """Bags in double precision."""

    def __init__(self, bags: TrainingSet) -> None:
        self.bags = bags

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, place: Place) -> Bag:
        bag: Bag = self.bags[place]
        return dataclasses.replace(bag, features=bag.features.double())

    def collate(self, items: list[Bag]) -> Bag:
        joined: Bag = self.bags.collate(items)
        return joined

    def names(self, indices: Sequence[int]) -> list[str]:
        return self.bags.names(indices)


def fit_in(
    runtime: Runtime, folder: Path, data: Path, words: Sequence[str], prepare_learner: Halt | None = None
) -> None:
    settings = config.load(WsiConfig, None, [f"data.root={data}", "random_teacher=true", *FEATURE_WORDS, *words])
    prepared = WsiPipeline().prepare(settings)
    learner = prepared.learner.double()
    if prepare_learner:
        prepare_learner(learner)
    run = RunFolder(folder, is_written=runtime.is_first)
    fit(Prepared(learner=learner, items=Doubled(prepared.items)), settings, runtime, run)
    torch.save(learner.state_dict(), folder / f"rank-{runtime.rank}.pt")


def all_in(runtime: Runtime, root: Path, data: Path, more: Sequence[str]) -> None:
    for case, words in CASES.items():
        fit_in(runtime, root / case, data, [*DROPOUT, *words, *more])
    if runtime.world_size > 1:
        stopped = [*DROPOUT, *CASES[STOPPED], *more]
        with suppress(Interrupted):
            fit_in(runtime, root / "parts", data, stopped, halting)
            raise AssertionError("the second process was told to stop, and both went on")
        fit_in(runtime, root / "parts", data, stopped)
        survey_in(runtime, root, data)


def halting(learner: Learner) -> None:
    """The second process is told to stop in its second step."""
    after_step = learner.after_step

    def stop(step: int) -> None:
        after_step(step)
        if step == 1 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    learner.after_step = stop  # type: ignore[method-assign]


def survey_in(runtime: Runtime, root: Path, data: Path) -> None:
    """The second process has no files."""
    folder = data / "features" if runtime.is_first else root / "nowhere"
    records = [
        SlideRecord(slide=name, patient=name, label=0, path=folder / f"{name}.h5", mpp=None, place=0)
        for name in ("s0", "s1")
    ]
    found = survey_features(records, by_first=True)
    torch.save(dict(found.contents), root / f"survey-{runtime.rank}.pt")


def states(folder: Path, ranks: int) -> list[dict[str, Tensor]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All cases in one process and in two, which start but once."""
    data = make_features(tmp_path_factory.mktemp("data"), SPLITS)
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    for name in (*CASES, "parts"):
        (whole / name).mkdir()
        (parts / name).mkdir()
    schedule = ["optim.schedule=cosine", "optim.schedule_by=step", "train.eval_every=0"]
    all_in(ONE, whole, data, [*schedule, "train.accumulate=2"])
    assert run_two(all_in, parts, data, schedule) == [0, 0]
    return whole, parts


@pytest.mark.parametrize("case", CASES)
def test_fit__two_processes_are_as_one_that_accumulates(case: str, trained: tuple[Path, Path]) -> None:
    [expected], [first, second] = states(trained[0] / case, 1), states(trained[1] / case, 2)
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=NEAR, atol=NEAR, msg=name)


def test_fit__two_processes_resume_with_the_same_bits(trained: tuple[Path, Path]) -> None:
    for whole, resumed in zip(states(trained[1] / STOPPED, 2), states(trained[1] / "parts", 2), strict=True):
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_survey_features__the_first_process_reads_for_all(trained: tuple[Path, Path]) -> None:
    first, second = (torch.load(trained[1] / f"survey-{rank}.pt") for rank in range(2))
    assert first == second
    assert first.keys() == {"s0", "s1"}


@pytest.mark.slow
def test_torchrun__trains_the_teacher_then_mhim_and_one_process_speaks(tmp_path: Path) -> None:
    run, data = tmp_path / "run", make_features(tmp_path / "data", SPLITS)
    words = [f"data.root={data}", *FEATURE_WORDS, "method=mhim_v2", "data.eval_split=test"]
    code, said = torchrun.finish(torchrun.start("wsi", run, words))
    assert code == 0, said
    assert said.count("2 processes of 1, gradients of 1 steps: an update is of 2 items.") == 2
    assert said.count("The teacher moves after every 2 items.") == 1
    assert said.count("Report: ") == 1
    for name in ("teacher", "mhim_v2"):
        assert torchrun.facts(run / name)["status"] == "done"
        assert torchrun.facts(run / name)["updates"] == 8
        assert len((run / name / "metrics.jsonl").read_text().splitlines()) >= 8
        load_network(run / name / "model", torch.device("cpu"))
