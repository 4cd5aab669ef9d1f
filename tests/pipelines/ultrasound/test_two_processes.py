"""Two processes train as one does with the same global batch: frozen norms, Dice over the frames of both."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.items import Batch, TrainingFrames
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.learner import FrameLearner, make_learner
from pipelines.ultrasound.weights.initial import initial_network
from tests.pipelines.ultrasound.tiny import make_h5, words
from tests.vision_core.two_processes import run_two
from vision_core.config.loading import load
from vision_core.runs.folder import RunFolder
from vision_core.training.batch_norms import freeze_norms
from vision_core.training.learner import Prepared
from vision_core.training.loaders import map_tensors
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

ONE = Runtime(device=torch.device("cpu"))
NEAR = 1e-7
CASES = {
    "segment": ("method=segment",),
    "per image": ("method=segment", "loss.reduction=per_image"),
    "frame aware": ("method=segment_frame_aware",),
    "screen": ("method=screen",),
}


class Doubles(TrainingFrames):
    """In double precision; losses alone are computed in single."""

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        return map_tensors(Tensor.double, super().__getitem__(place))


def with_frozen_norms(learner: FrameLearner) -> FrameLearner:
    """Keep the statistics, over which two halves of a batch are not the whole."""
    train = learner.train

    def still(mode: bool = True) -> FrameLearner:
        train(mode)
        freeze_norms(learner)
        return learner

    learner.train = still  # type: ignore[method-assign]
    return learner


def fit_all(runtime: Runtime, root: Path, data: Path, batch_size: int) -> None:
    for case, more in CASES.items():
        settings = words(data, *more, f"train.batch_size={batch_size}", "optim.name=sgd")
        config = load(UltrasoundConfig, None, settings)
        frames = read_lists(config.data, ["train"])["train"]
        learner = with_frozen_norms(make_learner(config, initial_network(config).module).double())
        (root / case).mkdir(exist_ok=True)
        items = Doubles(frames, range(len(frames)), config)
        fit(Prepared(learner=learner, items=items), config, runtime, RunFolder(root / case))
        torch.save(learner.state_dict(), root / case / f"rank-{runtime.rank}.pt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    data, one, two = (tmp_path_factory.mktemp(name) for name in ("data", "one", "two"))
    make_h5(data)
    fit_all(ONE, one, data, 8)
    assert run_two(fit_all, two, data, 4) == [0, 0]
    return one, two


@pytest.mark.parametrize("case", CASES)
def test_fit__two_processes_are_as_one(case: str, trained: tuple[Path, Path]) -> None:
    whole, parts = trained
    expected = torch.load(whole / case / "rank-0.pt", weights_only=True)
    first, second = (torch.load(parts / case / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=NEAR, atol=NEAR, msg=name)
