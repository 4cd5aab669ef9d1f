"""Fixtures of the tests that go through the command line of adaptation."""

from pathlib import Path

import pytest

from pipelines.sfod.__main__ import main
from tests.bad_inputs.bundles import make_bundle
from tests.bad_inputs.seen import Seen


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture
def seen(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.chdir(tmp_path)
    return Seen(main, capsys)
