import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.vision_core.counted import Counter, files_of, make_job
from vision_core.batch.engine import run_batch
from vision_core.batch.job import BatchJob
from vision_core.batch.ledger import read_ledgers
from vision_core.batch.plan import output_names, plan
from vision_core.errors import EnvironmentFault, UsageError
from vision_core.files import sha256


@pytest.fixture
def job(tmp_path: Path) -> BatchJob[int]:
    """Five inputs, the middle one bad."""
    return make_job(tmp_path)


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


@pytest.mark.parametrize("overwrite", [False, True])
def test_run_batch__folder_with_other_files_is_refused(job: BatchJob[int], overwrite: bool) -> None:
    job.out.mkdir()
    (job.out / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"is not empty \('thesis\.tex'\)") as refused:
        run_batch(replace(job, overwrite=overwrite))
    assert "overwrite" not in str(refused.value)
    assert [path.name for path in job.out.iterdir()] == ["thesis.tex"]


def test_run_batch__a_batch_whose_identity_is_lost_is_known_by_its_ledger(job: BatchJob[int]) -> None:
    run_batch(job)
    before = files_of(job.out)
    (job.out / "job.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="use --overwrite to replace it"):
        run_batch(job)
    run_batch(replace(job, overwrite=True))
    assert files_of(job.out) == before


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


def test_plan__a_finished_batch_is_not_read_again(job: BatchJob[int], monkeypatch: pytest.MonkeyPatch) -> None:
    (job.inputs[0]).write_bytes(bytes(50_000))
    run_batch(job)
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr("vision_core.batch.ledger.sha256", counted)
    assert [task.path.name for task in plan(job)] == ["c.png"]
    assert not read
    copied = job.out / "outputs" / "a.boxes.bin"
    os.utime(copied, ns=(1, 1))  # as a copy of the folder has other times
    assert [task.path.name for task in plan(job)] == ["c.png"]
    assert read == [copied]
    assert len(plan(replace(job, check_outputs=True))) == 1
    assert len(read) == 1 + 8


@pytest.mark.parametrize(("place", "is_seen"), [(0, True), (49_999, True), (25_000, False)])
def test_plan__all_of_an_output_is_compared_on_request(job: BatchJob[int], place: int, is_seen: bool) -> None:
    (job.inputs[0]).write_bytes(bytes(50_000))
    run_batch(job)
    made = job.out / "outputs" / "a.boxes.bin"
    times = made.stat().st_atime_ns, made.stat().st_mtime_ns
    content = bytearray(made.read_bytes())
    content[place] ^= 1
    made.write_bytes(content)
    assert len(plan(job)) == 2  # the bad input, and by its time this one
    os.utime(made, ns=times)
    assert len(plan(job)) == 1 + is_seen
    assert len(plan(replace(job, check_outputs=True))) == 2


def test_plan__outputs_of_an_older_ledger_are_compared_whole(job: BatchJob[int]) -> None:
    run_batch(job)
    path = job.out / "ledger" / "0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for made in (made for line in lines for made in line["outputs"]):
        del made["modified_ns"], made["ends"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [task.path.name for task in plan(job)] == ["c.png"]
    (job.out / "outputs" / "b.boxes.bin").write_bytes(b"xx")
    assert [task.path.name for task in plan(job)] == ["b.png", "c.png"]
