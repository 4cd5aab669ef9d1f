import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apps import doctor

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "status"), [(GIB - 1, "fault"), (GIB, "note"), (4 * GIB - 1, "note"), (4 * GIB, "ok")]
)
def test_check_free_space__bounds(free: int, status: str) -> None:
    check = doctor.check_free_space("disk", free, needed=GIB, comfortable=4 * GIB)
    assert check.status == status
    assert bool(check.fix) == (status == "fault")


@pytest.mark.parametrize(
    ("found", "system", "status"),
    [
        ((3, 11, 7), "Linux x86_64", "ok"),
        ((3, 12, 0), "Linux x86_64", "note"),
        ((3, 11, 7), "Darwin arm64", "note"),
        ((3, 10, 9), "Linux x86_64", "fault"),
    ],
)
def test_check_python__other_than_the_lock_is_said(found: tuple[int, ...], system: str, status: str) -> None:
    assert doctor.check_python(found, system).status == status


def test_available_memory__limit_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 64 kB\nMemAvailable:     32 kB\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.available_memory(tmp_path / "meminfo", tmp_path) == 32 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert doctor.available_memory(tmp_path / "meminfo", tmp_path) == 4000


def test_by_extra__requirements_are_grouped_and_the_sum_of_extras_is_left_out() -> None:
    declared = ["torch>=2.10", 'gradio>=6.24; extra == "apps"', 'domainsight[apps]; extra == "all"']
    assert doctor.by_extra(declared) == {"": ["torch>=2.10"], "apps": ["gradio>=6.24"]}


def test_requirement_problem__names_found_and_needed_version() -> None:
    assert doctor.requirement_problem("pytest>=1") == ""
    assert doctor.requirement_problem("pytest>=1000") == f"pytest {pytest.__version__}, needed >=1000"
    assert doctor.requirement_problem("not-a-package>=1") == "not-a-package is not installed"


def test_check_extra__only_the_main_job_makes_a_fault() -> None:
    needed = doctor.check_extra("", ["not-a-package>=1"])
    optional = doctor.check_extra("apps", ["pytest>=1", "not-a-package>=1"])
    assert (needed.status, optional.status) == ("fault", "note")
    assert optional.fix == f"{sys.executable} -m pip install 'not-a-package>=1'"


@pytest.mark.parametrize(
    ("gpus", "reason", "has_driver", "status"),
    [
        (["A100"], "", True, "ok"),
        ([], "no driver", False, "ok"),
        ([], "driver too old", True, "note"),
        (["A100"], "no kernel image", True, "note"),
    ],
)
def test_check_gpu__visible_but_unusable_is_said(gpus: list[str], reason: str, has_driver: bool, status: str) -> None:
    check = doctor.check_gpu(gpus, reason, has_driver=has_driver)
    assert check.status == status
    assert (reason in check.found) == (status == "note") or not reason


def test_check_writable__missing_folder_is_a_fault(tmp_path: Path) -> None:
    assert doctor.check_writable(tmp_path).status == "ok"
    assert doctor.check_writable(tmp_path / "gone").status == "fault"


def test_render__fix_has_a_line_of_its_own() -> None:
    check = doctor.Check(name="disk", status="fault", found="0.1 GiB free", fix="free at least 1 GiB")
    assert doctor.render(check, coloured=False) == (
        "FAIL  disk          0.1 GiB free\n                    fix: free at least 1 GiB"
    )
    assert "\033[31mFAIL\033[0m" in doctor.render(check, coloured=True)


def test_main__bare_python_is_told_to_set_up() -> None:
    root = Path(doctor.__file__).parents[1]
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(root)!r}); sys.argv[1:] = []\n"]
    command[-1] += "from apps.doctor import main; sys.exit(main())"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 5, done.stderr
    assert "fix: run 'make setup'" in done.stdout


def test_main__this_environment_is_ready() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apps.doctor"], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\033" not in done.stdout


def test_check_browser__none_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert doctor.check_browser().fix.startswith("apt-get install")
