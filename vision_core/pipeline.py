"""What a task supplies; the verbs are built on it and are the same for every task."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from vision_core.batch.inspection import Inspected
from vision_core.bundles.card import Card
from vision_core.bundles.export import Exportable
from vision_core.config.schema import Config
from vision_core.evaluation.rows import Row
from vision_core.training.learner import Learner, Prepared


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


class Predictor(Protocol):
    """A loaded bundle that answers."""

    card: Card

    def __call__(self, path: Path) -> Any:  # noqa: ANN401 (each task has its own result)
        """The result for one file."""
        ...

    def write(self, result: Any, path: Path, folder: Path) -> list[Path]:  # noqa: ANN401
        """Write the files of one result, named after its input; returns them."""
        ...

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw outputs for the golden input."""
        ...


ConfigT = TypeVar("ConfigT", bound=Config, contravariant=True)


@runtime_checkable
class Rehearsing(Protocol):
    """What a task may have besides, of which to prepare a run is long work."""

    def rehearse(self, config: Any) -> Prepared:  # noqa: ANN401 (the task's own)
        """What ``prepare`` would return, as far as can be said without that work; nothing is written."""
        ...


@runtime_checkable
class Checking(Protocol):
    """A pipeline that knows before the first of several runs trains what a later one would be refused for."""

    def check_runs(self, runs: Mapping[str, Any]) -> None:
        """Refuse that, at little cost.

        Raises:
            UserError: As ``prepare`` would.
        """
        ...


@runtime_checkable
class Following(Protocol):
    """A pipeline whose results follow from more than the input and the settings."""

    def follows(self, config: Any) -> Callable[[Path], str]:  # noqa: ANN401 (the task's own)
        """Of an input, what else its result follows from, as a short text; empty for nothing."""
        ...


class Pipeline(Protocol, Generic[ConfigT]):
    """One task.

    Attributes:
        own_data: The words of ``train`` on a user's own data, told at the end of a run.
    """

    own_data: str

    def prepare(self, config: ConfigT) -> Prepared:
        """Learner and training set of a run."""
        ...

    def deliver(self, config: ConfigT, learner: Learner, folder: Path) -> Card:
        """Write what leaves the run as a bundle."""
        ...

    def evaluate(self, config: ConfigT, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``; pictures go to ``folder``."""
        ...

    def predictor(self, bundle: Path, device: torch.device, config: ConfigT | None = None) -> Predictor:
        """Load a bundle for inference, with its own settings unless ``config`` has others."""
        ...

    def validate(self, config: ConfigT, sample: int | None, on_item: Callable[[int, int], None]) -> Sequence[Findings]:
        """Read every item once, or a sample; ``on_item`` is told how many of how many are done."""
        ...

    def import_weights(self, file: Path, config: ConfigT, out: Path, *, trusted: bool) -> Sequence[str]:
        """Make a bundle of a foreign checkpoint; returns what was inferred, a line each."""
        ...

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """What ``export`` writes of a bundle; ``size`` is that of the inputs where a file has to fix it.

        Raises:
            UsageError: This task has nothing to export.
        """
        ...

    def inputs(self, path: Path) -> list[Path]:
        """The files that ``predict`` takes, of a folder or a CSV that lists them."""
        ...

    def inspector(self, config: ConfigT | None) -> Callable[[Path], Inspected] | None:
        """What opens an input for the plan of a batch; none where a plan would cost as much as the work."""
        ...

    def columns(self, result: Any) -> Mapping[str, str | int | float | None]:  # noqa: ANN401
        """What a result puts into ``results.csv``."""
        ...

    def compare(self, runs: Mapping[str, Path]) -> Sequence[str]:
        """What several run folders of one command say together, a line each."""
        ...

    def conclude(self, folder: Path) -> None:
        """Write what spans all results of a batch, below its folder."""
        ...

    def demo_data(self, folder: Path) -> str:
        """Write the demo's data set; returns a sentence on what it is."""
        ...
