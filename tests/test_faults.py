"""Killed, stopped and out of space in the middle of a real command: what was there stays good, and resuming gives
the same bits as a run without the fault."""

import json
import random
import re
import resource
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from pipelines.sfod.__main__ import main
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from tests.forked import Forked
from tests.pipelines.sfod.tiny import adapt, adapt_words, weights
from tests.vision_core.detection.synthetic import make_voc
from vision_core.detection.views import Batch
from vision_core.signals import StopRequest
from vision_core.training import loop as training

STEPS = 12
WORDS = ("train.epochs=3", "train.batch_size=1", "train.save_every=3", "method=lpld")
SLOW_SECONDS = 120.0
# Writes half a checkpoint, says so with a file, and waits to be killed.
TORN_WRITE = """
import io, sys, time
from pathlib import Path
import torch
save = torch.save
def torn(state, file):
    if state["counters"]["step"] < 6:
        return save(state, file)
    whole = io.BytesIO()
    save(state, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    Path(sys.argv.pop(1)).touch()
    time.sleep(60)
torch.save = torn
from pipelines.sfod.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc(tmp_path_factory.mktemp("target"), seed=1)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert adapt(out, data, *WORDS) == 0
    return weights(out)


def _train(out: Path, data: Path, *words: str) -> list[str]:
    return ["-m", "pipelines.sfod", "train", "--out", str(out), *adapt_words(data, *WORDS, *words)]


def _steps(out: Path) -> int:
    log = out / "metrics.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def _logged(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def _wait_for(condition: Callable[[], bool], process: Forked) -> None:
    end = time.monotonic() + SLOW_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the command takes too long"
        time.sleep(0.01)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def _resume(out: Path) -> bytes:
    assert main(["train", "--out", str(out), "--resume"]) == 0
    assert main(["verify", str(out / "model")]) == 0
    return weights(out)


def _saved_step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["counters"]["step"])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_kill__at_a_random_step(workers: int, data: Path, undisturbed: bytes, tmp_path: Path) -> None:
    """Row X1 of the faults."""
    step = random.Random(workers).randrange(4, STEPS - 2)
    process = Forked(_train(tmp_path, data, f"train.workers={workers}"))
    _wait_for(lambda: _steps(tmp_path) >= step, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert _resume(tmp_path) == undisturbed
    assert _logged(tmp_path) == list(range(1, STEPS + 1))


def test_kill__while_a_checkpoint_is_written(data: Path, undisturbed: bytes, tmp_path: Path) -> None:
    """Row X2 of the faults."""
    out, torn = tmp_path / "run", tmp_path / "torn"
    process = Forked(["-c", TORN_WRITE, str(torn), *_train(out, data)[2:]])
    _wait_for(torn.exists, process)
    process.kill()
    process.communicate()
    [partial] = out.glob(".partial-*")
    assert partial.stat().st_size > 0
    assert _saved_step(out / "last.pt") == 3
    assert _resume(out) == undisturbed
    assert not list(out.glob(".partial-*"))


def test_fault__before_the_first_checkpoint_leaves_no_line_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = MeanTeacherLearner.training_step

    def failing(self: MeanTeacherLearner, batch: Batch) -> dict[str, torch.Tensor]:
        if self.step == 2:
            raise MemoryError
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(MeanTeacherLearner, "training_step", failing)
        assert adapt(tmp_path, data, *WORDS) == 5
    assert main(["train", "--out", str(tmp_path), "--resume"]) == 0
    assert _logged(tmp_path) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stop__checkpoints_within_one_step_and_says_how_to_go_on(
    number: signal.Signals, data: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    """Row X4 of the faults."""
    process = Forked(_train(tmp_path, data, "train.save_every=1000"))
    _wait_for(lambda: _steps(tmp_path) >= 4, process)
    process.send_signal(number)
    steps_then = _steps(tmp_path)
    _, told = process.communicate(timeout=SLOW_SECONDS)
    assert process.returncode == 130
    stopped = re.search(rf"error\[INTERRUPTED\] Stopped at step (\d+) of {STEPS}; the checkpoint is written", told)
    assert stopped
    assert 4 <= int(stopped[1]) <= steps_then + 1
    assert _saved_step(tmp_path / "last.pt") == int(stopped[1])
    [line] = re.findall(r"^Resume with: (.*)$", told, re.MULTILINE)
    assert line.startswith("python -m pipelines.sfod train")
    assert main(line.split()[3:]) == 0
    assert weights(tmp_path) == undisturbed


def test_full_disk__names_path_and_bytes_and_keeps_the_checkpoint_before(
    data: Path, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row X5 of the faults; the limit on the size of a file stands for the full disk."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_signals", lambda: nullcontext(StopRequest(requested=True)))
        assert adapt(tmp_path, data, *WORDS) == 130

    process = Forked(["-m", "pipelines.sfod", "train", "--out", str(tmp_path), "--resume"], _limit)
    _, told = process.communicate(timeout=SLOW_SECONDS)
    assert process.returncode == 5, told
    assert re.search(rf"error\[ENVIRONMENT\] Cannot write '{tmp_path}/last\.pt': file too large, after \d+ bytes", told)
    assert json.loads((tmp_path / "run.json").read_text())["exit_code"] == 5
    assert _saved_step(tmp_path / "last.pt") == 1
    assert not list(tmp_path.glob(".partial-*"))
    assert _resume(tmp_path) == undisturbed
