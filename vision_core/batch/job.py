"""Job of a batch: inputs, output folder, predictor, settings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from vision_core.batch.inspection import Inspect
from vision_core.csv_tables import Cell

R = TypeVar("R")


class FileProcessor(ABC, Generic[R]):
    """Processor of single files, which also writes its results."""

    @abstractmethod
    def __call__(self, item: Path) -> R:
        """Process one input.

        Raises:
            InputError: It cannot be read.
        """

    @abstractmethod
    def write(self, result: R, path: Path, folder: Path) -> list[Path]:
        """Write the files of a result into ``folder``; returns their paths.

        Their names start with the stem of ``path``.
        """

    def expect(self, paths: Sequence[Path]) -> None:
        """Prepare the next inputs in the background; none at the end of a batch."""

    def resume_in(self, folder: Path) -> None:
        """Keep unfinished work in ``folder``; called once before the first input.

        The folder is removed when the batch has ended.
        """


def nothing_else(_path: Path) -> str:
    """Return an empty hash: results depend on input and settings alone."""
    return ""


def _no_columns(_result: Any) -> Mapping[str, Cell]:  # noqa: ANN401 (any result)
    return {}


@dataclass(frozen=True, kw_only=True)
class BatchJob(Generic[R]):
    """Inputs, output folder and predictor of a batch.

    Attributes:
        inputs: Files, in the order of the tables.
        out: Output folder.
        make_predictor: Called once, and only when there is work; picklable, so that other processes can call it.
        fingerprint: Hash of model and settings: changes whenever results would.
        source: File or folder of the inputs, part of the identity of ``out``; None: the folders of the inputs.
        follows: Hashes what the result of an input depends on besides, such as an edited mask; empty for nothing.
        version: Version of this software, for the ledger.
        inspect: Opens an input before the first is processed; unreadable ones fail at once. None: there is no plan.
        columns: Columns of a result in ``results.csv``.
        notes: Sentences on the inputs, for the summary.
        titles: Words for people, by class.
        files: Purpose of the outputs of an input by their ending, for ``README.txt``.
        strict: Stop at the first input that fails.
        overwrite: Replace another batch in the folder.
        check_outputs: Read all of every output to see whether it is whole; else its ends and its time of change.
        shard: Name of the share of this process.
    """

    inputs: Sequence[Path]
    out: Path
    make_predictor: Callable[[], FileProcessor[R]]
    fingerprint: str
    version: str
    source: Path | None = None
    follows: Callable[[Path], str] = nothing_else
    inspect: Inspect | None = None
    columns: Callable[[R], Mapping[str, Cell]] = _no_columns
    notes: Sequence[str] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    overwrite: bool = False
    check_outputs: bool = False
    shard: str = "0"

    def fingerprint_of(self, path: Path) -> str:
        """Combine the job's fingerprint with what this input's result depends on besides."""
        return "-".join(filter(None, (self.fingerprint, self.follows(path))))
