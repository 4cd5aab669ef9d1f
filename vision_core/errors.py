"""The errors a user can mend, each with the code it prints and the code it exits with.

Exit codes: 0 done; 2 usage, configuration, checkpoint or annotation index (nothing started); 3 every input was bad;
4 finished, some inputs failed; 5 environment (disk, memory, device, missing package); 130 interrupted, can be resumed.
"""

from collections.abc import Sequence
from typing import ClassVar

EXIT_PARTIAL = 4
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A fault outside this package, told in one line a problem: what is wrong, and what to do.

    Args:
        problems: One sentence, or several when a stage found several faults at once.

    Attributes:
        is_repeated: Whether another process of the same training has told it already.
    """

    code: ClassVar[str] = "USAGE"
    exit_code: ClassVar[int] = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.is_repeated = False
        super().__init__("\n".join(self.problems))

    def lines(self) -> str:
        """The text for the terminal, one ``error[CODE]`` line per problem."""
        return "\n".join(f"error[{self.code}] {problem}" for problem in self.problems)


class UsageError(UserError):
    """The command line asks for something that cannot be done."""


class ConfigError(UserError):
    """The configuration has problems; all of them are listed under one heading."""

    code = "CONFIG"

    def lines(self) -> str:
        """One heading with the count, then a line per problem."""
        if len(self.problems) == 1:
            return f"error[{self.code}] {self.problems[0]}"
        listed = "\n".join(f"  {problem}" for problem in self.problems)
        return f"error[{self.code}] {len(self.problems)} problems in the configuration:\n{listed}"


class DataError(UserError):
    """A data set or an annotation index cannot be used."""

    code = "DATA"


class InputError(DataError):
    """One input of many cannot be read; a batch skips it and goes on."""


class AllInputsError(DataError):
    """Not one input could be used."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint or bundle is damaged, foreign or does not fit."""

    code = "CHECKPOINT"


class TrainingError(UserError):
    """Training cannot go on: a loss is not finite, or there is nothing to learn from."""

    code = "TRAINING"


class EnvironmentFault(UserError):
    """The machine lacks something: disk, memory, device, write access."""

    code = "ENVIRONMENT"
    exit_code = 5


class MissingDependencyError(EnvironmentFault):
    """An optional package is not installed."""


class Interrupted(UserError):
    """Stopped on request; a checkpoint is on disk and the run can be resumed."""

    code = "INTERRUPTED"
    exit_code = EXIT_INTERRUPTED
