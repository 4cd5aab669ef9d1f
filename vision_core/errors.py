"""Findings of the gates of inputs; errors that a user can fix, each with its printed code and its exit code.

Exit codes: 0 done; 2 usage, configuration, checkpoint or annotation index (nothing started); 3 every input was bad;
4 finished, some inputs failed; 5 environment (disk, memory, device, missing package); 130 interrupted, can be resumed.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

NUM_EXAMPLES = 5
EXIT_PARTIAL = 4
EXIT_INTERRUPTED = 130
# Control characters, line and paragraph separators, marks that turn the direction of text, bytes that are no UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """Write control characters as escapes, so that a file's name cannot steer a terminal."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a gate found in an input.

    Attributes:
        severity: ``refuse``: a fault of the input, ``ask``: a setting, which the text names, can let it pass, ``note``:
            the input is used, and the text stands beside what comes of it.
        text: What was found, with the number, and what to do.
    """

    severity: Literal["refuse", "ask", "note"]
    text: str

    @property
    def refuses(self) -> bool:
        """Tell whether the input is not used as it stands."""
        return self.severity != "note"


@dataclass
class Findings:
    """Collector of what a gate finds in one input, so that all of it is told at once.

    Attributes:
        found: Findings, in the order of their discovery.
        places: Further notes, each with the places where it applies.
        left_out: Numbers by plural noun of what is left out; they stand beside every score.
    """

    found: list[Finding] = field(default_factory=list, kw_only=True)
    places: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    left_out: Counter[str] = field(default_factory=Counter, kw_only=True)

    def refuse(self, text: str) -> None:
        """Record a fault."""
        self.found.append(Finding(severity="refuse", text=text))

    def refuse_all(self, texts: Sequence[str]) -> None:
        """Record several faults."""
        for text in texts:
            self.refuse(text)

    def ask(self, text: str) -> None:
        """Record a fault that a setting, which ``text`` names, can let pass."""
        self.found.append(Finding(severity="ask", text=text))

    def note(self, text: str, where: str | None = None) -> None:
        """Record a note; with a place it is counted, and its first places are shown."""
        if where is None:
            self.found.append(Finding(severity="note", text=text))
        else:
            self.places.setdefault(text, []).append(where)

    def leave_out(self, what: str, text: str, where: str) -> None:
        """Count one more of ``what`` as left out, and note it."""
        self.left_out[what] += 1
        self.note(text, where)

    @property
    def problems(self) -> tuple[str, ...]:
        """List what refuses the input."""
        return tuple(each.text for each in self.found if each.refuses)

    @property
    def notes(self) -> tuple[str, ...]:
        """List what is told of an input that is used."""
        return tuple(each.text for each in self.all() if not each.refuses)

    def all(self) -> tuple[Finding, ...]:
        """List all findings; notes that apply in several places come last, with their number."""
        counted = (f"{text}: {len(places)} ({examples(places)})" for text, places in self.places.items())
        return (*self.found, *(Finding(severity="note", text=text) for text in counted))


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check of one list found.

    Attributes:
        name: Name of the list.
        num_items: Items in the list.
        num_read: Items that were read, fewer if only a sample was.
        unit: Plural noun of an item.
        facts: Lines on what the list holds.
        numbers: The same for programs.
        findings: Of the list as a whole.
        faults: A line for each fault of an item.
    """

    name: str
    num_items: int = 0
    num_read: int = 0
    unit: str = "items"
    facts: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """List what refuses the list as a whole."""
        return tuple(each.text for each in self.findings if each.refuses)

    def lines(self) -> list[str]:
        """Describe the list, its notes and the faults of items; a line each."""
        faults = len(self.problems) + len(self.faults)
        head = f"{self.name}: {self.num_items} {self.unit}, {self.num_read} read, {faults} faults"
        notes = [f"note: {each.text}" for each in self.findings if not each.refuses]
        return [head, *self.facts, *notes, *self.faults]


def examples(places: Sequence[str]) -> str:
    """List the first few of the places, for a message."""
    first = list(dict.fromkeys(places))
    return ", ".join(first[:NUM_EXAMPLES]) + (", ..." if len(first) > NUM_EXAMPLES else "")


def first_problems(problems: Sequence[str], name: str) -> list[str]:
    """Shorten a list of problems to the first few and their number."""
    if len(problems) <= NUM_EXAMPLES:
        return list(problems)
    total = f"'{name}' has '{len(problems)}' problems in all; the first {NUM_EXAMPLES} are listed. Correct them."
    return [*problems[:NUM_EXAMPLES], total]


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


class NotFiniteError(CheckpointError):
    """Error of a network whose output on a sound input is NaN or infinite.

    Args:
        where: The input, and the list that it is of.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        super().__init__(
            f"The network's output is not finite ({where}), while its input is sound: its weights are too large or "
            "damaged, as after a training that diverged. Give another bundle or weights file."
        )

    def __reduce__(self) -> tuple[type["NotFiniteError"], tuple[str]]:
        return type(self), (self.where,)  # what crosses a process is made anew


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
