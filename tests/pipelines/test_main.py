import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import __main__ as command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, docstring in (("beta", "Second task."), ("alpha", "First task.\n\nAt length.")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'"""{docstring}"""\nimport not_there\n')
        (tmp_path / name / "__main__.py").touch()
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_tasks__folders_that_can_be_run_are_found_without_import(folder: Path) -> None:
    assert command.tasks(folder) == {"alpha": "First task.", "beta": "Second task."}


def test_overview__has_a_line_per_task(folder: Path) -> None:
    assert "\n  alpha  First task.\n  beta   Second task.\n" in command.overview(folder)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_main__without_a_task_lists_them(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 0
    assert "sfod" in capsys.readouterr().out


def test_main__unknown_task_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["sfdo", "train"]) == 2
    assert capsys.readouterr().err == "error[USAGE] There is no task 'sfdo'. Did you mean 'sfod'?\n"


def test_main__task_runs_as_a_module_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pipelines" / "echo").mkdir(parents=True)
    (tmp_path / "pipelines" / "echo" / "__init__.py").touch()
    (tmp_path / "pipelines" / "echo" / "__main__.py").write_text(
        "import sys\nsys.exit(f'{__name__} {__spec__.name} {sys.argv[1:]}')\n"
    )
    monkeypatch.setattr("pipelines.__path__", [str(tmp_path / "pipelines")])
    monkeypatch.setattr(command, "_FOLDER", tmp_path / "pipelines")
    monkeypatch.setattr(sys, "argv", ["domainsight"])
    with pytest.raises(SystemExit) as stop:
        command.main(["echo", "train", "--resume"])
    assert stop.value.code == "__main__ pipelines.echo.__main__ ['train', '--resume']"


def test_main__overview_imports_nothing_heavy() -> None:
    code = "import sys; from pipelines.__main__ import main; main([]); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
