"""The example script, run as a person would."""

import re
from pathlib import Path

from tests.forked import run

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "examples" / "adapt_detector.py"


def test_adapt_detector__finds_trees_and_computes_a_distillation_loss() -> None:
    out, _ = run([str(SCRIPT)])
    first, *steps = out.splitlines()
    assert int(first.rsplit(" ", 1)[1]) > 0
    assert len(steps) == 3
    for number, line in enumerate(steps):
        found = re.fullmatch(rf"step {number}: (\d+) pseudo labels, loss (\S+), distillation (\S+)", line)
        assert found, line
        labels, loss, distillation = map(float, found.groups())
        assert labels > 0
        assert loss > distillation > 0


def test_adapt_detector__has_at_most_forty_lines() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 40
