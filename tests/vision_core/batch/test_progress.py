"""What a batch tells while it goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.vision_core.counted import Counter, make_job
from vision_core.batch.engine import run_batch
from vision_core.batch.progress import BatchProgress


def test_shown__rate_is_of_the_time_that_the_inputs_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("vision_core.console.time.monotonic", lambda: now)

    def wait(_path: Path) -> None:
        nonlocal now
        now += 4.0

    job = make_job(tmp_path)
    with BatchProgress("count", "file") as shown:
        run_batch(replace(job, make_predictor=lambda: Counter(before=wait)), shown)
    told = capsys.readouterr()
    assert told.out == "failed: 'c.png' is bad.\n"
    assert told.err == ("count: 3/5 file, 0.25 file/s, 0:08 left\ncount: 5/5 file, 0.25 file/s, 0:00 left\n")
