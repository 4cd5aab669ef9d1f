"""What a task tells of a person's own data: commands that are read as they stand."""

import importlib
import shlex

import pytest

from vision_core.commands.parser import make_parser, parse
from vision_core.config.loading import load_runs
from vision_core.config.schema import Config

TASKS = {
    "sfod": "SfodConfig",
    "ovd": "OvdConfig",
    "wsi": "WsiConfig",
    "pretrain": "PretrainConfig",
    "ultrasound": "UltrasoundConfig",
}


@pytest.fixture(params=TASKS)
def config_class(request: pytest.FixtureRequest) -> type[Config]:
    found: type[Config] = getattr(importlib.import_module(f"pipelines.{request.param}.config"), TASKS[request.param])
    return found


def test_own_data__is_a_command_line_that_names_a_person_s_data(config_class: type[Config]) -> None:
    words = shlex.split(config_class.own_data)
    bare = [word for word in config_class.own_data.split() if not word.startswith("'")]
    assert not any(set(word) & set("[]*?") for word in bare)  # which shells expand
    (found,) = load_runs(config_class, None, words).values()
    assert found.has_data()
    for each in config_class.own_source:
        arguments = parse(config_class, shlex.split(each, comments=True))
        load_runs(config_class, None, arguments.words)
        assert "BUNDLE" in config_class.own_data


def test_own_data__stands_in_both_helps(config_class: type[Config], capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help"], ["train", "--help"]):
        with pytest.raises(SystemExit):
            make_parser(config_class).parse_args(argv)
        told = capsys.readouterr().out
        assert f"python -m pipelines.{config_class.task} train {config_class.own_data}" in told
    assert all(f"  python -m pipelines.{config_class.task} {each}\n" in told for each in config_class.own_source)
