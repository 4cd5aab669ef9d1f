import warnings

import pytest
import torch

from vision_core.errors import EnvironmentFault, UsageError
from vision_core.training import runtime
from vision_core.training.runtime import Runtime, full_float32, launch, machine, num_workers, pick_device

CPU = torch.device("cpu")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def test_launch__one_process_on_the_cpu() -> None:
    assert launch("cpu") == Runtime(device=CPU, precision="off", rank=0, world_size=1)


@without_gpu
def test_pick_device__auto_is_the_cpu_where_no_gpu_is() -> None:
    assert pick_device("auto") == CPU


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_pick_device__gpu_that_is_not_there_names_the_remedy(name: str) -> None:
    with pytest.raises(EnvironmentFault, match=f"No CUDA device for '{name}'; use --device cpu"):
        pick_device(name)


def test_pick_device__gpu_that_cannot_compute_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available")  # as torch raises on a card too old or too new

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(EnvironmentFault, match="'cuda:0' is visible but unusable: no kernel image"):
        pick_device("cuda:0")


def test_pick_device__auto_says_why_it_does_not_use_a_gpu_that_it_sees(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    runtime._best_device.cache_clear()
    try:
        assert pick_device("auto") == pick_device("auto") == CPU
    finally:
        runtime._best_device.cache_clear()
    said = capsys.readouterr().out
    assert said == "note: the GPU is visible but unusable: CUDA error: no kernel image is available. The CPU is used.\n"


def test_pick_device__auto_says_what_torch_warns_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def warn() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old.", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warn)
    runtime._best_device.cache_clear()
    try:
        assert pick_device("auto") == CPU
    finally:
        runtime._best_device.cache_clear()
    told = capfd.readouterr()
    assert "unusable: The NVIDIA driver on your system is too old. The CPU is used." in told.out
    assert told.err == ""


@pytest.mark.parametrize(
    ("device", "cores", "processes", "count"),
    [("cpu", 16, 1, 0), ("cuda", 16, 1, 8), ("cuda", 4, 1, 3), ("cuda", 1, 1, 0), ("cuda", 16, 4, 3)],
)
def test_num_workers__auto_leaves_a_core_to_each_process(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, processes: int, count: int
) -> None:
    monkeypatch.setattr(runtime, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert num_workers("auto", torch.device(device)) == count
    assert [num_workers(stated, torch.device(device)) for stated in (0, 5)] == [0, 5]


def test_full_float32__no_tf32_inside_alone() -> None:
    launch("cpu")
    flags = torch.backends.cuda.matmul
    with pytest.raises(ZeroDivisionError), full_float32(torch.device("cuda")):
        assert not flags.allow_tf32
        _ = 1 / 0
    assert flags.allow_tf32


def test_launch__deterministic_alone_asks_torch_for_the_same_bits() -> None:
    def flags() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic

    try:
        launch("cpu", deterministic=True)
        assert flags() == (True, True)
        runtime.tune_convolutions(has_fixed_sizes=True)
        assert not torch.backends.cudnn.benchmark  # it may choose another algorithm in each run
    finally:
        launch("cpu")
    assert flags() == (False, False)
    runtime.tune_convolutions(has_fixed_sizes=True)
    assert torch.backends.cudnn.benchmark
    runtime.tune_convolutions(has_fixed_sizes=False)
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1", "0", "mps", "meta"])
def test_pick_device__what_is_no_device_of_ours_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"use auto, cpu, cuda or cuda:N"):
        pick_device(name)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast__precision_of_a_matrix_product(precision: str, dtype: torch.dtype) -> None:
    one = torch.ones(2, 2)
    with Runtime(device=CPU, precision=precision).autocast():
        assert (one @ one).dtype == dtype


@pytest.mark.parametrize(("precision", "scales"), [("off", False), ("bf16", False), ("fp16", True)])
def test_scaler__works_for_fp16_alone(precision: str, scales: bool) -> None:
    assert Runtime(device=CPU, precision=precision).scaler().is_enabled() is scales


def test_peak_memory_mib__is_that_of_this_process() -> None:
    assert 20 < Runtime(device=CPU).peak_memory_mib() < 1e6


def test_machine__names_versions_and_threads() -> None:
    found = machine()
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert found["threads"] == torch.get_num_threads()
    assert all(found[name] for name in ("python", "system", "processor"))
