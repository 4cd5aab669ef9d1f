import errno
import json
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vision_core import batch, stopping
from vision_core.batch import BatchJob, Watcher, run_batch
from vision_core.batch_plan import output_names, plan
from vision_core.errors import EnvironmentFault, InputError, Interrupted, MissingDependencyError, UsageError
from vision_core.files import write_atomic
from vision_core.ledger import Cell, Ledger, Record, all_records, read_ledgers

Hook = Callable[[Path], None]


def nothing(_path: Path) -> None:
    """No fault."""


class Counter:
    """Counts the bytes of a file, and writes the count and a copy; faults come in through the hooks."""

    calls: list[str]

    def __init__(self, before: Hook = nothing, between: Hook = nothing) -> None:
        self.before, self.between = before, between
        self.calls = []

    def __call__(self, path: Path) -> int:
        self.calls.append(path.name)
        self.before(path)
        content = path.read_bytes()
        if content == b"bad":
            raise InputError(f"'{path.name}' is bad.")
        return len(content)

    def write(self, result: int, path: Path, folder: Path) -> list[Path]:
        record, copy = folder / f"{path.stem}.json", folder / f"{path.stem}.boxes.bin"
        write_atomic(record, json.dumps({"bytes": result}))
        self.between(path)
        copy.write_bytes(path.read_bytes())
        return [record, copy]


def columns(result: int) -> Mapping[str, Cell]:
    return {"bytes": result}


