"""Commands that verbs print run as they stand, whatever the folders are called."""

import shlex
from argparse import Namespace
from pathlib import Path

import pytest

from tests.vision_core.test_pipeline import ToyPipeline
from tests.vision_core.toy import ToyConfig
from vision_core.commands.bundles import import_weights
from vision_core.commands.data import demo_data


class Making(ToyPipeline):
    def demo_data(self, folder: Path) -> str:
        folder.mkdir()
        return "Numbers."

    def import_weights(self, file: Path, config: ToyConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        return ()


def test_demo_data__a_space_in_the_name_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo_data.run(Namespace(out=tmp_path / "my data"), ToyConfig, Making) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[-1] == f"data.root={tmp_path / 'my data'}"


def test_import_weights__a_space_in_the_name_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "my bundle"
    arguments = Namespace(file=tmp_path, out=bundle, words=[], overwrite=False, i_trust_this_file=False)
    assert import_weights.run(arguments, ToyConfig, Making) == 0
    assert shlex.split(capsys.readouterr().out)[-2:] == ["verify", str(bundle)]
