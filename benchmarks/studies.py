"""What all studies share: a protocol with a hash, result files, and how their figures are printed."""

import ast
import hashlib
import json
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vision_core.training.runtime import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PROTOCOLS = Path(__file__).resolve().parent / "protocols"

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A protocol and everything that its figures depend on beside the code of the methods.

    Attributes:
        name: Of the study and of the folder of its results.
        protocol_file: Below ``protocols/``.
        makers: Files of code, from the project's root, that make its data; hashed in this order.
        settings: Every other YAML that it reads, from the project's root, in this order.
    """

    name: str
    protocol_file: str
    makers: tuple[str, ...]
    settings: tuple[str, ...] = ()

    def protocol(self) -> dict[str, Any]:
        """Read the keys of the protocol."""
        return _read_yaml(PROTOCOLS / self.protocol_file)

    def protocol_hash(self) -> str:
        """Hash protocol, settings and makers; imports, comments and docstrings of makers do not count."""
        digest = hashlib.sha256(repr(self.protocol()).encode())
        for name in self.settings:
            digest.update(repr(_read_yaml(ROOT / name)).encode())
        for name in self.makers:
            digest.update(_code(ROOT / name).encode())
        return digest.hexdigest()[:16]

    def work_folder(self) -> Path:
        """Name the folder of data and runs: another hash, another folder, so that nothing is scored on older data."""
        return Path("runs") / f"bench-{self.name}-{self.protocol_hash()}"

    def rows(self) -> Rows:
        """Read all results."""
        return read_results(self.name)

    def cell_file(self, *cell: object) -> Path:
        """Name the result file of a cell by what tells it from the others."""
        return RESULTS / self.name / f"{'-'.join(map(str, cell))}.json"

    def write_cell(self, cell: Mapping[str, object], **facts: object) -> None:
        """Write the result file of a cell: what tells it from the others, in the order of its name, and the facts."""
        path = self.cell_file(*cell.values())
        write_result(path, study=self.name, protocol=self.protocol_hash(), **cell, **facts)


def read_results(name: str) -> Rows:
    """Read all result files below ``results/<name>``."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RESULTS / name).glob("*.json"))]


def write_result(path: Path, **facts: object) -> None:
    """Write one result file with commit and machine, whole or not at all."""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    content = {**facts, "commit": commit.stdout.strip(), "machine": machine(), "written": time.strftime("%Y-%m-%d")}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def spread(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    """Format mean ± standard deviation over seeds."""
    if not values:
        return "n/a"
    mean = format(statistics.fmean(values), f"{sign}.{digits}f")
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _read_yaml(path: Path) -> dict[str, Any]:
    keys: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return keys


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            node.body = [line for line in body if not isinstance(line, ast.Import | ast.ImportFrom)]
    return ast.dump(tree)
