"""How a batch goes on, for the person who waits."""

from vision_core.batch.engine import Watcher
from vision_core.batch.inspection import Plan, in_words
from vision_core.batch.ledger import Record
from vision_core.console import Progress, say


class BatchProgress(Watcher):
    """A bar for the plan and one for the work, and a line per failure.

    Args:
        label: Names the second bar.
        unit: What an input is.
    """

    def __init__(self, label: str, unit: str = "input") -> None:
        self._label, self._unit = label, unit
        self._bar: Progress | None = None

    def __enter__(self) -> "BatchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def inspecting(self, total: int) -> None:
        """A bar for the plan."""
        self._bar = Progress(total, "plan", self._unit)

    def inspected(self) -> None:
        """One step of it."""
        if self._bar:
            self._bar.advance()

    def planned(self, plan: Plan) -> None:
        """The plan in words."""
        self._close()
        for line in in_words(plan):
            say(line)

    def starting(self, total: int) -> None:
        """A bar for the work."""
        self._close()
        self._bar = Progress(total, self._label, self._unit)

    def done(self, record: Record, number: int, total: int) -> None:
        """An input is done or failed."""
        if record.status == "failed":
            say(f"failed: {record.reason}")
        if self._bar:
            self._bar.advance()

    def _close(self) -> None:
        if self._bar:
            self._bar.close()
        self._bar = None
