"""Two processes train as one does with the same global batch: frozen norms, masks keyed by image.

In double precision, where what is left can only be a difference of method.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.pretrain.config import PretrainConfig
from tests.pipelines.pretrain.toy import ImageItems, make_learner, settings
from tests.vision_core.two_processes import run_two
from vision_core.runs.folder import RunFolder
from vision_core.training.learner import Prepared
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

ONE = Runtime(device=torch.device("cpu"))
NEAR = 1e-9
CASES: dict[str, dict[str, object]] = {
    "released": {"policy": "released", "train.epochs": 1},
    "leave one out": {"policy": "reinforce", "reinforce.normalise": True, "train.epochs": 1},
    "moving average": {"policy": "reinforce", "reinforce.baseline": "ema"},
    "unlearned": {"policy": "unlearned", "train.epochs": 1},
    "clean, averaged": {"policy": "none", "averaging.last_epochs": 1},
    "stopped policy": {"policy": "reinforce", "alarm.lowest_entropy": -1e-3},
    "moving norms": {"policy": "reinforce", "freeze_norms": False, "train.epochs": 1},
}
COUNT = 8


def fit_in(runtime: Runtime, folder: Path, config: PretrainConfig) -> None:
    learner = make_learner(config).double()
    fit(Prepared(learner=learner, items=ImageItems(COUNT, torch.float64)), config, runtime, RunFolder(folder))
    torch.save(learner.state_dict(), folder / f"rank-{runtime.rank}.pt")


def all_in(runtime: Runtime, root: Path, configs: dict[str, PretrainConfig]) -> None:
    for name, config in configs.items():
        fit_in(runtime, root / name, config)


def config_of(case: str, batch_size: int) -> PretrainConfig:
    return settings(**{"train.batch_size": batch_size, "freeze_norms": True, "mask.grid": 8, **CASES[case]})


def states(root: Path, case: str, ranks: int) -> list[dict[str, Tensor]]:
    found = [torch.load(root / case / f"rank-{rank}.pt", weights_only=True) for rank in range(ranks)]
    # What is shown of the first epoch was computed in single precision.
    return [{name: each.nan_to_num() for name, each in state.items() if "history" not in name} for state in found]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All cases in one process and in two, which start but once."""
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    for case in CASES:
        (whole / case).mkdir()
        (parts / case).mkdir()
    all_in(ONE, whole, {case: config_of(case, 4) for case in CASES})
    assert run_two(all_in, parts, {case: config_of(case, 2) for case in CASES}) == [0, 0]
    return whole, parts


@pytest.mark.parametrize("case", [case for case in CASES if case not in {"moving norms", "stopped policy"}])
def test_fit__two_processes_are_as_one(case: str, trained: tuple[Path, Path]) -> None:
    [expected], [first, second] = states(trained[0], case, 1), states(trained[1], case, 2)
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=NEAR, atol=NEAR, msg=name)


def test_fit__moving_norms_are_the_same_in_both_processes(trained: tuple[Path, Path]) -> None:
    first, second = states(trained[1], "moving norms", 2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (first["classifier.1.running_mean"] != 0).all()


def test_fit__a_policy_that_is_stopped_stops_in_both_and_the_classifier_goes_on_as_in_one(
    trained: tuple[Path, Path],
) -> None:
    case = "stopped policy"
    [expected], [first, second] = states(trained[0], case, 1), states(trained[1], case, 2)
    for state in (expected, first, second):
        assert state["alarm._extra_state"]
    for name, tensor in expected.items():
        if name.startswith("classifier."):
            assert torch.equal(first[name], second[name]), name
            torch.testing.assert_close(first[name], tensor, rtol=NEAR, atol=NEAR, msg=name)
