"""One command that trains a segmenter and a screen on tiny frames, for all tests of the gate."""

from pathlib import Path

import pytest

from pipelines.ultrasound.__main__ import main
from tests.made_once import made_once
from tests.pipelines.ultrasound.tiny import Pair, make_data, words

_RUNS = "runs:\n  segment: {method: segment}\n  screen: {method: screen}\n"


@pytest.fixture(scope="session")
def pair() -> Pair:
    """Both runs, finished; the screen's bundle is calibrated. Copy a bundle before changing it."""
    folder = made_once("ultrasound-pair", _train)
    return Pair(data=folder / "data", out=folder / "out")


def _train(folder: Path) -> None:
    (folder / "pair.yaml").write_text(_RUNS, encoding="utf-8")
    arguments = ["train", "--config", str(folder / "pair.yaml"), "--out", str(folder / "out")]
    assert main([*arguments, *words(make_data(folder / "data"), "train.epochs=4")]) == 0