@pytest.fixture
def job(tmp_path: Path) -> BatchJob[int]:
    """Five inputs, the middle one bad."""
    folder = tmp_path / "in"
    folder.mkdir()
    contents = {"a.png": b"1", "b.png": b"22", "c.png": b"bad", "d.jpg": b"4444", "e.png": b"55555"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    inputs = sorted(folder.iterdir())
    return BatchJob(
        inputs=inputs, out=tmp_path / "out", make_predictor=Counter, fingerprint="f", version="1", columns=columns
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything but what holds times."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("ledger/")}


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


@pytest.mark.parametrize("change", [{"fingerprint": "g"}, {"version": "2"}, {"inputs": [Path("elsewhere/a.png")]}])
def test_run_batch__other_batch_in_the_folder_is_refused_and_untouched(
    job: BatchJob[int], change: dict[str, Any]
) -> None:
    run_batch(job)
    before = files_of(job.out)
    with pytest.raises(UsageError, match="holds a batch of other inputs"):
        run_batch(replace(job, **change))
    assert files_of(job.out) == before


def test_run_batch__overwrite_removes_the_other_batch_alone(job: BatchJob[int]) -> None:
    run_batch(job)
    foreign = job.out / "outputs" / "notes.txt"
    foreign.write_text("mine", encoding="utf-8")
    run_batch(replace(job, inputs=job.inputs[:1], fingerprint="g", overwrite=True))
    assert {path.name for path in (job.out / "outputs").iterdir()} == {"a.json", "a.boxes.bin", "notes.txt"}
    assert list(read_ledgers(job.out / "ledger")) == [str(job.inputs[0])]


def test_run_batch__folder_with_other_files_is_refused(job: BatchJob[int]) -> None:
    job.out.mkdir()
    (job.out / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"is not empty \('thesis\.tex'\)"):
        run_batch(job)
    assert [path.name for path in job.out.iterdir()] == ["thesis.tex"]


def test_run_batch__folder_that_cannot_be_made_is_told_before_loading(job: BatchJob[int], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    unwritable = replace(job, out=tmp_path / "file" / "out", make_predictor=lambda: pytest.fail("loaded"))
    with pytest.raises(EnvironmentFault, match="Cannot write"):
        run_batch(unwritable)


def test_plan__tells_why_an_input_is_done_again(job: BatchJob[int]) -> None:
    run_batch(job)
    (job.inputs[0]).write_bytes(b"7")
    (job.out / "outputs" / "b.json").unlink()
    (job.out / "outputs" / "d.boxes.bin").write_bytes(b"444x")
    assert {task.path.name: task.reason for task in plan(job)} == {
        "a.png": "the input has changed",
        "b.png": "its output 'outputs/b.json' is missing",
        "c.png": "it failed before",
        "d.jpg": "its output 'outputs/d.boxes.bin' is not what was written",
    }


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
    [(MemoryError(), "needs more memory"), (ZeroDivisionError("by 0"), "Internal error (ZeroDivisionError: by 0)")],
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


def test_run_batch__input_that_is_gone_is_named(job: BatchJob[int]) -> None:
    job.inputs[0].unlink()
    assert "a.png' cannot be opened" in run_batch(job).failures[str(job.inputs[0])]


def test_run_batch__inputs_of_one_stem_get_outputs_of_their_own(job: BatchJob[int]) -> None:
    twin = job.inputs[0].with_suffix(".jpg")
    twin.write_bytes(b"twin")
    run_batch(job)
    run_batch(replace(job, inputs=[*job.inputs, twin]))
    outputs = job.out / "outputs"
    assert json.loads((outputs / "a.png.json").read_bytes()) == {"bytes": 1}
    assert json.loads((outputs / "a.jpg.json").read_bytes()) == {"bytes": 4}
    assert not (outputs / "a.json").exists()


def test_output_names__same_file_name_in_two_folders() -> None:
    names = output_names([Path("x/a.png"), Path("y/a.png"), Path("x/b.png"), Path("x/b.png")])
    assert len(set(names.values())) == len(names) == 3
    assert names[Path("x/b.png")] == "b"
    assert all(name.startswith("a.png-") for path, name in names.items() if path.stem == "a")


def test_run_batch__two_at_once_in_one_folder_are_refused(job: BatchJob[int]) -> None:
    def enter_again(_path: Path) -> None:
        with pytest.raises(UsageError, match="Another process works on"):
            run_batch(job)

    run_batch(replace(job, make_predictor=lambda: Counter(enter_again)))


def test_output_names__a_name_that_is_another_ones_stem() -> None:
    names = output_names([Path("a.svs"), Path("a.tif"), Path("a.tif.tif"), Path("b.tif")])
    assert len({name.casefold() for name in names.values()}) == 4
    assert names[Path("b.tif")] == "b"


def test_run_batch__what_an_input_follows_from_besides(job: BatchJob[int]) -> None:
    masks = {"b.png": "mask"}
    counter = Counter()
    job = replace(job, make_predictor=lambda: counter, follows=lambda path: masks.get(path.name, ""))
    run_batch(job)
    counter.calls.clear()
    run_batch(job)
    assert counter.calls == ["c.png"]  # which failed
    masks |= {"b.png": "edited", "d.jpg": "new"}
    counter.calls.clear()
    run_batch(job)
    assert counter.calls == ["b.png", "c.png", "d.jpg"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_run_batch__inputs_are_never_among_the_outputs(job: BatchJob[int], overwrite: bool) -> None:
    run_batch(job)
    made = sorted((job.out / "outputs").glob("*.json"))
    before = files_of(job.out)
    with pytest.raises(UsageError, match="lies among the outputs"):
        run_batch(replace(job, inputs=made, overwrite=overwrite))
    assert files_of(job.out) == before


def test_run_batch__a_name_that_is_no_utf8_is_an_input_like_others(job: BatchJob[int]) -> None:
    strange = job.inputs[0].with_name(os.fsdecode(b"stra\xffnge.png"))
    strange.write_bytes(b"1234567")
    inputs = [*job.inputs, strange]
    summary = run_batch(replace(job, inputs=inputs))
    assert summary.done == 5 and len(summary.failures) == 1
    assert "stra\\xffnge.png" in (job.out / "results.csv").read_text(encoding="utf-8")
    before = files_of(job.out)
    run_batch(replace(job, inputs=inputs))
    assert files_of(job.out) == before


def test_run_batch__a_signal_that_python_has_dropped_is_heeded(
    job: BatchJob[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler raises while an object is destroyed goes nowhere."""

    def ask(path: Path) -> None:
        if path.name == "b.png":
            with suppress(KeyboardInterrupt):
                stopping.interrupt(signal.SIGTERM, None)

    monkeypatch.setattr(stopping, "_is_asked", False)
    with pytest.raises(Interrupted):
        run_batch(replace(job, make_predictor=lambda: Counter(ask)))
    assert set(read_ledgers(job.out / "ledger")) == {str(path) for path in job.inputs[:2]}
    stopping.forget()
    assert run_batch(job).done == 4


def test_run_batch__a_faulty_model_leaves_the_folder_free(job: BatchJob[int]) -> None:
    def faulty() -> Counter:
        raise MissingDependencyError("no such engine")

    with pytest.raises(MissingDependencyError):
        run_batch(replace(job, make_predictor=faulty))
    assert run_batch(replace(job, fingerprint="another model")).done == 4


def test_run_batch__a_pipe_is_no_input(job: BatchJob[int]) -> None:
    pipe = job.inputs[0].with_name("pipe.png")
    os.mkfifo(pipe)
    assert "is a pipe, no file" in run_batch(replace(job, inputs=[pipe])).failures[str(pipe)]


def test_run_batch__inputs_in_a_new_folder_below_join_those_of_the_same_source(job: BatchJob[int]) -> None:
    job = replace(job, source=job.inputs[0].parent)
    run_batch(job)
    new = job.inputs[0].parent / "new" / "f.png"
    new.parent.mkdir()
    new.write_bytes(b"new")
    assert run_batch(replace(job, inputs=[*job.inputs, new])).done == 5
    with pytest.raises(UsageError, match="holds a batch of other inputs"):
        run_batch(replace(job, inputs=[new], source=new))
