import ctypes
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.continuous_integration import is_ci
from vision_core import environment
from vision_core.environment import peak_resident_mib, release_memory
from vision_core.errors import UsageError

ROOT = Path(__file__).parents[2]


def test_launched__single_process_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert environment.launched() == environment.Launched(rank=0, local_rank=0, world_size=1)


def test_launched__reads_what_torchrun_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    expected = environment.Launched(rank=3, local_rank=1, world_size=4, local_world_size=2)
    assert environment.launched() == expected


@pytest.mark.parametrize("value", ["two", "-1", "1.5", "²"])
def test_launched__what_is_no_number_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(UsageError, match=f"WORLD_SIZE='{value}': expected a number"):
        environment.launched()


def test_launched__empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "")
    assert environment.launched().world_size == 1


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("1", True), ("", False), ("false", False)])
def test_is_ci__follows_the_variable(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("CI", value)
    assert is_ci() is expected


def test_datasets_root__variable_or_the_published_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert environment.datasets_root() == Path("dataset")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    assert environment.datasets_root() == Path("/data")


def test_unsafe_gradio_variables__are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.unsafe_gradio_variables() == []
    monkeypatch.setenv("GRADIO_SHARE", "1")
    assert environment.unsafe_gradio_variables() == ["GRADIO_SHARE"]


def test_keep_offline__children_inherit_it() -> None:
    environment.keep_offline()
    code = "import os; print(os.environ['HF_HUB_OFFLINE'], os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1 1\n"


@pytest.mark.slow
def test_keep_offline__albumentations_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import socket\nfrom vision_core.environment import keep_offline\nkeep_offline()\n"
        "def refuse(*_, **__): raise SystemExit('looked up a name')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\nimport albumentations"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
    assert socket.getaddrinfo is not None


def test_quiet_libraries__other_warnings_are_kept() -> None:
    with warnings.catch_warnings(record=True) as caught:
        environment.quiet_libraries()
        warnings.warn("ours", UserWarning, stacklevel=1)
        warnings.warn("torch.meshgrid: pass indexing", UserWarning, stacklevel=1)
    assert [str(each.message) for each in caught] == ["ours"]


def foreign(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The base interpreter without any installed package and with no environment variables."""
    command = ["/usr/bin/env", "-i", sys._base_executable, "-S", *arguments]  # type: ignore[attr-defined]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_enter__foreign_interpreter_is_told_which_one_to_use() -> None:
    found = foreign("-m", "pipelines.sfod", "train")
    assert found.returncode == 5
    assert found.stderr.startswith("error[ENVIRONMENT] ")
    assert "lacks pydantic, yaml, torch, detectron2" in found.stderr
    assert f"{ROOT}/.venv/bin/python -m pipelines.sfod'" in found.stderr
    assert found.stderr.count("\n") == 1


def test_enter__imports_nothing_but_the_standard_library() -> None:
    found = foreign("-c", "from vision_core.environment import keep_offline; keep_offline()")
    assert (found.returncode, found.stderr) == (0, "")


def test_enter__is_the_only_file_that_touches_the_environment() -> None:
    touching = [
        path.relative_to(ROOT)
        for folder in ("vision_core", "pipelines", "apps", "demos")
        for path in (ROOT / folder).rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert touching == [Path("vision_core/environment.py")]
    assert os.environ


def _resident_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library cannot give memory back")
def test_give_back_memory__arrays_that_are_gone_leave_the_process() -> None:
    arrays = [np.ones(100_000, np.uint8) for _ in range(1000)]  # small enough to lie on the heap
    kept = arrays[::100]
    del arrays
    before = _resident_mib()
    release_memory()
    assert _resident_mib() < before - 60
    assert all(array.all() for array in kept)


def test_peak_resident__is_of_this_process_alone() -> None:
    held = np.ones(300 * 2**20, np.uint8)
    code = "from vision_core.environment import peak_resident_mib; print(peak_resident_mib())"
    child = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert child < 100 < held.nbytes / 2**20 < peak_resident_mib()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library cannot be told to keep memory")
def test_reuse_memory__a_large_block_is_cleared_by_the_system_once() -> None:
    code = """
import ctypes, resource
from vision_core.environment import reuse_memory
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        block = library.malloc(64 * 2**20)
        library.memset(block, 1, 64 * 2**20)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
reuse_memory()
faults()
print(first, faults())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    before, after = map(int, told)
    assert before > 16_000
    assert after < 1_000
