"""Inputs in which the process ends without a word, as by a crash of a decoder."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.vision_core.counted import Counter, files_of, make_job
from vision_core.batch.engine import Summary, run_batch
from vision_core.batch.inspection import Inspected
from vision_core.batch.job import BatchJob
from vision_core.batch.ledger import ENDED_HERE, read_ledgers
from vision_core.errors import Interrupted


@pytest.fixture
def job(tmp_path: Path) -> BatchJob[int]:
    """Four good inputs."""
    made = make_job(tmp_path)
    return replace(made, inputs=[path for path in made.inputs if path.name != "c.png"])


def crash_at(name: str, path: Path) -> None:
    if path.name == name:
        os.kill(os.getpid(), signal.SIGKILL)


def in_child(action: Callable[[], object]) -> int | None:
    child = multiprocessing.get_context("fork").Process(target=action)
    child.start()
    child.join(60)
    return child.exitcode


def crashing(job: BatchJob[int], name: str) -> BatchJob[int]:
    return replace(job, make_predictor=partial(Counter, partial(crash_at, name)))


def done(job: BatchJob[int]) -> set[str]:
    return {Path(name).name for name, record in read_ledgers(job.out / "ledger").items() if record.status == "done"}


def test_run_batch__an_input_that_ends_the_process_fails_after_two_starts_and_the_rest_is_done(
    job: BatchJob[int],
) -> None:
    faulty = crashing(job, "b.png")
    assert in_child(partial(run_batch, faulty)) == -signal.SIGKILL
    assert done(job) == {"a.png"}
    assert in_child(partial(run_batch, faulty)) == -signal.SIGKILL
    assert done(job) == {
        "a.png",
        "e.png",
    }  # b again after all but d, which was prepared beside it
    summary = run_batch(faulty)
    assert (summary.done, summary.exit_code) == (3, 4)
    assert ENDED_HERE in summary.failures[str(job.inputs[1])]
    assert ENDED_HERE in (job.out / "failures.csv").read_text(encoding="utf-8")


def test_run_batch__a_failed_crash_is_tried_again_as_other_failures_are_and_after_all_others(
    job: BatchJob[int],
) -> None:
    faulty = crashing(job, "a.png")
    for _ in range(2):
        in_child(partial(run_batch, faulty))
    run_batch(faulty)
    new = job.inputs[0].with_name("f.png")
    new.write_bytes(b"new")
    faulty = replace(faulty, inputs=[*job.inputs, new])
    assert in_child(partial(run_batch, faulty)) == -signal.SIGKILL
    assert done(job) == {"b.png", "d.jpg", "e.png", "f.png"}
    healed = replace(job, inputs=[*job.inputs, new])
    assert run_batch(healed).done == 5
    assert not list((job.out / "ledger").glob("*.started"))


def test_run_batch__a_kill_by_a_person_fails_no_sound_input(job: BatchJob[int]) -> None:
    """Killed at another input each time, and once more at one of them."""
    for name in ("a.png", "e.png", "b.png"):
        assert in_child(partial(run_batch, crashing(job, name))) == -signal.SIGKILL
    assert run_batch(job).done == 4


def test_run_batch__an_orderly_end_is_no_crash(job: BatchJob[int]) -> None:
    def interrupt(path: Path) -> None:
        if path.name == "b.png":
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(Interrupted):
            run_batch(replace(job, make_predictor=lambda: Counter(interrupt)))
    assert not list((job.out / "ledger").glob("*.started"))
    assert run_batch(job).done == 4


class Ahead(Counter):
    """Opens what is expected, and ends the process where that is the name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def expect(self, paths: Sequence[Path]) -> None:
        for path in paths:
            crash_at(self.name, path)


def test_run_batch__a_crash_in_preparing_the_next_input_is_not_laid_on_the_present_one(job: BatchJob[int]) -> None:
    faulty = replace(job, make_predictor=partial(Ahead, "d.jpg"))
    for _ in range(3):
        assert in_child(partial(run_batch, faulty)) == -signal.SIGKILL
    assert done(job) == {"a.png", "b.png", "e.png"}
    assert set(run_batch(faulty).failures) == {str(job.inputs[2])}


def inspect(name: str, path: Path) -> Inspected:
    crash_at(name, path)
    return Inspected(facts={"bytes": path.stat().st_size})


def test_run_batch__a_crash_in_the_inspection_fails_that_input_alone(job: BatchJob[int]) -> None:
    faulty = replace(job, inspect=partial(inspect, "b.png"))
    summaries: list[Summary] = []
    for _ in range(8):  # those that were inspected beside it are inspected one by one
        if in_child(partial(run_batch, faulty)) == 0:
            summaries.append(run_batch(replace(faulty, inputs=[path for path in job.inputs if path.name != "b.png"])))
            break
    assert summaries[0].done == 3
    record = read_ledgers(job.out / "ledger")[str(job.inputs[1])]
    assert record.status == "failed"
    assert ENDED_HERE in record.reason


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": "x"}', "3"])
def test_run_batch__a_damaged_note_of_starts_is_ignored(job: BatchJob[int], text: str) -> None:
    run_batch(replace(job, inputs=job.inputs[:1]))
    (job.out / "ledger" / ".0.started").write_text(text)
    assert run_batch(job).done == 4


def test_run_batch__overwrite_forgets_the_starts(job: BatchJob[int]) -> None:
    for _ in range(2):
        in_child(partial(run_batch, crashing(job, "a.png")))
    assert run_batch(replace(job, overwrite=True)).done == 4


def test_run_batch__a_crash_leaves_the_same_files(job: BatchJob[int]) -> None:
    assert in_child(partial(run_batch, crashing(job, "d.jpg"))) == -signal.SIGKILL
    run_batch(job)
    elsewhere = replace(job, out=job.out.parent / "undisturbed" / job.out.name)
    run_batch(elsewhere)
    assert files_of(job.out) == files_of(elsewhere.out)
