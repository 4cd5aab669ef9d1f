"""The speed of ``validate`` is told in one line, with its target."""

import re

import pytest

from benchmarks.sfod.validate import main


@pytest.mark.slow
def test_main__tells_a_rate_of_sound_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--images", "2", "--workers", "1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"validate, 1 workers, 640 px JPEG: \d+ images/s \(\d+ to \d+\) \(target >= 200\)", last)
