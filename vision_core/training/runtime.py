"""Device, precision and process of a command: made once at its start and passed down."""

import platform
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from vision_core.console import be_silent, say
from vision_core.environment import (
    Launched,
    launched,
    make_cublas_repeatable,
    peak_resident_mib,
    reuse_memory,
    usable_cores,
)
from vision_core.errors import EnvironmentFault, UsageError
from vision_core.training import distributed

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MOST_WORKERS = 8  # beyond that, decoding rarely holds a GPU up, and memory does


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Device, precision and rank of this process.

    Attributes:
        device: Device of every tensor of the learner.
        precision: ``off``, ``bf16`` or ``fp16`` (automatic mixed precision).
        rank: Number of this process among ``world_size``.
        world_size: Number of processes.
    """

    device: torch.device
    precision: str = "off"
    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and the messages."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Make the mixed-precision context of a forward pass."""
        if self.precision == "off":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Make the gradient scaler; it does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def peak_memory_mib(self) -> float:
        """Measure the peak memory of GPU, else of process, in MiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return peak_resident_mib()


def launch(device: str = "auto", precision: str = "off", *, deterministic: bool = False) -> Runtime:
    """Make the runtime of this process and join those that ``torchrun`` started, each with a GPU of its own.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: Of the runtime.
        deterministic: Use the operations that give the same bits in each run, also on a GPU, where they are slower.

    Raises:
        EnvironmentFault: The device is missing or unusable; the message has the reason.
        UsageError: The name is no device, or one GPU for several processes.
    """
    where = launched()
    if deterministic:
        make_cublas_repeatable()
    chosen = pick_device(_own_gpu(device, where))
    if chosen.type == "cuda":
        chosen = torch.device("cuda", chosen.index or 0)
        torch.cuda.set_device(chosen)
    else:
        reuse_memory()
    if where.world_size > 1:
        distributed.join(chosen)
        if where.rank:
            be_silent()
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    return Runtime(device=chosen, precision=precision, rank=where.rank, world_size=where.world_size)


def tune_convolutions(*, has_fixed_sizes: bool) -> None:
    """Let cuDNN try its algorithms once for each size of input, where few sizes come and any algorithm will do."""
    torch.backends.cudnn.benchmark = has_fixed_sizes and not torch.are_deterministic_algorithms_enabled()


def full_float32(device: torch.device) -> AbstractContextManager[object]:
    """Multiply matrices in float32 proper within the block: without autocast and, on a GPU, without TF32.

    A null context where both are off in any case, so that it leaves no node in an exported graph.
    """
    if device.type != "cpu":
        return _without_tf32(device)
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


@contextmanager
def _without_tf32(device: torch.device) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def num_workers(setting: int | Literal["auto"], device: torch.device) -> int:
    """Count the loader processes of ``train.workers``; ``auto``: none on a CPU, else by the cores of a process."""
    if setting != "auto":
        return setting
    if device.type == "cpu":
        return 0
    return max(0, min(_MOST_WORKERS, usable_cores() // max(launched().local_world_size, 1) - 1))


def pick_device(name: str | torch.device) -> torch.device:
    """Choose the device called ``name``; ``auto`` is the GPU if it computes, else the CPU.

    Raises:
        EnvironmentFault: It is missing or unusable.
        UsageError: ``name`` is not ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        return _best_device()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"'{name}' is not a device; use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"Device '{name}' is not supported; use auto, cpu, cuda or cuda:N.")
    if not torch.cuda.is_available():
        raise EnvironmentFault(f"No CUDA device for '{name}'; use --device cpu.")
    if reason := _reason_unusable(device):
        raise EnvironmentFault(f"Device '{name}' is visible but unusable: {reason}. Use --device cpu.")
    return device


@cache
def _best_device() -> torch.device:
    """Try the GPU, and say once why the CPU is used although there is one."""
    with warnings.catch_warnings(record=True) as told:  # torch warns of a driver that is too old
        warnings.simplefilter("always")
        is_visible = torch.cuda.is_available()
    of_driver = [str(each.message) for each in told if "CUDA" in str(each.message) or "NVIDIA" in str(each.message)]
    reason = _reason_unusable(torch.device("cuda")) if is_visible else _first_line("".join(of_driver[:1]))
    if reason:
        say(f"note: the GPU is visible but unusable: {reason}. The CPU is used.")
    return torch.device("cuda" if is_visible and not reason else "cpu")


def _reason_unusable(device: torch.device) -> str:
    """Compute a little on the device, and wait for the result; empty if that worked."""
    try:
        torch.zeros(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        return _first_line(error)
    return ""


def _first_line(told: object) -> str:
    return str(told).strip().partition("\n")[0].rstrip(".")


def _own_gpu(device: str, where: Launched) -> str:
    """Name the GPU of this process among those of the machine, where several processes share it."""
    if where.world_size == 1 or not torch.cuda.is_available() or device == "cpu":
        return device
    if device not in {"auto", "cuda"}:
        if device.startswith("cuda:"):
            raise UsageError(f"'{device}' is one GPU for {where.world_size} processes. Leave train.device at auto.")
        return device
    count = torch.cuda.device_count()
    if where.local_rank >= count:
        raise EnvironmentFault(
            f"{where.local_world_size} processes on this machine, and {count} GPUs. "
            f"Start it with --nproc-per-node {count}, or with train.device=cpu."
        )
    return f"cuda:{where.local_rank}"


def machine() -> dict[str, Any]:
    """Describe the machine of a result: versions, processor, threads."""
    packages = ("domainsight", "torch", "torchvision", "sal-detectron2", "numpy")
    return {
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"
