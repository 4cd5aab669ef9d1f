"""Errors that a user can fix, each with its printed code and its exit code.

Exit codes: 0 done; 2 usage, configuration, checkpoint or annotation index (nothing started); 3 every input was bad;
4 finished, some inputs failed; 5 environment (disk, memory, device, missing package); 130 interrupted, can be resumed.
"""

import re
from collections.abc import Sequence
from typing import ClassVar

EXIT_PARTIAL = 4
EXIT_INTERRUPTED = 130
# Control characters, line and paragraph separators, marks that turn the direction of text, bytes that are no UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """Write control characters as escapes, so that a file's name cannot steer a terminal."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class UserError(Exception):
    """Error outside this package, with one line per problem: what is wrong, and what to do.

    Args:
        problems: One sentence, or several when a stage found several faults at once. Control characters, as names of
            files may hold them, become escapes.

    Attributes:
        is_repeated: Whether another process of the same training has printed it already.
    """

    code: ClassVar[str] = "USAGE"
    exit_code: ClassVar[int] = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = tuple(map(one_line, (problems,) if isinstance(problems, str) else problems))
        self.is_repeated = False
        super().__init__("\n".join(self.problems))

    def lines(self) -> str:
        """Format the problems for the terminal, one ``error[CODE]`` line each."""
        return "\n".join(f"error[{self.code}] {problem}" for problem in self.problems)


class UsageError(UserError):
    """Error of the command line."""


class ConfigError(UserError):
    """Error of the configuration, with all problems under one heading."""

    code = "CONFIG"

    def lines(self) -> str:
        """Format the problems under a heading with their count."""
        if len(self.problems) == 1:
            return f"error[{self.code}] {self.problems[0]}"
        listed = "\n".join(f"  {problem}" for problem in self.problems)
        return f"error[{self.code}] {len(self.problems)} problems in the configuration:\n{listed}"


class DataError(UserError):
    """Error of a data set or an annotation index."""

    code = "DATA"


class InputError(DataError):
    """Error of one input of many; a batch continues with the next."""


class AllInputsError(DataError):
    """Error of all inputs."""

    exit_code = 3


class CheckpointError(UserError):
    """Error of a checkpoint or bundle: damaged, foreign, or of other settings."""

    code = "CHECKPOINT"


class TrainingError(UserError):
    """Error of training: a loss is not finite, or no data to learn from."""

    code = "TRAINING"


class EnvironmentFault(UserError):
    """Error of the machine: disk, memory, device, write access."""

    code = "ENVIRONMENT"
    exit_code = 5


class MissingDependencyError(EnvironmentFault):
    """Error of a missing optional package."""


class Interrupted(UserError):
    """Stop on request, after which the command can be continued."""

    code = "INTERRUPTED"
    exit_code = EXIT_INTERRUPTED
