"""Every learner on the made device: placement, numbers, resume, prediction, and how often the host waits."""

import dataclasses
import functools
import operator
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.mask import NoiseMask
from pipelines.wsi.config import Scores, WsiConfig
from pipelines.wsi.models.build import build_model
from tests.gpu.cases import CASES, STEPS, Case, Watched, World, arrays, assert_near, state, train
from tests.gpu.waits import WAITS
from tests.made_device import MadeDevice, made_device
from vision_core.config import loading as configs
from vision_core.detection.model.detectron2_parts import sample_labels
from vision_core.detection.model.frozen_norms import adapting_norms
from vision_core.training.runtime import Runtime, launch

CPU = Runtime(device=torch.device("cpu"))
# One of each kind; the others differ less and are slow together.
QUICK = {
    "sfod-lpld",
    "wsi-plain-abmil",
    "wsi-mhim_v1-dsmil",
    "wsi-mhim_v2-transmil",
    "pretrain-policy",
    "ultrasound-segment",
}
LEARNERS = [pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow) for case in CASES]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def device() -> Iterator[MadeDevice]:
    with made_device() as made:
        yield made


def _waits(device: MadeDevice) -> Counter[str]:
    """How often the host has waited so far, by operation and file."""
    found: Counter[str] = Counter()
    for place, count in device.places.items():
        found[place.rsplit(":")[0]] += count
    return found


@pytest.mark.parametrize("case", LEARNERS)
def test_fit__as_on_the_cpu_with_few_waits_and_resumed_to_the_same_bits(
    case: Case, world: World, tmp_path: Path
) -> None:
    config = world.config(case)
    expected = state(train(world.prepared(case, config), config, CPU, tmp_path / "cpu"))
    with made_device() as device:
        _fit_on(device, case, world, expected, tmp_path)


