"""Every settings file that is shipped loads, says something, and says nothing that is the default anyway."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vision_core.config.loading import dump, fingerprint, load_runs
from vision_core.config.schema import Config
from vision_core.config.strict_yaml import read_yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
TASKS = sorted(path.parent.name for path in (ROOT / "pipelines").glob("*/__main__.py"))


def config_class(task: str) -> type[Config]:
    module = importlib.import_module(f"pipelines.{task}.config")
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Config)]
    return next(each for each in found if each.__module__ == module.__name__)


def leaves(keys: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in keys.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def at(config: object, dotted: str) -> object:
    for name in dotted.split("."):
        config = getattr(config, name, None)
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_config__loads_and_comes_back_from_its_dump(path: Path, tmp_path: Path) -> None:
    found = load_runs(config_class(path.parent.name), path)
    for config in found.values():
        (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
        again = load_runs(type(config), tmp_path / "config.yaml")[""]
        assert again == config
        assert fingerprint(again.model_dump(mode="json")) == fingerprint(config.model_dump(mode="json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_config__first_line_says_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_config__names_no_place_of_one_machine(path: Path) -> None:
    assert not any(isinstance(at_key, str) and at_key.startswith("/") for at_key in _texts(read_yaml(path)))


@pytest.mark.parametrize("task", TASKS)
def test_config__every_task_has_a_demo(task: str) -> None:
    assert ROOT / "configs" / task / "demo.yaml" in FILES


@pytest.mark.parametrize("task", TASKS)
def test_config__defaults_are_a_real_experiment(task: str) -> None:
    config = config_class(task)()  # type: ignore[call-arg]
    assert config.task == task
    assert len(list(leaves(config.model_dump()))) > 30


def _texts(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    else:
        yield value
