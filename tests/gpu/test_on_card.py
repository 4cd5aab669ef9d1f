"""Every learner on a GPU, against the CPU in float32. Without a GPU they fail: they are for ``make test-gpu``."""

import json
import shutil
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.gpu.cases import CASES, Case, Watched, World, arrays, assert_near, state, train
from tests.gpu.waits import WAITS
from tests.pipelines import torchrun
from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features
from vision_core.config.schema import Config
from vision_core.environment import is_lost_gpu, is_out_of_memory
from vision_core.slides.encoders.networks import build_encoder
from vision_core.slides.features.adaptive_batches import AdaptiveBatches
from vision_core.slides.settings import EncoderSettings
from vision_core.training.learner import Learner
from vision_core.training.runtime import Runtime, launch

pytestmark = pytest.mark.gpu
CPU = Runtime(device=torch.device("cpu"))
# Of the sum of the losses of the first step; convolutions and products may use TF32 where the precision is off.
TOLERANCE = {"off": 1e-2, "fp16": 3e-2, "bf16": 1e-1}
ONE_OF_EACH = ("sfod-lpld", "wsi-mhim_v2-transmil", "pretrain-policy")
_WAITS = "synchronizing CUDA operation"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def card() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.fail("There is no usable GPU on this machine: these tests are for one that has.")
    yield launch("cuda").device
    launch("cpu")


def _named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def _train(world: World, case: Case, runtime: Runtime, out: Path, config: Config | None = None) -> Learner:
    config = config or world.config(case)
    return train(world.prepared(case, config), config, runtime, out)


def _first_loss(run: Path) -> float:
    values = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    return float(sum(value for name, value in values.items() if name.startswith("loss")))


@pytest.mark.parametrize("precision", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fit__first_step_as_on_the_cpu(
    case: Case, precision: str, world: World, card: torch.device, tmp_path: Path
) -> None:
    learner = _train(world, case, Runtime(device=card, precision=precision), tmp_path / "card")
    assert not [name for name, tensor in state(learner).items() if not tensor.isfinite().all()]
    if case.draws_on_device:
        return  # a GPU draws other masks than a CPU
    _train(world, case, CPU, tmp_path / "cpu")
    found, expected = _first_loss(tmp_path / "card"), _first_loss(tmp_path / "cpu")
    assert found == pytest.approx(expected, rel=TOLERANCE[precision], abs=TOLERANCE[precision])


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_fit__deterministic_runs_and_a_resumed_one_give_the_same_bits(name: str, world: World, tmp_path: Path) -> None:
    case = _named(name)
    config = world.config(case, "train.deterministic=true")
    runtime = launch("cuda", deterministic=True)
    once, twice = (state(_train(world, case, runtime, tmp_path / each, config)) for each in ("once", "twice"))
    (tmp_path / "killed").mkdir()
    shutil.copy(tmp_path / "once" / "last.prev.pt", tmp_path / "killed" / "last.pt")
    resumed = state(_train(world, case, runtime, tmp_path / "killed", config))
    assert_near(twice, once, rel=0)
    assert_near(resumed, once, rel=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fit__the_host_waits_seldom(case: Case, world: World, card: torch.device, tmp_path: Path) -> None:
    config, counts = world.config(case, "train.save_every=1000"), []
    prepared = world.prepared(case, config)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watched = Watched(prepared.items, lambda: counts.append(sum(_WAITS in str(each.message) for each in told)))
        object.__setattr__(prepared, "items", watched)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train(prepared, config, Runtime(device=card), tmp_path)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Twice what the made device counts: torch's own kernels may ask more than once.
    assert np.diff(counts).max() <= 2 * WAITS[case.name].total() + 5


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_predict__and_golden_pair_as_on_the_cpu(name: str, world: World, card: torch.device, tmp_path: Path) -> None:
    case = _named(name)
    config, pipeline = world.config(case), world.pipeline(case)
    prepared = pipeline.prepare(config)
    prepared.learner.to(card)
    bundle = tmp_path / "model"
    pipeline.deliver(config, prepared.learner, bundle)
    results = [pipeline.predictor(bundle, device)(world.inputs(case)) for device in (CPU.device, card)]
    for on_cpu, on_card in zip(*map(arrays, results), strict=True):
        np.testing.assert_allclose(on_card, on_cpu, rtol=5e-2, atol=5e-2)
    main = import_module(f"pipelines.{case.task}.__main__").main
    assert main(["verify", str(bundle), "--device", "cuda"]) == 0


def test_fit__resumed_on_the_cpu_from_the_card(world: World, card: torch.device, tmp_path: Path) -> None:
    case = _named("wsi-plain-abmil")
    whole = state(_train(world, case, Runtime(device=card), tmp_path / "card"))
    (tmp_path / "killed").mkdir()
    shutil.copy(tmp_path / "card" / "last.prev.pt", tmp_path / "killed" / "last.pt")
    assert_near(state(_train(world, case, CPU, tmp_path / "killed")), whole, rel=1e-2)


def test_out_of_memory__is_known_by_its_name(card: torch.device) -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(2**45, device=card)
    assert is_out_of_memory(caught.value)
    assert not is_lost_gpu(caught.value)


def test_adaptive_batches__halve_where_the_card_is_too_small(card: torch.device) -> None:
    encoder = build_encoder(EncoderSettings(name="lite0", input_px=224), card)
    tiles = torch.randint(0, 256, (512, 224, 224, 3), dtype=torch.uint8).numpy()
    torch.cuda.reset_peak_memory_stats(card)
    whole = encoder.encode(tiles).cpu()
    needed, there = torch.cuda.max_memory_reserved(card), torch.cuda.get_device_properties(card).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * needed / there, card)
    try:
        batches = AdaptiveBatches(encoder)
        found = batches(tiles).cpu()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card)
    assert "are encoded at once" in batches.notes[0]
    torch.testing.assert_close(found, whole, rtol=2e-2, atol=2e-2)


def test_train__two_cards(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    data = make_features(tmp_path / "data")
    words = [f"data.root={data}", "method=mhim_v2", "random_teacher=true", *FEATURE_WORDS]
    code, said = torchrun.finish(torchrun.start("wsi", tmp_path / "run", words))
    assert code == 0, said
    assert torchrun.facts(tmp_path / "run")["status"] == "done"
