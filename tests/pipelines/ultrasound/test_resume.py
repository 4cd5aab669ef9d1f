"""A training that is killed ends, once resumed, with the bits of one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.ultrasound.__main__ import main
from tests.pipelines.torchrun import wait_for_steps
from tests.pipelines.ultrasound.tiny import make_h5, train, words

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["segment", "screen"])
def test_resume__killed_in_mid_epoch(method: str, tmp_path: Path) -> None:
    data = make_h5(tmp_path / "data")
    more = (f"method={method}", "train.epochs=6", "train.eval_every=3", "train.batch_size=4", "train.save_every=3")
    assert train(tmp_path / "whole", data, *more) == 0
    command = [sys.executable, "-m", "pipelines.ultrasound", "train", "--out", str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, *words(data, *more)], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for_steps(tmp_path / "killed", 10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model").exists()
    assert main(["train", "--out", str(tmp_path / "killed"), "--resume"]) == 0
    killed, whole = (tmp_path / run / "model" / "weights.safetensors" for run in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()
