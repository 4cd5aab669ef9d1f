"""One command that trains a segmenter and a screen on tiny frames, for all tests of the gate."""

import pytest

from pipelines.ultrasound.__main__ import main
from tests.pipelines.ultrasound.tiny import Pair, make_data, words

_RUNS = "runs:\n  segment: {method: segment}\n  screen: {method: screen}\n"


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Both runs, finished; the screen's bundle is calibrated. Copy a bundle before changing it."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "pair.yaml").write_text(_RUNS, encoding="utf-8")
    data, out = make_data(folder / "data"), folder / "out"
    arguments = ["train", "--config", str(folder / "pair.yaml"), "--out", str(out)]
    assert main([*arguments, *words(data, "train.epochs=4")]) == 0
    return Pair(data=data, out=out)
