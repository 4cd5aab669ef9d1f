import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from requirements.lock import EXTRAS

FOLDER = Path(__file__).parents[2] / "requirements"
FILES = ("build.txt", "lock.txt", "assets.txt", "detectron2.txt", "pymust.txt")


def pins(*files: str) -> dict[str, str]:
    lines = [line for file in files for line in (FOLDER / file).read_text().splitlines() if not line.startswith("#")]
    return dict(line.split(" ")[0].split("==") for line in lines)


def declared() -> list[Requirement]:
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    optional = [line for extra in EXTRAS.split(",") for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in dict.fromkeys(project["dependencies"] + optional)]  # extras share some


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_lock__pins_a_version_that_the_project_allows(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins("lock.txt")[requirement.name])


def test_lock__the_simulator_of_a_benchmark_is_pinned_apart() -> None:
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    [requirement] = map(Requirement, project["optional-dependencies"]["simulation"])
    assert requirement.specifier.contains(pins("pymust.txt")[requirement.name])
    assert requirement.name not in pins("lock.txt")
    assert "simulation" not in project["optional-dependencies"]["all"][0]


def test_lock__no_package_is_pinned_twice() -> None:
    assert sum(len(pins(file)) for file in FILES) == len(pins(*FILES))


@pytest.mark.parametrize("file", FILES)
def test_lock__every_line_has_a_hash_and_no_address(file: str) -> None:
    lines = [line for line in (FOLDER / file).read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
