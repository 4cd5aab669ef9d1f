"""A batch whose predictor counts bytes, and what it leaves."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from vision_core.batch.job import BatchJob, FileProcessor
from vision_core.csv_tables import Cell
from vision_core.errors import InputError
from vision_core.files import write_atomic

Hook = Callable[[Path], None]


def nothing(_path: Path) -> None:
    """No fault."""


class Counter(FileProcessor[int]):
    """Counts the bytes of a file, and writes the count and a copy; faults come in through the hooks."""

    calls: list[str]

    def __init__(self, before: Hook = nothing, between: Hook = nothing) -> None:
        self.before, self.between = before, between
        self.calls = []

    def __call__(self, item: Path) -> int:
        self.calls.append(item.name)
        self.before(item)
        content = item.read_bytes()
        if content == b"bad":
            raise InputError(f"'{item.name}' is bad.")
        return len(content)

    def write(self, result: int, path: Path, folder: Path) -> list[Path]:
        record, copy = folder / f"{path.stem}.json", folder / f"{path.stem}.boxes.bin"
        write_atomic(record, json.dumps({"bytes": result}))
        self.between(path)
        copy.write_bytes(path.read_bytes())
        return [record, copy]


def columns(result: int) -> Mapping[str, Cell]:
    return {"bytes": result}


def make_job(folder: Path) -> BatchJob[int]:
    """Five inputs, the middle one bad."""
    inside = folder / "in"
    inside.mkdir()
    contents = {"a.png": b"1", "b.png": b"22", "c.png": b"bad", "d.jpg": b"4444", "e.png": b"55555"}
    for name, content in contents.items():
        (inside / name).write_bytes(content)
    inputs = sorted(inside.iterdir())
    return BatchJob(
        inputs=inputs, out=folder / "out", make_predictor=Counter, fingerprint="f", version="1", columns=columns
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything but what holds times."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("ledger/")}
