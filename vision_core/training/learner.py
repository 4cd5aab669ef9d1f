"""What a task gives the training loop: a learner, whose forward pass is the training step, and items to learn from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from vision_core.config.schema import Optim
from vision_core.training.optimizers import Trained


class Learner(nn.Module, ABC):
    """Owns everything trained or saved; its ``forward`` is the training step.

    Attributes:
        step: Number of the step about to run, set by ``fit``; for keyed draws.
        update: Number of the update that this step works for, set by ``fit``, ``step`` until then; for schedules.
        is_selected: Whether the best epoch on validation leaves the run (supervised training), not the last.
        metrics: What the last step wants logged beside its losses.
        notes: What the person should be told at the end, each once.
        teacher_moves: When a teacher follows, for what the person is told; none where there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self._update: int | None = None
        self.is_selected = False
        self.metrics: dict[str, float] = {}
        self.notes: list[str] = []
        self.teacher_moves: Literal["step", "epoch"] | None = None

    @property
    def update(self) -> int:
        """Number of the update that this step works for."""
        return self.step if self._update is None else self._update

    @update.setter
    def update(self, number: int) -> None:
        self._update = number

    @abstractmethod
    def training_step(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401 (each task has its own batch)
        """The losses, whose sum is minimised; an empty dict means that there is nothing to learn here."""

    @abstractmethod
    def product(self) -> nn.Module:
        """The module that leaves the run."""

    def trained(self, optim: Optim) -> Sequence[Trained]:
        """What trains, and how: all of it by ``optim``, unless parts have optimizers of their own."""
        return [Trained(module=self, optim=optim)]

    def forward(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """The training step, so that a data-parallel wrapper needs no special case."""
        return self.training_step(batch)

    def exchange(self) -> None:
        """Called in every step of several processes, in all of them: the place to make memories the same in all.

        A process that had no item in this step is called too.
        """

    def after_step(self, step: int) -> None:
        """Called after the optimizer has moved."""

    def after_epoch(self, epoch: int) -> None:
        """Called after the last step of an epoch."""


class TrainingSet(Protocol):
    """Items by (epoch, index); ``collate`` joins those of a step into the batch that the learner gets."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def __getitem__(self, place: tuple[int, int]) -> Any:  # noqa: ANN401
        """The item ``index`` as it is in ``epoch``."""
        ...

    def collate(self, items: list[Any]) -> Any:  # noqa: ANN401
        """The batch of a step."""
        ...

    def names(self, indices: Sequence[int]) -> list[str]:
        """What the items are called, for messages."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What training needs.

    Attributes:
        learner: With its starting weights.
        items: The training set.
        notes: What the person should know before it starts.
        start: The bundle that the run starts from, if it is one; evaluated beside the result.
        manifest: Changes with the items or their labels; a run is resumed on the same alone. Empty: their names count.
        score: Scores the learner as it is on validation, the value that chooses the best epoch first; none: a bundle
            is written and evaluated on ``data.eval_split``.
    """

    learner: Learner
    items: TrainingSet
    notes: tuple[str, ...] = ()
    start: Path | None = None
    manifest: str = ""
    score: Callable[[], Mapping[str, float]] | None = None
