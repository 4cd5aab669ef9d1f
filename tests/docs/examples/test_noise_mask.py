"""The example script, run as a person would."""

import re
from pathlib import Path

from tests.forked import run

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "examples" / "noise_mask.py"


def test_noise_mask__masks_vary_and_a_step_changes_the_policy() -> None:
    out, _ = run([str(SCRIPT)])
    masks, losses, change = out.splitlines()
    found = re.fullmatch(r"masks from (\S+) to (\S+)", masks)
    assert found, masks
    low, high = map(float, found.groups())
    assert 0 <= low < high <= 1
    found = re.fullmatch(r"mean reward (\S+), policy loss (\S+)", losses)
    assert found, losses
    assert float(found[1]) < 0 and float(found[2]) != 0
    assert float(change.rpartition(" ")[2]) > 0


def test_noise_mask__has_at_most_forty_lines() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 40
