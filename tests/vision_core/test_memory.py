import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vision_core.memory import give_back_memory, peak_resident_mib


def _resident_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library cannot give memory back")
def test_give_back_memory__arrays_that_are_gone_leave_the_process() -> None:
    arrays = [np.ones(100_000, np.uint8) for _ in range(1000)]  # small enough to lie on the heap
    kept = arrays[::100]
    del arrays
    before = _resident_mib()
    give_back_memory()
    assert _resident_mib() < before - 60
    assert all(array.all() for array in kept)


def test_peak_resident__is_of_this_process_alone() -> None:
    held = np.ones(300 * 2**20, np.uint8)
    code = "from vision_core.memory import peak_resident_mib; print(peak_resident_mib())"
    child = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert child < 100 < held.nbytes / 2**20 < peak_resident_mib()
