"""The job that a batch is given: inputs, output folder, predictor, settings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from vision_core.batch.inspection import Inspect
from vision_core.csv_tables import Cell

R = TypeVar("R")


class FileProcessor(ABC, Generic[R]):
    """Processor of one file at a time, which writes the files of its results."""

    @abstractmethod
    def __call__(self, item: Path) -> R:
        """Process one input.

        Raises:
            InputError: It cannot be read.
        """

    @abstractmethod
    def write(self, result: R, path: Path, folder: Path) -> list[Path]:
        """Write the files of a result into ``folder``, each named after the stem of ``path``; returns them."""

    def expect(self, paths: Sequence[Path]) -> None:
        """Make ready the input about to be processed and the next one; at the end there are none."""

    def resume_in(self, folder: Path) -> None:
        """Keep what is unfinished in ``folder``: told once before the first input; it goes when the batch has ended."""


def nothing_else(_path: Path) -> str:
    """Say that a result depends on its input and the settings alone."""
    return ""


def _no_columns(_result: Any) -> Mapping[str, Cell]:  # noqa: ANN401 (any result)
    return {}


@dataclass(frozen=True, kw_only=True)
class BatchJob(Generic[R]):
    """Inputs, output folder, and how results are made and told apart.

    Attributes:
        inputs: Files, in the order of the tables.
        out: Output folder.
        make_predictor: Called once, and only when there is work; picklable, so that other processes can call it.
        fingerprint: Changes whenever results would: hash of model and settings.
        source: Where the inputs were found, which says whose folder ``out`` is; none: the folders that they are in.
        follows: Of one input, what its result follows from besides, such as a mask that is edited; empty for nothing.
        version: Of this software, for the ledger.
        inspect: Opens an input before the first is done; what it cannot open fails at once. None: nothing is planned.
        columns: What a result puts into ``results.csv``.
        strict: Stop at the first input that fails.
        overwrite: Begin anew in a folder that holds another batch.
        shard: Name of this process's share.
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
    strict: bool = False
    overwrite: bool = False
    shard: str = "0"

    def fingerprint_of(self, path: Path) -> str:
        """Changes whenever the result of this input would."""
        return "-".join(filter(None, (self.fingerprint, self.follows(path))))
