"""The example script, run as a person would."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "examples" / "train_abmil.py"


def test_train_abmil__learns_and_its_attention_finds_the_lesions() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True, cwd=SCRIPT.parents[2], timeout=120
    )
    *epochs, accuracy, found = [line.rpartition(" ") for line in done.stdout.splitlines()]
    losses = [float(loss) for _, _, loss in epochs]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 2
    assert accuracy[0] == "new bags classified correctly:"
    assert float(accuracy[2]) >= 0.9
    assert found[0] == "positive bags whose tile of highest attention shows a lesion:"
    assert float(found[2]) >= 0.9
