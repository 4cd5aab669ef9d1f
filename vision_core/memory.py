"""What this process holds of the machine's memory."""

import ctypes
import resource
from pathlib import Path


def give_back_memory() -> None:
    """Let the system have what the C library keeps of arrays that are gone, where it has a function for that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_resident_mib() -> float:
    """Most memory that this process has had in use; not, as ``getrusage`` tells in a child, what its parent had."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
