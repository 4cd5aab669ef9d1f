import pytest
import torch

from vision_core.errors import EnvironmentFault, UsageError
from vision_core.training.runtime import Runtime, launch, machine, pick_device

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
