import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vision_core.errors import EnvironmentFault, UsageError
from vision_core.runs.folder import RunFolder, started

RECORDS = {"run.json": '{"status": "done"}', "config.yaml": "{method: a, data: {}, source: {}, train: {}, optim: {}}"}
RUN_FILES = ("config.yaml", "run.json", "last.pt", "metrics.jsonl", "log.txt", "model/card.json", "pictures/a.png")


def written(folder: Path, *names: str) -> RunFolder:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(RECORDS.get(name, name))
    return RunFolder(folder)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def lock(folder: Path, **changes: object) -> None:
    with RunFolder(folder).locked():
        holder = json.loads((folder / "lock.json").read_text())
    (folder / "lock.json").write_text(json.dumps(holder | changes))


def test_open__new_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new" / "run")
    run.open(resume=False, overwrite=False)
    assert list(run.path.iterdir()) == []
    assert not run.is_used()


@pytest.mark.parametrize(
    "names", [["run.json"], ["config.yaml"], ["run.json", "last.pt"], ["config.yaml", "last.prev.pt"]]
)
def test_open__folder_of_another_run_is_refused_and_not_touched(tmp_path: Path, names: list[str]) -> None:
    run = written(tmp_path, *names)
    with pytest.raises(UsageError, match=r"holds another run\. Use --resume .* or --overwrite, or --out"):
        run.open(resume=False, overwrite=False)
    assert files(tmp_path) == set(names)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", '{"runs": 10}'),
        ("run.json", "another"),
        ("config.yaml", "model: resnet"),
        ("config.yaml", "- a: list"),
        ("last.pt", "weights of another program"),
        ("model/net.py", "import torch"),
        ("metrics.jsonl", "{}"),
    ],
)
def test_open__names_of_a_run_prove_nothing(tmp_path: Path, name: str, content: str, overwrite: bool) -> None:
    run = written(tmp_path, name)
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=r"is no run folder: it holds 1 other files") as refused:
        run.open(resume=False, overwrite=overwrite)
    assert "overwrite" not in str(refused.value)
    assert (tmp_path / name).read_text() == content


def test_open__data_made_before_the_run_are_no_other_files(tmp_path: Path) -> None:
    written(tmp_path, "data/image.png").open(resume=False, overwrite=False)
    assert files(tmp_path) == {"data/image.png"}


def test_open__resume_keeps_everything(tmp_path: Path) -> None:
    written(tmp_path, *RUN_FILES).open(resume=True, overwrite=False)
    assert files(tmp_path) == set(RUN_FILES)


def test_open__overwrite_clears_the_run_and_nothing_else(tmp_path: Path) -> None:
    written(tmp_path, *RUN_FILES, "data/image.png", "notes.txt").open(resume=False, overwrite=True)
    assert files(tmp_path) == {"data/image.png", "notes.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("resume", [False, True])
def test_open__folder_that_is_no_run_is_refused_and_not_touched(tmp_path: Path, resume: bool, overwrite: bool) -> None:
    project = ("config.yaml", "model/net.py", "pictures/cat.png", "last.pt", "thesis.tex")
    run = written(tmp_path, *project)
    (tmp_path / "config.yaml").write_text("mine: true")
    with pytest.raises(UsageError, match=r"is no run folder: it holds 1 other files, such as 'thesis\.tex'"):
        run.open(resume=resume, overwrite=overwrite)
    assert files(tmp_path) == set(project)


def test_open__overwrite_of_an_unused_folder_deletes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it holds 1 other files, such as 'model'"):
        written(tmp_path, "model/card.json").open(resume=False, overwrite=True)
    assert files(tmp_path) == {"model/card.json"}


def test_open__file_as_folder_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "out")
    with pytest.raises(UsageError, match=r"--out .*/out is a file; give a folder"):
        RunFolder(tmp_path / "out").open(resume=False, overwrite=True)


@pytest.mark.parametrize("inside", ["file/run", "a" * 300, "/proc/run", "/sys/run"])
def test_open__folder_that_cannot_be_made_is_a_fault_of_the_machine(tmp_path: Path, inside: str) -> None:
    written(tmp_path, "file")
    with pytest.raises(EnvironmentFault, match=r"cannot be written: .*\. Choose another --out"):
        RunFolder(tmp_path / inside).open(resume=False, overwrite=False)


def test_open__leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom vision_core.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'last.pt') as path:\n    path.write_text('half')\n    os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    run.open(resume=False, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_locked__is_released_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), RunFolder(tmp_path).locked():
        assert (tmp_path / "lock.json").exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}, {}])
def test_open__folder_of_a_living_process_is_refused_untouched(tmp_path: Path, options: dict[str, bool]) -> None:
    written(tmp_path, "run.json", "last.pt")
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    lock(tmp_path, pid=os.getppid(), start=stat.rpartition(")")[2].split()[19])
    run = RunFolder(tmp_path)
    with pytest.raises(UsageError, match=f"is in use by process {os.getppid()} on" if options else "holds another run"):
        run.open(**{"resume": False, "overwrite": False, **options})
    with pytest.raises(UsageError, match="is in use by process"), run.locked():
        pass
    assert files(tmp_path) == {"run.json", "last.pt", "lock.json"}


@pytest.mark.parametrize(
    "changes",
    [{"pid": 2**22 + 1}, {"pid": os.getppid(), "start": "1"}, {"boot": "another", "pid": os.getppid()}],
    ids=["process is gone", "number went to another process", "machine was started anew"],
)
def test_locked__lock_of_a_dead_process_is_taken_over(tmp_path: Path, changes: dict[str, object]) -> None:
    lock(tmp_path, **changes)
    with RunFolder(tmp_path).locked():
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_locked__lock_of_a_process_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom vision_core.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert (tmp_path / "lock.json").exists()
    with RunFolder(tmp_path).locked():
        pass


def test_locked__process_of_another_machine_counts_as_living(tmp_path: Path) -> None:
    lock(tmp_path, host="elsewhere", pid=2**22 + 1)
    with pytest.raises(UsageError, match=r"in use by process \d+ on elsewhere"), RunFolder(tmp_path).locked():
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": null}'])
def test_locked__lock_that_says_nothing_is_taken_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.json").write_text(text)
    with RunFolder(tmp_path).locked():
        pass


def test_describe__adds_to_what_is_known(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.describe(status="running", place=Path("größe"))
    run.describe(status="finished")
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "finished", "place": "größe"}


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_describe__damaged_record_is_written_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    RunFolder(tmp_path).describe(status="running")
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "running"}


def test_started__tells_command_and_time() -> None:
    found = started()
    assert set(found) == {"command", "commit", "started"}
    assert found["command"]


def test_describe__the_folder_says_what_its_files_are_for_until_it_is_cleared(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.open(resume=False, overwrite=False)
    run.describe(status="running")
    assert "model/" in (run.path / "README.txt").read_text()
    run.open(resume=False, overwrite=True)
    assert list(run.path.iterdir()) == []
    run.describe(status="running")
    (run.path / "README.txt").write_text("mine")
    run.open(resume=False, overwrite=True)
    assert [path.name for path in run.path.iterdir()] == ["README.txt"]