def _fit_on(device: MadeDevice, case: Case, world: World, expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    config = world.config(case)
    runtime = Runtime(device=device.device)
    before: list[Counter[str]] = []

    prepared = world.prepared(case, config)
    prepared = dataclasses.replace(prepared, items=Watched(prepared.items, lambda: before.append(_waits(device))))
    device.reset()
    learner = train(prepared, config, runtime, tmp_path / "made")
    before.append(_waits(device))
    elsewhere = [name for name, tensor in learner.state_dict().items() if tensor.device != device.device]
    assert not [name for name in elsewhere if not name.endswith("_extra_state")]
    found = state(learner)
    assert_near(found, expected, rel=1e-5)
    steps = [after - first for first, after in pairwise(before)]
    assert len(steps) == STEPS
    assert functools.reduce(operator.or_, steps) == WAITS[case.name], device.places  # the most of any step

    # What a run that was killed at the second step would leave.
    (tmp_path / "killed").mkdir()
    shutil.copy(tmp_path / "made" / "last.prev.pt", tmp_path / "killed" / "last.pt")
    resumed = state(train(world.prepared(case, config), config, runtime, tmp_path / "killed"))
    assert_near(resumed, found, rel=0)


@pytest.mark.parametrize("name", ["sfod-mt", "wsi-mhim_v2-transmil", "pretrain-plain", "ultrasound-screen"])
def test_predict__bundle_of_the_device_gives_what_the_cpu_gives(
    name: str, world: World, device: MadeDevice, tmp_path: Path
) -> None:
    case = next(case for case in CASES if case.name == name)
    config, pipeline = world.config(case), world.pipeline(case)
    prepared = pipeline.prepare(config)
    prepared.learner.to(device.device)
    pipeline.deliver(config, prepared.learner, tmp_path / "model")
    results = [pipeline.predictor(tmp_path / "model", each)(world.inputs(case)) for each in (CPU.device, device.device)]
    compared = list(zip(*map(arrays, results), strict=True))
    assert compared
    for on_cpu, made in compared:
        np.testing.assert_allclose(made, on_cpu, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["abmil", "dsmil", "transmil"])
def test_scores_and_pseudo_inverse__take_no_tf32_where_it_is_allowed(network: str, device: MadeDevice) -> None:
    settings = configs.load(WsiConfig, None, [f"model.name={network}", "model.embedding.dim=32"])
    model = build_model(settings.model, 6, 2).to(device.device).eval()
    tiles = torch.randn(40, 6, device=device.device)
    launch("cpu")  # which allows TF32
    with torch.no_grad():
        model.aggregate(model.embedding(tiles), Scores())
    assert device.tf32["addmm", True]  # the embedding
    exact = {name: count for (name, is_allowed), count in device.tf32.items() if not is_allowed}
    if network == "transmil":
        assert exact["baddbmm"] and not device.tf32["baddbmm", True]  # of the pseudo-inverse alone
    else:
        assert exact == {"abmil": {"mm": 1}, "dsmil": {"mm": 1, "addmm": 1}}[network]


def test_masks__of_pretraining_take_no_tf32(device: MadeDevice) -> None:
    launch("cpu")
    NoiseMask(grid=4, kernel=5, sigma=2.0, image_px=32).to(device.device)(torch.rand(2, 16, device=device.device))
    assert not [name for name, is_allowed in device.tf32 if is_allowed]


def test_bn__asks_the_device_once(device: MadeDevice) -> None:
    frozen = [FrozenBatchNorm2d(3) for _ in range(20)]
    for each in frozen:
        each.running_mean.add_(1)
    norms = nn.Sequential(*frozen)
    norms.to(device.device)
    with adapting_norms(norms):
        norms(torch.randn(2, 3, 4, 4, device=device.device))
    assert device.waits == {"copy to the CPU": 1}


@pytest.mark.parametrize("positives", [0, 3, 40])
def test_sample_labels__asks_once_and_samples_as_on_the_cpu(positives: int, device: MadeDevice) -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    labels[:positives], labels[60:70] = 1, -1
    drawn = sample_labels(labels, 32, 0.5, 0, torch.Generator().manual_seed(1))
    made = sample_labels(labels.to(device.device), 32, 0.5, 0, torch.Generator().manual_seed(1))
    assert device.total == 1
    assert [each.tolist() for each in made] == [each.tolist() for each in drawn]
    assert len(drawn[0]) == min(positives, 16)
    assert len(drawn[1]) == 32 - len(drawn[0])


def test_sample__of_masks_leaves_the_random_state_alone_and_does_not_wait(device: MadeDevice) -> None:
    cells = BetaCells(log_alpha=torch.zeros(3, 16), log_beta=torch.ones(3, 16))
    expected, state_before = cells.sample([1, 2, 3]), torch.get_rng_state()
    made = BetaCells(log_alpha=cells.log_alpha.to(device.device), log_beta=cells.log_beta.to(device.device))
    found = made.sample([1, 2, 3])
    assert device.total == 0
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(torch.get_rng_state(), state_before)


def test_plain_paths__are_what_a_cpu_computes_in_stretches(device: MadeDevice) -> None:
    settings = configs.load(
        WsiConfig, None, ["model.name=transmil", "model.embedding.dim=32", "model.transmil.heads=2"]
    )
    model = build_model(settings.model, 6, 2).eval()
    tiles = torch.randn(5000, 6)  # more than a stretch
    with torch.no_grad():
        expected = model.aggregate(model.embedding(tiles), Scores(kind="class"))
        model.to(device.device)
        device.reset()
        found = model.aggregate(model.embedding(tiles.to(device.device)), Scores(kind="class"))
        assert device.total == 0
    torch.testing.assert_close(found.logits.cpu(), expected.logits, rtol=1e-4, atol=1e-5)
    assert found.scores is not None
    torch.testing.assert_close(found.scores.cpu(), expected.scores, rtol=1e-4, atol=1e-6)
