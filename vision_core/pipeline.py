"""What a task supplies to the verbs: a ``Pipeline``, and the ``Predictor`` that it loads from a bundle."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_core.batch.inspection import Inspected
from vision_core.batch.job import FileProcessor, nothing_else
from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import Card
from vision_core.bundles.export import Exportable
from vision_core.config.schema import Config
from vision_core.csv_tables import Cell
from vision_core.errors import DataError, UsageError
from vision_core.evaluation.rows import Row
from vision_core.images.reading import list_images
from vision_core.training.learner import Learner, Prepared
from vision_core.training.runtime import machine

ConfigT = TypeVar("ConfigT", bound=Config)
ResultT = TypeVar("ResultT")
OnItem = Callable[[int, int], None]


class Predictor(FileProcessor[ResultT]):
    """Model from a bundle, ready for inference.

    Attributes:
        card: Card of the bundle.
    """

    card: Card

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "auto") -> Self:
        """Load a bundle, a folder or its zip.

        Raises:
            CheckpointError: It is no sound bundle of this task.
        """

    @abstractmethod
    def __call__(self, item: str | Path | NDArray[np.uint8]) -> ResultT:
        """Predict one input: a path, or where the task takes pixels an ``(H, W, 3)`` RGB array.

        Raises:
            InputError: The file cannot be read.
        """

    @abstractmethod
    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""


class Findings(Protocol):
    """What reading a data set once has shown."""

    @property
    def faults(self) -> Sequence[str]:
        """One line per fault."""
        ...

    @property
    def num_read(self) -> int:
        """Items looked at."""
        ...

    def lines(self) -> list[str]:
        """All of it in words."""
        ...


class Pipeline(ABC, Generic[ConfigT]):
    """One task. Five methods to write; every other one has a default.

    Attributes:
        own_data: The words of ``train`` on a user's own data, told at the end of a run.
        limits: What a bundle of this task says of its limits.
    """

    own_data: ClassVar[str]
    limits: ClassVar[str]

    @abstractmethod
    def prepare(self, config: ConfigT) -> Prepared:
        """Build the learner and the training set of a run."""

    @abstractmethod
    def deliver(self, config: ConfigT, learner: Learner, folder: Path) -> Card:
        """Write the result of a run as a bundle."""

    @abstractmethod
    def evaluate(self, config: ConfigT, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``; pictures go to ``folder``."""

    @abstractmethod
    def predictor(self, bundle: Path, device: torch.device, config: ConfigT | None = None) -> Predictor[Any]:
        """Load a bundle for inference on files of unknown origin; ``config`` replaces the bundle's settings."""

    @abstractmethod
    def demo_data(self, folder: Path) -> str:
        """Write the demo's data set; returns a sentence on what it is."""

    def rehearse(self, config: ConfigT) -> Prepared:
        """Prepare a run as far as that writes nothing and costs little."""
        return self.prepare(config)

    def check_runs(self, runs: Mapping[str, ConfigT]) -> None:
        """Refuse, before the first of several runs trains, what a later one would be refused for.

        Raises:
            UserError: As ``prepare`` would.
        """

    def validate(self, config: ConfigT, sample: int | None, on_item: OnItem) -> Sequence[Findings]:
        """Read every training item once, or ``sample`` of them; ``on_item`` is told how many of how many are done."""
        items = self.rehearse(config).items
        count = len(items)
        chosen = range(count) if sample is None else sorted({place * count // sample for place in range(sample)})
        faults: list[str] = []
        for done, index in enumerate(chosen, start=1):
            try:
                items[1, index]
            except DataError as error:
                faults += error.problems
            on_item(done, len(chosen))
        return [ItemFindings(name=config.data.split, num_read=len(chosen), faults=tuple(faults))]

    def compare(self, runs: Mapping[str, Path]) -> Sequence[str]:
        """Say what the run folders of one command show together, a line each."""
        return ()

    def inputs(self, path: Path) -> list[Path]:
        """List the inputs of ``predict``: by default the images of a folder.

        Raises:
            DataError: There is none, or ``path`` is no folder.
        """
        if path.is_file():
            raise DataError(f"--input '{path}' is a list; give an image, or a folder of images.")
        return list_images(path)

    def inspector(self, config: ConfigT | None) -> Callable[[Path], Inspected] | None:
        """Make the function that opens an input for the plan of a batch; None: there is no plan."""
        return None

    def follows(self, config: ConfigT | None) -> Callable[[Path], str]:
        """Make the function that hashes what a result depends on beside input and settings; empty for nothing."""
        return nothing_else

    def columns(self, result: Any) -> Mapping[str, Cell]:  # noqa: ANN401 (each task has its own result)
        """Columns of a result in ``results.csv``."""
        return {}

    def conclude(self, folder: Path) -> None:
        """Write what spans all results of a batch, below its folder."""

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """Prepare a bundle for ``export``; ``size`` is that of the inputs where a file has to fix it.

        Raises:
            UsageError: This task has nothing to export.
        """
        raise UsageError("This task has no export. Use its bundle with predict.")

    def import_weights(self, file: Path, config: ConfigT, out: Path, *, trusted: bool) -> Sequence[str]:
        """Make a bundle of a foreign checkpoint; returns what was inferred, a line each.

        Raises:
            UsageError: This task imports no foreign checkpoints.
        """
        raise UsageError("This task imports no foreign weights. Train with its verb train.")

    def card(self, config: ConfigT, method: str, **fields: Any) -> Card:  # noqa: ANN401
        """Make a card; ``fields``, with ``trained_on`` among them, are added to what the cards of all tasks share."""
        common: dict[str, Any] = {
            "task": config.task,
            "method": method,
            "config": config.model_dump(mode="json"),
            "architecture": {},
            "preprocessing": {},
            "classes": (),
            "software": machine()["versions"],
            "limits": self.limits,
            "storage": config.train.storage,
        }
        return Card(**common | fields)


@dataclass(frozen=True, kw_only=True)
class ItemFindings:
    """Findings of reading training items as a run does."""

    name: str
    num_read: int
    faults: tuple[str, ...]

    def lines(self) -> list[str]:
        """Count and faults."""
        return [f"{self.name}: {self.num_read} items, {len(self.faults)} faults", *self.faults]


def weights_hash(path: Path | None) -> str | None:
    """Read the sha256 of the weights in the bundle that a run starts from, if it starts from one."""
    return read_card(path).hashes["weights.safetensors"] if path else None
