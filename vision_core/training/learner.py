"""Interface of the training loop: a learner, whose forward pass is the training step, and a training set."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from torch import Tensor, nn

from vision_core.config.schema import Optim
from vision_core.errors import ConfigError
from vision_core.training.loaders import Steps
from vision_core.training.optimizers import Trained

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Start(Generic[ModuleT]):
    """Module with the weights that a run starts from.

    Attributes:
        module: Trainable.
        path: Bundle of the same classes that it was loaded from, if any.
        notes: Notes for the user, a sentence each.
    """

    module: ModuleT
    path: Path | None = None
    notes: tuple[str, ...] = ()


class Learner(nn.Module, ABC):
    """Module with everything trained or saved; its ``forward`` is the training step.

    Attributes:
        step: Number of the current step, set by ``fit``; key of random draws.
        update: Number of the update that this step contributes to, set by ``fit``, ``step`` until then; for schedules.
        is_selected: Whether the bundle is of the best epoch on validation (supervised training), not of the last one.
        ties_are_stale: Whether a score equal to the best does not count as one, for early stopping.
        metrics: Values of the last step that are logged beside its losses.
        notes: Remarks for the user, printed at the end of the run; a checkpoint holds them.
        status: A few words on the run so far, shown beside the progress.
        has_fixed_sizes: Whether all images of a run have the same size, for which convolutions are then tuned.
        teacher_moves: When the teacher is updated; None without a teacher.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self._update: int | None = None
        self.is_selected = False
        self.ties_are_stale = False
        self.metrics: dict[str, float] = {}
        self.notes: list[str] = []
        self.status = ""
        self.has_fixed_sizes = False
        self.teacher_moves: Literal["step", "epoch"] | None = None

    @property
    def update(self) -> int:
        """Number of the update that this step contributes to."""
        return self.step if self._update is None else self._update

    @update.setter
    def update(self, number: int) -> None:
        self._update = number

    @abstractmethod
    def training_step(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401 (each task has its own batch)
        """Compute the losses, whose sum is minimised; an empty dict skips the step."""

    @abstractmethod
    def product(self) -> nn.Module:
        """Return the trained module that the bundle is made of."""

    def trained(self, optim: Optim) -> Sequence[Trained]:
        """List the parts with an optimizer each; by default one part, the whole learner."""
        return [Trained(module=self, optim=optim)]

    def forward(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Run the training step; data-parallel wrappers call this."""
        return self.training_step(batch)

    def exchange(self) -> None:
        """Synchronise memory banks between processes; called in every step, in all processes.

        Processes without an item in this step are called too. Not called in training with one process.
        """

    def after_step(self, step: int) -> None:
        """React to an update, such as by moving a teacher; called after it."""

    def discard(self) -> None:
        """Forget what the steps of this update have left behind; called where they move no weights.

        Their gradients were beyond fp16, or the loss of one was not finite.
        """

    def after_epoch(self, epoch: int) -> None:
        """React to the end of an epoch; called after its last step."""

    def conclude(self) -> None:
        """Judge the whole run; called after its last step.

        Raises:
            TrainingError: Its result is none.
        """


class TrainingSet(Protocol):
    """Data set of items by (epoch, index); ``collate`` joins those of a step into its batch."""

    def __len__(self) -> int:
        """Count the items."""
        ...

    def __getitem__(self, place: tuple[int, int]) -> Any:  # noqa: ANN401
        """Read the item ``index``, augmented as in ``epoch``."""
        ...

    def collate(self, items: list[Any]) -> Any:  # noqa: ANN401
        """Join the items of a step into a batch."""
        ...

    def names(self, indices: Sequence[int]) -> list[str]:
        """Name the items for messages."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Learner and training set of a run.

    Attributes:
        learner: Learner with its initial weights.
        items: Training set.
        notes: Remarks for the user, printed before training starts.
        start: Bundle that the run starts from, if any; evaluated beside the result.
        manifest: Hash of items and labels; only a run with the same one is resumed. Empty: a hash of the items' names.
        manifest_before: Hash by which earlier versions knew the same items; a run with it is resumed too.
        score: Scores the current learner on validation, first the value that selects the best epoch. None: a bundle is
            written and evaluated on ``data.eval_split``.
    """

    learner: Learner
    items: TrainingSet
    notes: tuple[str, ...] = ()
    start: Path | None = None
    manifest: str = ""
    manifest_before: str = ""
    score: Callable[[], Mapping[str, float]] | None = None


def refuse_still_teacher(moves: Literal["step", "epoch"] | None, steps: Steps) -> None:
    """Refuse a run that ends before its teacher, which moves at the end of an epoch, has moved.

    Raises:
        ConfigError: An epoch has more steps than the run.
    """
    if moves == "epoch" and steps.total < steps.per_epoch:
        raise ConfigError(
            f"teacher.every=epoch moves the teacher after '{steps.per_epoch}' steps, which make an epoch, and "
            f"train.max_steps ends this run after '{steps.total}': it would deliver the weights that it starts from. "
            f"Set train.max_steps to {steps.per_epoch} or more, or teacher.every=step with a teacher.keep_rate such as "
            "0.99."
        )
