"""The example script, run as a person would."""

import re
from pathlib import Path

from tests.forked import run

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "examples" / "contrast_categories.py"


def test_contrast_categories__remembers_trees_and_computes_a_loss() -> None:
    out, _ = run([str(SCRIPT)])
    remembered = 0
    lines = out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        found = re.fullmatch(rf"step {number}: (\d+) pseudo labels, (\d+) remembered, WSCoL (\S+)", line)
        assert found, line
        labels, total, loss = int(found[1]), int(found[2]), float(found[3])
        remembered += labels
        assert total == remembered > 0
        assert loss > 0


def test_contrast_categories__has_at_most_forty_lines() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 40
