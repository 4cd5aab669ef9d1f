"""What a predictor leaves of an input that it has not finished."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.vision_core.counted import Counter, make_job
from vision_core.batch.engine import run_batch
from vision_core.errors import Interrupted


class Slow(Counter):
    """Does an input in two halves, and ends between them once, as it is told."""

    def __init__(self, fault: type[BaseException]) -> None:
        super().__init__()
        self.fault: type[BaseException] | None = fault
        self.went_on = 0

    def resume_in(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, path: Path) -> int:
        half = self.folder / path.name
        if half.exists():
            self.went_on += 1
        half.touch()
        if self.fault and path.name == "b.png":
            fault, self.fault = self.fault, None
            raise fault
        count = super().__call__(path)
        half.unlink()
        return count


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_run_batch__the_next_run_goes_on_within_an_input(tmp_path: Path, fault: type[BaseException]) -> None:
    job = make_job(tmp_path)
    predictor = Slow(fault)
    job = replace(job, inputs=[job.inputs[0], job.inputs[1], job.inputs[3]], make_predictor=lambda: predictor)
    if fault is KeyboardInterrupt:
        with pytest.raises(Interrupted):
            run_batch(job)
    else:
        assert run_batch(job).exit_code == 4
    assert [path.name for path in job.out.glob(".unfinished-*/*")] == ["b.png"]
    assert run_batch(job).done == 3
    assert predictor.went_on == 1
    assert not list(job.out.glob(".unfinished*"))
