"""Two processes of one image train as one does with two, in both phases, and a stopped run has the same bits."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.ovd.config import OvdConfig
from pipelines.ovd.pipeline import OvdPipeline
from tests.pipelines.ovd.tiny import make_data, words
from tests.vision_core.two_processes import run_two
from vision_core.config import loading as config
from vision_core.runs.folder import RunFolder
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

ONE = Runtime(device=torch.device("cpu"))
# Each image yields as many regions, so that the mean over regions is one over images.
SMALL = ("detector.roi_batch=8", "train.epochs=1", "data.eval_split=null")
CASES: dict[str, tuple[str, ...]] = {
    "marvel": ("marvel.burn_in_last_iter=0",),
    "proposals": ("method=proposals",),
}


def fit_in(runtime: Runtime, folder: Path, data: Path, more: Sequence[str]) -> None:
    settings = config.load(OvdConfig, None, words(data, *SMALL, *more))
    prepared = OvdPipeline().prepare(settings)
    fit(prepared, settings, runtime, RunFolder(folder, is_written=runtime.is_first))
    torch.save(prepared.learner.state_dict(), folder / f"rank-{runtime.rank}.pt")


def all_in(runtime: Runtime, root: Path, data: Path, batch_size: int) -> None:
    for case, more in CASES.items():
        fit_in(runtime, root / case, data, [*more, f"train.batch_size={batch_size}"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    data = make_data(tmp_path_factory.mktemp("data"))
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    for name in CASES:
        (whole / name).mkdir()
        (parts / name).mkdir()
    all_in(ONE, whole, data, 2)
    assert run_two(all_in, parts, data, 1, seconds=300) == [0, 0]
    return whole, parts


def _state(folder: Path, rank: int) -> dict[str, Tensor]:
    return dict(torch.load(folder / f"rank-{rank}.pt", weights_only=True))


@pytest.mark.parametrize("case", CASES)
def test_fit__two_processes_are_as_one(case: str, trained: tuple[Path, Path]) -> None:
    expected, first, second = _state(trained[0] / case, 0), _state(trained[1] / case, 0), _state(trained[1] / case, 1)
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-5, atol=2e-6, msg=name)
