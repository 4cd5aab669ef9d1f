import subprocess
import sys
from pathlib import Path

import pytest

from vision_core.batch.folder import plan_lock
from vision_core.batch.ledger import Ledger
from vision_core.errors import UsageError

HOLD = """
import sys
from pathlib import Path
from vision_core.batch.folder import plan_lock
from vision_core.batch.ledger import Ledger
with plan_lock(Path(sys.argv[1])), Ledger(Path(sys.argv[1]) / "ledger" / "0.jsonl"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_locks__of_a_killed_process_are_free_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger" / "0.jsonl"
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="Another process works on"), Ledger(path):
            pass
        owner.kill()
    with plan_lock(tmp_path), Ledger(path):
        pass
    assert sorted(file.name for file in path.parent.glob("*.jsonl")) == ["0.jsonl"]


def test_plan_lock__is_waited_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
        with plan_lock(tmp_path), pytest.raises(subprocess.TimeoutExpired):
            second.wait(1)
        assert second.stdout
        assert second.stdout.readline() == "held\n"
        second.kill()
