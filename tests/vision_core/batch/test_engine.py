import errno
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.vision_core.counted import Counter, files_of, make_job
from vision_core import signals
from vision_core.batch import engine as batch
from vision_core.batch.engine import Summary, Watcher, run_batch
from vision_core.batch.job import BatchJob
from vision_core.batch.ledger import Ledger, Record, all_records, read_ledgers
from vision_core.errors import EnvironmentFault, Interrupted, MissingDependencyError, UsageError


@pytest.fixture
def job(tmp_path: Path) -> BatchJob[int]:
    """Five inputs, the middle one bad."""
    return make_job(tmp_path)


def undisturbed(job: BatchJob[int]) -> dict[str, bytes]:
    """The files of the same job in another folder."""
    elsewhere = replace(job, out=job.out.parent / "undisturbed" / job.out.name, make_predictor=Counter)
    run_batch(elsewhere)
    return files_of(elsewhere.out)


def in_child(action: Callable[[], Any]) -> int | None:
    """Run ``action`` in a process that may be killed; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=action)
    child.start()
    child.join(60)
    return child.exitcode


def kill_at(name: str, path: Path) -> None:
    if path.name == name:
        os.kill(os.getpid(), signal.SIGKILL)


def test_run_batch__bad_input_is_listed_and_the_others_are_done(job: BatchJob[int]) -> None:
    seen: list[tuple[str, int, int]] = []

    class Seeing(Watcher):
        def done(self, record: Record, number: int, total: int) -> None:
            seen.append((record.status, number, total))

    summary = run_batch(job, Seeing())
    assert (summary.done, summary.exit_code, summary.left) == (4, 4, 0)
    assert summary.failures == {str(job.inputs[2]): "'c.png' is bad."}
    assert seen == [("done", 1, 5), ("done", 2, 5), ("failed", 3, 5), ("done", 4, 5), ("done", 5, 5)]
    outputs = {f"{stem}{end}" for stem in "abde" for end in (".json", ".boxes.bin")}
    assert {path.name for path in (job.out / "outputs").iterdir()} == outputs
    table = (job.out / "results.csv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "input,bytes,outputs"
    assert table[1] == f"{job.inputs[0]},1,outputs/a.json outputs/a.boxes.bin"
    assert "'c.png' is bad." in (job.out / "failures.csv").read_text(encoding="utf-8")
    assert not list(job.out.glob(".staging*"))
    assert job.inputs[2].read_bytes() == b"bad"


@pytest.mark.parametrize(("kept", "code"), [((0, 1), 0), ((2,), 3), ((1, 2), 4)])
def test_summary__exit_code_tells_all_none_or_some(job: BatchJob[int], kept: tuple[int, ...], code: int) -> None:
    assert run_batch(replace(job, inputs=[job.inputs[index] for index in kept])).exit_code == code


class Farsighted(Counter):
    """Notes what it is told to expect, between what it is asked for."""

    def expect(self, paths: Sequence[Path]) -> None:
        self.calls.append("expects " + " ".join(path.name for path in paths))


def test_run_batch__a_farsighted_predictor_knows_the_next_input(job: BatchJob[int]) -> None:
    predictor = Farsighted()
    run_batch(replace(job, inputs=job.inputs[:2], make_predictor=lambda: predictor))
    assert predictor.calls == ["expects a.png b.png", "a.png", "expects b.png", "b.png", "expects "]


def test_run_batch__second_run_tries_only_what_failed(job: BatchJob[int]) -> None:
    run_batch(job)
    before = files_of(job.out)
    predictor = Counter()
    run_batch(replace(job, make_predictor=lambda: predictor))
    assert predictor.calls == ["c.png"]
    assert files_of(job.out) == before


def test_run_batch__nothing_to_do_loads_no_predictor(job: BatchJob[int]) -> None:
    good = replace(job, inputs=job.inputs[:2])
    run_batch(good)
    assert run_batch(replace(good, make_predictor=lambda: pytest.fail("loaded"))).done == 2


def test_run_batch__strict_stops_at_the_first_failure_and_the_rest_can_follow(job: BatchJob[int]) -> None:
    summary = run_batch(replace(job, strict=True))
    assert (summary.done, summary.left, summary.exit_code) == (2, 2, 4)
    assert run_batch(job).done == 4
    assert files_of(job.out) == undisturbed(job)


@pytest.mark.parametrize("name", ["a.png", "d.jpg", "e.png"])
@pytest.mark.parametrize("hook", ["before", "between"])
def test_run_batch__killed_at_an_input_ends_with_the_same_files(job: BatchJob[int], hook: str, name: str) -> None:
    killed = replace(job, make_predictor=partial(Counter, **{hook: partial(kill_at, name)}))
    assert in_child(partial(run_batch, killed)) == -signal.SIGKILL
    run_batch(job)
    assert files_of(job.out) == undisturbed(job)
    assert len(list(all_records(job.out / "ledger"))) == 5 + (name != "a.png")  # the bad one is tried again


def test_run_batch__killed_at_an_input_leaves_tables_of_what_is_done(job: BatchJob[int]) -> None:
    killed = replace(job, make_predictor=partial(Counter, before=partial(kill_at, "d.jpg")))
    assert in_child(partial(run_batch, killed)) == -signal.SIGKILL
    rows = (job.out / "results.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "input,bytes,outputs" and [Path(row.split(",")[0]).name for row in rows[1:]] == ["a.png", "b.png"]
    assert "'c.png' is bad." in (job.out / "failures.csv").read_text(encoding="utf-8")
    assert (job.out / "README.txt").exists()


def test_run_batch__a_readme_of_a_person_stays(job: BatchJob[int]) -> None:
    run_batch(job)
    (job.out / "README.txt").write_text("My notes on this batch.")
    run_batch(replace(job, fingerprint="other", overwrite=True))
    assert (job.out / "README.txt").read_text() == "My notes on this batch."


def test_summary__categories_are_counted_and_the_rest_is_left_out(job: BatchJob[int]) -> None:
    told = run_batch(replace(job, columns=lambda size: {"category": f"c{size}", "notice": ""})).lines()
    assert told[1] == "1 c1; 1 c2; 1 c4; 1 c5."
    many = Summary(out=job.out, done=20, categories={f"c{number}": 20 - number for number in range(20)}).lines()
    assert many[1].startswith("20 c0; 19 c1; ") and many[1].endswith("; 13 c7; others.")


@pytest.mark.parametrize("written", [0, 60])
def test_run_batch__killed_between_output_and_ledger_ends_with_the_same_files(
    job: BatchJob[int], written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(ledger: Ledger, record: Record) -> None:
        with ledger.path.open("ab") as file:
            file.write(record.model_dump_json().encode()[:written])
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", die)
        assert in_child(partial(run_batch, job)) == -signal.SIGKILL
    run_batch(job)
    assert files_of(job.out) == undisturbed(job)


def test_run_batch__full_disk_ends_it_with_what_was_done_valid(job: BatchJob[int]) -> None:
    (job.inputs[3]).write_bytes(bytes(20_000))
    codes = multiprocessing.get_context("fork").SimpleQueue()

    def with_little_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            run_batch(job)
        except EnvironmentFault as fault:
            codes.put((fault.exit_code, str(fault)))

    assert in_child(with_little_space) == 0
    code, told = codes.get()
    assert code == 5
    assert str(job.out) in told
    assert "file too large" in told
    assert {path.name for path in (job.out / "outputs").iterdir()} == {"a.json", "a.boxes.bin", "b.json", "b.boxes.bin"}
    run_batch(job)
    assert files_of(job.out) == undisturbed(job)


def test_run_batch__ctrl_c_leaves_tables_and_goes_on(job: BatchJob[int]) -> None:
    def interrupt(path: Path) -> None:
        if path.name == "d.jpg":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="2 of 5 inputs done"):
        run_batch(replace(job, make_predictor=lambda: Counter(interrupt)))
    assert "a.png" in (job.out / "results.csv").read_text(encoding="utf-8")
    run_batch(job)
    assert files_of(job.out) == undisturbed(job)


def test_run_batch__output_deleted_meanwhile_is_made_again(
    job: BatchJob[int], caplog: pytest.LogCaptureFixture
) -> None:
    def delete(path: Path) -> None:
        if path.name == "e.png":
            (job.out / "outputs" / "a.json").unlink(missing_ok=True)

    with caplog.at_level(logging.INFO, "domainsight"):
        run_batch(replace(job, make_predictor=lambda: Counter(delete)))
    assert files_of(job.out) == undisturbed(job)
    assert "a.png' is done again: its output 'outputs/a.json' is missing" in caplog.text


def test_run_batch__input_that_changes_while_read_fails_and_leaves_no_output(job: BatchJob[int]) -> None:
    def grow(path: Path) -> None:
        if path.name == "b.png":
            path.write_bytes(path.read_bytes() + b"2")

    summary = run_batch(replace(job, make_predictor=lambda: Counter(between=grow)))
    assert "changed while reading" in summary.failures[str(job.inputs[1])]
    assert not list((job.out / "outputs").glob("b.*"))


def test_run_batch__input_that_turned_bad_takes_its_old_outputs_with_it(job: BatchJob[int]) -> None:
    run_batch(job)
    job.inputs[1].write_bytes(b"bad")
    run_batch(job)
    assert not list((job.out / "outputs").glob("b.*"))


@pytest.mark.parametrize(("failures", "status"), [(3, "done"), (4, "failed")])
def test_run_batch__failing_disk_is_tried_three_times_more(
    job: BatchJob[int], failures: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BACKOFF_SECONDS", (0.0, 0.0, 0.0))
    left = [OSError(errno.EIO, os.strerror(errno.EIO))] * failures

    def fail(_path: Path) -> None:
        if left:
            raise left.pop()

    run_batch(replace(job, inputs=job.inputs[:1], make_predictor=lambda: Counter(fail)))
    record = read_ledgers(job.out / "ledger")[str(job.inputs[0])]
    assert record.status == status
    assert ("input/output error" in record.reason) == (status == "failed")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "needs more memory"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 3 GiB."),
            "The memory of the GPU is not enough",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "needs more memory than is free",
        ),
        (ZeroDivisionError("by 0"), "Internal error (ZeroDivisionError: by 0)"),
    ],
)
def test_run_batch__no_fault_of_one_input_ends_the_batch(job: BatchJob[int], error: Exception, told: str) -> None:
    def fail(path: Path) -> None:
        if path.name == "a.png":
            raise error

    summary = run_batch(replace(job, make_predictor=lambda: Counter(fail)))
    assert told in summary.failures[str(job.inputs[0])]
    assert summary.done == 3


def test_run_batch__fault_that_all_inputs_share_ends_the_batch(job: BatchJob[int]) -> None:
    def fail(_path: Path) -> None:
        raise MissingDependencyError("Package 'x' is not installed.")

    with pytest.raises(MissingDependencyError):
        run_batch(replace(job, make_predictor=lambda: Counter(fail)))


@pytest.mark.parametrize("reason", ["CUDA error: unspecified launch failure", "cuDNN error: CUDNN_STATUS_X"])
def test_run_batch__lost_gpu_ends_the_batch_which_goes_on_with_that_input(job: BatchJob[int], reason: str) -> None:
    def fail(path: Path) -> None:
        if path == job.inputs[1]:
            raise RuntimeError(f"{reason}\nCompile with TORCH_USE_CUDA_DSA to enable device-side assertions.")

    with pytest.raises(EnvironmentFault, match=rf"{job.inputs[1].name}': The GPU has failed \({reason}\)") as caught:
        run_batch(replace(job, make_predictor=lambda: Counter(fail)))
    assert caught.value.exit_code == 5
    assert [record.status for record in read_ledgers(job.out / "ledger").values()] == ["done"]
    assert run_batch(job).done == 4  # all but the bad one


def test_run_batch__input_that_is_gone_is_named(job: BatchJob[int]) -> None:
    job.inputs[0].unlink()
    assert "a.png' cannot be opened" in run_batch(job).failures[str(job.inputs[0])]


def test_run_batch__two_at_once_in_one_folder_are_refused(job: BatchJob[int]) -> None:
    def enter_again(_path: Path) -> None:
        with pytest.raises(UsageError, match="Another process works on"):
            run_batch(job)

    run_batch(replace(job, make_predictor=lambda: Counter(enter_again)))


def test_run_batch__a_signal_that_python_has_dropped_is_heeded(
    job: BatchJob[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler raises while an object is destroyed goes nowhere."""

    def ask(path: Path) -> None:
        if path.name == "b.png":
            with suppress(KeyboardInterrupt):
                signals.interrupt(signal.SIGTERM, None)

    monkeypatch.setattr(signals, "_is_asked", False)
    with pytest.raises(Interrupted):
        run_batch(replace(job, make_predictor=lambda: Counter(ask)))
    assert set(read_ledgers(job.out / "ledger")) == {str(path) for path in job.inputs[:2]}
    signals.forget()
    assert run_batch(job).done == 4


def test_run_batch__a_faulty_model_leaves_the_folder_free(job: BatchJob[int]) -> None:
    def faulty() -> Counter:
        raise MissingDependencyError("no such engine")

    with pytest.raises(MissingDependencyError):
        run_batch(replace(job, make_predictor=faulty))
    assert run_batch(replace(job, fingerprint="another model")).done == 4
