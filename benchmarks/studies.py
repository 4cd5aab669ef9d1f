"""What all studies share: a protocol with a hash, result files, and how their figures are printed."""

import ast
import hashlib
import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vision_core.runtime import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PROTOCOLS = Path(__file__).resolve().parent / "protocols"

Rows = list[dict[str, Any]]


def read_protocol(path: Path) -> dict[str, Any]:
    """The keys of a protocol; ``generator`` lists the files of code, from the project's root, that make its data."""
    protocol: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return protocol


def protocol_hash(protocol: Path, generator: Sequence[Path]) -> str:
    """Hash over the protocol's keys and the code that makes its data, without comments and docstrings."""
    digest = hashlib.sha256(repr(read_protocol(protocol)).encode())
    for path in generator:
        digest.update(_code(path).encode())
    return digest.hexdigest()[:16]


def work_folder(study: str, protocol: Path, generator: Sequence[Path]) -> Path:
    """Where a study keeps data and runs: elsewhere with another hash, so that nothing is scored on what was before."""
    return Path("runs") / f"bench-{study}-{protocol_hash(protocol, generator)}"


def read_study(name: str) -> Rows:
    """All results of a study."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RESULTS / name).glob("*.json"))]


def write_result(path: Path, **facts: object) -> None:
    """One result file with commit and machine, whole or not at all."""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    content = {**facts, "commit": commit.stdout.strip(), "machine": machine(), "written": time.strftime("%Y-%m-%d")}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def spread(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    """Mean ± standard deviation over seeds."""
    if not values:
        return "n/a"
    mean = format(statistics.fmean(values), f"{sign}.{digits}f")
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
