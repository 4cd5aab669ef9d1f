"""Environment variables, interpreter and memory: the only file that touches ``os.environ``. Standard library only."""

import ctypes
import importlib.util
import logging
import os
import resource
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from vision_core.errors import UsageError

_QUIET = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DISABLE_TELEMETRY": "1",
}
_NEEDED = ("pydantic", "yaml", "torch", "detectron2")
_UNSAFE_GRADIO = (
    "GRADIO_SHARE",
    "GRADIO_SHARE_SERVER_ADDRESS",
    "GRADIO_SERVER_NAME",
    "GRADIO_ALLOWED_PATHS",
    "GRADIO_MCP_SERVER",
    "GRADIO_WATCH_DIRS",
    "GRADIO_VIBE_MODE",
    "GRADIO_HISTORY_BUCKET",
)
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "status_alloc_failed")
_GPU_TEXTS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "CUDA driver error", "NCCL error")
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # of unshare(2)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Rank of this process among those that ``torchrun`` started."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int = 1


def enter() -> None:
    """Prepare the process: no network look-ups, UTF-8 output, the right interpreter.

    Every ``__main__`` calls it first.
    """
    keep_offline()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(_wrong_interpreter(missing))
        sys.exit(5)


def keep_offline() -> None:
    """Disable update checks, usage statistics and hub look-ups, in child processes too."""
    os.environ.update(_QUIET)


def quiet_libraries() -> None:
    """Hide warnings of libraries that users cannot act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\..*")
    warnings.filterwarnings("ignore", message=r"torch\.meshgrid")
    # With several processes, each would print these.
    warnings.filterwarnings("ignore", message=r"`broadcast_buffers` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"Grad strides do not match bucket view strides")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


def leave_network() -> bool:
    """Move this process into an empty network namespace, where the machine allows one.

    Without the right to do so it takes a user namespace of its own, for which the process must have a single thread.
    """
    libc = ctypes.CDLL(None)
    return not libc.unshare(_CLONE_NEWNET) or not libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def launched() -> Launched:
    """Read rank and world size from ``torchrun``'s variables; a single process without them.

    Raises:
        UsageError: One of them is not a number.
    """
    world_size = _number("WORLD_SIZE", 1)
    return Launched(
        rank=_number("RANK", 0),
        local_rank=_number("LOCAL_RANK", 0),
        world_size=world_size,
        local_world_size=_number("LOCAL_WORLD_SIZE", world_size),
    )


def usable_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_cublas_repeatable() -> None:
    """Give cuBLAS the workspace without which its products differ from run to run; before CUDA is first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the memory of the machine or of a GPU was not enough; torch says so in its texts alone."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in _MEMORY_TEXTS)


def is_lost_gpu(error: BaseException) -> bool:
    """Tell whether a GPU has failed: after such an error, this process can compute nothing on it any more."""
    is_of_gpu = type(error).__name__ == "AcceleratorError" or any(text in str(error) for text in _GPU_TEXTS)
    return isinstance(error, RuntimeError) and is_of_gpu and not is_out_of_memory(error)


def datasets_root() -> Path:
    """Return the folder of published data sets: ``DETECTRON2_DATASETS``, else ``dataset``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "dataset"))


def unsafe_gradio_variables() -> list[str]:
    """List the set variables that would expose an app to other users."""
    return [name for name in _UNSAFE_GRADIO if os.environ.get(name)]


def set_gradio_folder(folder: Path) -> None:
    """Set the folder where Gradio keeps uploads."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def has_display() -> bool:
    """Tell whether a person sits before this machine: a display, and no remote session."""
    is_remote = any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"))
    needs_server = sys.platform.startswith("linux")
    return not is_remote and (not needs_server or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))))


def describe_lost_gpu(error: BaseException) -> str:
    """Say in a sentence that a GPU has failed, with the reason that it gave."""
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return f"The GPU has failed ({reason}): look at nvidia-smi and the system's log."


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UsageError(f"Environment variable {name}='{text}': expected a number as torchrun sets it. Unset it.")
    return int(text)


def _wrong_interpreter(missing: list[str]) -> str:
    root = Path(__file__).resolve().parent.parent
    ours = root / ".venv" / "bin" / "python"
    module = getattr(sys.modules["__main__"].__spec__, "name", "") or "pipelines.sfod"
    module = module.removesuffix(".__main__")
    command = f"{ours} -m {module}"
    remedy = f"Use '{command}'" if ours.exists() else f"Run 'make setup' in {root}, then use '{command}'"
    return (
        f"error[ENVIRONMENT] {sys.executable} lacks {', '.join(missing)}: it is not the environment of this package. "
        f"{remedy}.\n"
    )


def release_memory() -> None:
    """Return freed memory from the C library to the system, where supported."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def reuse_memory() -> None:
    """Let the C library keep freed memory for the next tensor, where supported.

    It would return what is beyond 32 MB to the system at once, and the system clears each page of it at the next use: a
    sixth of the time of CLIP on a batch of crops. Up to 512 MiB of freed memory stay.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_MMAP_THRESHOLD, 256 * 2**20)
        tune(_TRIM_THRESHOLD, 512 * 2**20)


def release_gpu_memory() -> None:
    """Return freed memory of a GPU in use, so that another size of tensors finds room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def peak_resident_mib() -> float:
    """Measure the peak memory of this process in MiB.

    ``getrusage`` would give that of the parent in a child process.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
