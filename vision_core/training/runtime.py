"""Device, precision and process of a command: made once at its start and passed down."""

import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vision_core.console import be_silent
from vision_core.environment import launched, peak_resident_mib
from vision_core.errors import EnvironmentFault, UsageError
from vision_core.training import distributed

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


def launch(device: str = "auto", precision: str = "off") -> Runtime:
    """Make the runtime of this process and join those that ``torchrun`` started.

    Raises:
        EnvironmentFault: The device is missing or unusable; the message has the reason.
        UsageError: The name is no device.
    """
    where = launched()
    if where.world_size > 1 and device in {"auto", "cuda"} and torch.cuda.is_available():
        device = f"cuda:{where.local_rank}"  # each of several processes on a machine has a GPU of its own
    chosen = pick_device(device)
    if where.world_size > 1:
        distributed.join(chosen)
        if where.rank:
            be_silent()
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    return Runtime(device=chosen, precision=precision, rank=where.rank, world_size=where.world_size)


def pick_device(name: str | torch.device) -> torch.device:
    """Choose the device called ``name``; ``auto`` is the GPU, else the CPU.

    Raises:
        EnvironmentFault: It is missing or unusable.
        UsageError: ``name`` is not ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    try:
        torch.zeros(1, device=device).add_(1)
    except RuntimeError as error:
        raise EnvironmentFault(f"Device '{name}' is visible but unusable: {error}. Use --device cpu.") from error
    return device


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
