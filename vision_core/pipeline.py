"""Interface of a task to the verbs: ``Pipeline``, and the ``Predictor`` that it loads from a bundle."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_core.batch.inspection import Inspected
from vision_core.batch.job import FileProcessor, nothing_else
from vision_core.bundles.bundle import GOLDEN_FINE, Bundle, check_golden, read_card
from vision_core.bundles.card import WEIGHTS_FILE, Card
from vision_core.bundles.export import Exportable
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.csv_tables import Cell
from vision_core.errors import Checked, DataError, UsageError
from vision_core.evaluation.rows import Row
from vision_core.images.folders import left_out_note, suffix_note
from vision_core.images.reading import list_images
from vision_core.training.learner import Learner, Prepared
from vision_core.training.runtime import machine

ConfigT = TypeVar("ConfigT", bound=Config)
ResultT = TypeVar("ResultT")
OnItem = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Checking:
    """How ``validate`` reads, where the task can.

    Attributes:
        workers: Files read at a time; None: as many as there are processors, four at most.
        cache: JSON file that remembers files found to be sound, by size and time of change; None: nothing does.
    """

    workers: int | None = None
    cache: Path | None = None


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

    def remarks_on(self, size: tuple[int, int]) -> tuple[str, ...]:
        """Note what is lost of an image of ``(height, width)``: the rest of a sentence that begins with it."""
        return ()

    @abstractmethod
    def write(self, result: ResultT, path: str | Path, folder: str | Path) -> list[Path]:
        """Write the files of a result into ``folder``, each named after the stem of ``path``; return them."""

    @abstractmethod
    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""


class Pipeline(ABC, Generic[ConfigT]):
    """Task as the verbs use it: five abstract methods, defaults for all others.

    Attributes:
        limits: Limits of use, written on every card of this task.
        can_check: Whether its ``validate`` follows ``checking``.
        checking: How ``validate`` reads.
        result_files: Purpose of the files of a result by their ending, for ``README.txt``.
        curve_names: Names for people of what its learners log, by key, for the curves of the report.
    """

    limits: ClassVar[str]
    can_check: ClassVar[bool] = False
    checking: Checking = Checking()
    result_files: ClassVar[Mapping[str, str]] = {}
    curve_names: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def prepare(self, config: ConfigT) -> Prepared:
        """Build the learner and the training set of a run."""

    @abstractmethod
    def deliver(self, config: ConfigT, learner: Learner, folder: Path) -> Card:
        """Write the result of a run as a bundle into ``folder``."""

    @abstractmethod
    def evaluate(self, config: ConfigT, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles by name on ``data.eval_split``; pictures go to ``folder``."""

    @abstractmethod
    def predictor(self, bundle: Path, device: torch.device, config: ConfigT | None = None) -> Predictor[Any]:
        """Load a bundle for inference on untrusted files; ``config`` replaces its settings."""

    def answers(self, bundle: Path, device: torch.device) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
        """Load what computes the golden output of a bundle: by default its predictor.

        Raises:
            CheckpointError: It is no sound bundle of this task.
        """
        return self.predictor(bundle, device).answer

    @abstractmethod
    def demo_data(self, folder: Path) -> str:
        """Write the demo's data set; returns a sentence that describes it."""

    def next_command(self, method: str, bundle: str) -> str:
        """Say what to type next with a bundle of ``method``: the words behind ``python -m pipelines.<task>``."""
        return f"predict --checkpoint {bundle} --input YOUR_FILES --out found"

    def rehearse(self, config: ConfigT) -> Prepared:
        """Prepare a run without writing files or costly work."""
        return self.prepare(config)

    def check_runs(self, runs: Mapping[str, ConfigT]) -> None:
        """Check the settings of several runs before the first of them trains.

        Raises:
            UserError: ``prepare`` would refuse one of them.
        """

    def validate(self, config: ConfigT, sample: int | None, on_item: OnItem) -> Sequence[Checked]:
        """Read every training item once, or ``sample`` evenly spaced ones.

        ``on_item`` is called with the number of items done and their total.
        """
        items = self.rehearse(config).items
        count = len(items)
        chosen = range(count) if sample is None else sorted({place * count // sample for place in range(sample)})
        faults: list[str] = []
        for done, index in enumerate(chosen, start=1):
            try:
                items[0, index]
            except DataError as error:
                faults += error.problems
            on_item(done, len(chosen))
        return [Checked(name=config.data.split, num_items=count, num_read=len(chosen), faults=tuple(faults))]

    def convert_data(
        self, config: ConfigT, layout: str, folder: Path, *, lossy: bool = False, links: bool = False
    ) -> Sequence[str]:
        """Write the data of ``data.root`` in another layout into a new folder; returns lines to print.

        Where the task has the options, ``lossy`` lets the layout hold less, and ``links`` saves copies of images.

        Raises:
            UsageError: The task knows no other layout.
        """
        raise UsageError(f"'{config.task}' knows no layout '{layout}'.")

    def conclude_run(self, config: ConfigT, folder: Path, start: Path | None) -> Sequence[str]:
        """Look at a run whose bundle is delivered, before it is scored; returns remarks.

        Called in the first process alone, by the object that prepared the run.

        Args:
            config: Settings of the run.
            folder: Its folder, which holds the bundle ``model``.
            start: Bundle that it started from, if any.
        """
        return ()

    def compare(self, runs: Mapping[str, Path]) -> Sequence[str]:
        """Compare the run folders of one command; returns lines to print."""
        return ()

    def inputs(self, path: Path) -> list[Path]:
        """List the inputs of ``predict``: by default the images of a folder.

        Raises:
            DataError: There is no image, or ``path`` is no folder.
        """
        if path.is_file():
            raise DataError(f"--input '{path}' is a list; give an image, or a folder of images.")
        return list_images(path)

    def remarks(self, path: Path, inputs: Sequence[Path], config: ConfigT | None = None) -> Sequence[str]:
        """Describe what ``inputs`` left out of a folder, and what is strange about the others.

        Raises:
            DataError: Inputs and settings of inference contradict each other.
        """
        return [*(left_out_note(path, inputs) if path.is_dir() else ()), *suffix_note(inputs)]

    def inspector(self, config: ConfigT | None) -> Callable[[Path], Inspected] | None:
        """Make the function that inspects an input; None: no plan is made."""
        return None

    def follows(self, config: ConfigT | None) -> Callable[[Path], str]:
        """Make the function that hashes further dependencies of a result.

        These are files beside input and settings, such as an edited mask; the hash is empty without any.
        """
        return nothing_else

    def columns(self, result: Any) -> Mapping[str, Cell]:  # noqa: ANN401 (each task has its own result)
        """List the columns of a result in ``results.csv``."""
        return {}

    def conclude(self, folder: Path, inputs: Sequence[Path]) -> None:
        """Write files about all results of a batch, whose inputs are given in order, into its folder."""

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """Prepare a bundle for ``export``; ``size`` fixes that of the inputs.

        Raises:
            UsageError: This task has no export.
        """
        raise UsageError("This task has no export. Use its bundle with predict.")

    def import_weights(self, file: Path, config: ConfigT, out: Path, *, trusted: bool) -> Sequence[str]:
        """Convert a foreign checkpoint to a bundle; returns lines on inferred settings.

        Raises:
            UsageError: This task imports no foreign checkpoints.
        """
        raise UsageError("This task imports no foreign weights. Train with its verb train.")

    def card(self, config: ConfigT, method: str, **fields: Any) -> Card:  # noqa: ANN401
        """Make a card from the fields that all tasks share and ``fields``.

        ``fields`` must have ``trained_on``, and win over the shared ones.
        """
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


Build = Callable[[], Pipeline[Any]]


def load_proven(make: Callable[[], Predictor[ResultT]], content: Bundle) -> Predictor[ResultT]:
    """Load a predictor, and let it compute the golden pair of its bundle on the device on which it will predict.

    Args:
        make: Loads the predictor.
        content: Its bundle, of which card and golden pair are enough.

    Raises:
        CheckpointError: The weights, this machine, or these software versions compute something else.
    """
    predictor = make()
    deviation = check_golden(content, predictor.answer)
    if deviation > GOLDEN_FINE:
        say(
            f"warning: this machine computes visibly different values for {content.card.identity()}: relative "
            f"deviation {deviation:.2g} from those of its golden pair. Compare results before you rely on them."
        )
    return predictor


def weights_hash(path: Path | None) -> str | None:
    """Read the SHA-256 of the weights in a bundle; None without one."""
    return read_card(path).hashes[WEIGHTS_FILE] if path else None
