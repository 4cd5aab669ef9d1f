"""Progress of a batch at the console."""

from vision_core.batch.engine import Watcher
from vision_core.batch.inspection import Plan, in_words
from vision_core.batch.ledger import Record
from vision_core.console import Progress, say


class BatchProgress(Watcher):
    """Progress bars for plan and work, and a line per failure.

    Args:
        label: Label of the second bar.
        unit: Name of an input.
    """

    def __init__(self, label: str, unit: str = "input") -> None:
        self._label, self._unit = label, unit
        self._bar: Progress | None = None

    def __enter__(self) -> "BatchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def inspecting(self, total: int) -> None:
        """Show a bar for the plan."""
        self._bar = Progress(total, "plan", self._unit)

    def inspected(self) -> None:
        """Advance the bar of the plan."""
        if self._bar:
            self._bar.advance()

    def planned(self, plan: Plan) -> None:
        """Print the plan in sentences."""
        self._close()
        for line in in_words(plan):
            say(line)

    def starting(self, total: int) -> None:
        """Show a bar for the work."""
        self._close()
        self._bar = Progress(total, self._label, self._unit)

    def done(self, record: Record, number: int, total: int) -> None:
        """Advance the bar, and print the reason of a failure."""
        if record.status == "failed":
            say(f"failed: {record.reason}")
        if self._bar:
            self._bar.advance()

    def _close(self) -> None:
        if self._bar:
            self._bar.close()
        self._bar = None
