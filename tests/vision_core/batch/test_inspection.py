"""The plan of a batch: what it opens, what it remembers, what it refuses."""

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vision_core.batch.engine import Watcher, run_batch
from vision_core.batch.inspection import PLAN, Inspected, Plan, in_words, inspect_inputs, read_plan
from vision_core.batch.job import BatchJob, FileProcessor
from vision_core.errors import EnvironmentFault, InputError


def measure(path: Path) -> Inspected:
    """Its bytes; a file that says bad is."""
    if path.read_bytes() == b"bad":
        raise InputError(f"'{path.name}' is bad.")
    size = path.stat().st_size
    return Inspected(facts={"bytes": size}, work={"tiles": size}, output_bytes=2 * size)


class Copier(FileProcessor[bytes]):
    """Copies a file; remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, item: Path) -> bytes:
        self.calls.append(item.name)
        return item.read_bytes()

    def write(self, result: bytes, path: Path, folder: Path) -> list[Path]:
        (folder / f"{path.stem}.out").write_bytes(result)
        return [folder / f"{path.stem}.out"]


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {"a": b"1", "b": b"bad", "c": b"333"}.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def job(
    inputs: list[Path], make: Callable[[], Copier], inspect: Callable[[Path], Inspected] = measure
) -> BatchJob[Any]:
    out = inputs[0].parent.parent / "out"
    return BatchJob(inputs=inputs, out=out, make_predictor=make, fingerprint="f", version="1", inspect=inspect)


def test_run_batch__what_cannot_be_opened_fails_before_the_first_is_done(inputs: list[Path]) -> None:
    told: list[str] = []
    copier = Copier()

    class Seeing(Watcher):
        def planned(self, plan: Plan) -> None:
            assert not copier.calls
            told.extend(in_words(plan))

    summary = run_batch(job(inputs, lambda: copier), Seeing())
    assert told == [
        "Plan: 2 of 3 inputs can be read; about 0 MiB will be written, 4 tiles.",
        "  will fail: 'b' is bad.",
    ]
    assert copier.calls == ["a", "c"]
    assert (summary.exit_code, summary.failures) == (4, {str(inputs[1]): "'b' is bad."})


def test_run_batch__nothing_is_loaded_when_no_input_can_be_opened(inputs: list[Path]) -> None:
    summary = run_batch(job(inputs[1:2], lambda: pytest.fail("loaded")))
    assert summary.exit_code == 3


def test_inspect_inputs__what_has_not_changed_is_not_opened_again(inputs: list[Path], tmp_path: Path) -> None:
    inspect_inputs(inputs, measure, tmp_path)
    before = (tmp_path / PLAN).read_bytes()
    opened: list[str] = []

    def remember(path: Path) -> Inspected:
        opened.append(path.name)
        return measure(path)

    inspect_inputs(inputs, remember, tmp_path)
    assert opened == ["b"]  # what failed may have been mended
    assert (tmp_path / PLAN).read_bytes() == before
    inputs[0].write_bytes(b"4444")
    opened.clear()
    assert inspect_inputs(inputs, remember, tmp_path)[str(inputs[0])].inspected == measure(inputs[0])
    assert sorted(opened) == ["a", "b"]


def test_inspect_inputs__more_than_the_disk_holds(inputs: list[Path], tmp_path: Path) -> None:
    size = 2 * shutil.disk_usage(tmp_path).free
    with pytest.raises(EnvironmentFault, match=r"results need about [\d,]+ MiB, [\d,]+ MiB are free"):
        inspect_inputs(inputs, lambda path: Inspected(output_bytes=size), tmp_path)


def test_inspect_inputs__a_share_that_fails_now_may_be_there_later(inputs: list[Path], tmp_path: Path) -> None:
    def unreachable(path: Path) -> Inspected:
        raise OSError(errno.EIO, "injected")

    plan = inspect_inputs(inputs, unreachable, tmp_path)
    assert not any(each.reason for each in plan.values())


@pytest.mark.parametrize("content", ["", "[]", '{"inputs": 3}', '{"inputs": {"a": {"stamp": 7}}}', "\0"])
def test_read_plan__a_damaged_one_counts_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text(content)
    assert read_plan(tmp_path) == {}


def test_plan__is_json_for_people(inputs: list[Path], tmp_path: Path) -> None:
    inspect_inputs(inputs, measure, tmp_path)
    content: Mapping[str, Any] = json.loads((tmp_path / PLAN).read_text())
    assert content["inputs"][str(inputs[1])]["reason"] == "'b' is bad."
    assert content["inputs"][str(inputs[2])]["inspected"] == {
        "facts": {"bytes": 3}, "work": {"tiles": 3}, "output_bytes": 6,
    }  # fmt: skip
