"""The training loop: ``fit`` takes any learner through its steps and can be stopped and resumed at each."""

import itertools
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vision_core import checkpoint
from vision_core.config import Config
from vision_core.early_stopping import should_stop
from vision_core.errors import DataError, Interrupted, TrainingError
from vision_core.loaders import EpochBatches, batches, to_device
from vision_core.optimizer import Optimizer, Trained, make_optimizers
from vision_core.randomness import key
from vision_core.runfolder import RunFolder
from vision_core.runlog import Progress, RunLog, say
from vision_core.runtime import Runtime
from vision_core.schedules import learning_rate
from vision_core.settings import Optim
from vision_core.stopping import stop_signals

_MAX_SKIPPED = 10


class Learner(nn.Module, ABC):
    """Owns everything trained or saved; its ``forward`` is the training step.

    Attributes:
        step: Number of the step about to run, set by ``fit``; for keyed draws.
        is_selected: Whether the best epoch on validation leaves the run (supervised training), not the last.
        metrics: What the last step wants logged beside its losses.
        notes: What the person should be told at the end, each once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.is_selected = False
        self.metrics: dict[str, float] = {}
        self.notes: list[str] = []

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
        score: Scores the learner as it is on validation, the value that chooses the best epoch first; none: a bundle
            is written and evaluated on ``data.eval_split``.
    """

    learner: Learner
    items: TrainingSet
    notes: tuple[str, ...] = ()
    start: Path | None = None
    score: Callable[[], Mapping[str, float]] | None = None


@dataclass(kw_only=True)
class Counters:
    """Where a run stands; saved with every checkpoint. ``history`` has the first value of each evaluation."""

    step: int = 0
    updates: int = 0
    empty_steps: int = 0
    skipped_updates: int = 0
    skipped_in_a_row: int = 0
    history: list[float] = field(default_factory=list)


Evaluate = Callable[[int], Mapping[str, float]]


def fit(
    prepared: Prepared, config: Config, runtime: Runtime, run: RunFolder, evaluate: Evaluate | None = None
) -> Counters:
    """Train to the last epoch, from the newest checkpoint of ``run`` if there is one.

    Args:
        prepared: Learner, moved to the runtime's device here, and training set.
        config: Its ``train`` and ``optim`` sections are used here.
        runtime: Device and precision.
        run: Where checkpoints and logs go.
        evaluate: Called with the epoch every ``train.eval_every`` epochs; its values are logged.

    Raises:
        TrainingError: A loss is not finite, or ten updates in a row had a gradient that is not.
        Interrupted: SIGTERM or Ctrl-C; a checkpoint was written before.
    """
    loop = _Loop(prepared, config, runtime, run)
    loop.resume()
    loop.run(evaluate)
    return loop.counters


class _Loop:
    """One call of ``fit``; its state is what a checkpoint holds."""

    def __init__(self, prepared: Prepared, config: Config, runtime: Runtime, run: RunFolder) -> None:
        self.learner, self.items = prepared.learner.to(runtime.device), prepared.items
        self.config, self.runtime, self.folder = config, runtime, run
        train = config.train
        self.optimizers = make_optimizers(self.learner.trained(config.optim))
        self.scaler = runtime.scaler()
        self.counters = Counters()
        self.forward = torch.compile(self.learner) if train.compile else self.learner
        self.per_epoch = self._order().steps_per_epoch
        if not self.per_epoch:
            raise DataError(
                f"{len(self.items)} items make no step of {train.batch_size} (train.batch_size, train.drop_last). "
                "Use a smaller batch, or more items."
            )
        self.total = min(self.per_epoch * train.epochs, train.max_steps or sys.maxsize)
        self.log = RunLog(run.path, tensorboard=train.tensorboard)
        self.saved_step = 0

    def resume(self) -> None:
        state = checkpoint.load(self.folder.path, self._settings())
        if state is None:
            self.log.forget_after(0)
            return
        self.learner.load_state_dict(state["learner"], strict=True)
        for optimizer in self.optimizers:
            optimizer.torch.load_state_dict(state["optimizers"][optimizer.trained.name])
        self.scaler.load_state_dict(state["scaler"])
        self.counters = Counters(**state["counters"])
        self.saved_step = self.counters.step
        self.log.forget_after(self.counters.step)
        if state["threads"] != torch.get_num_threads():
            say(
                f"note: started with {state['threads']} threads, going on with {torch.get_num_threads()}: "
                "the last bits of the result can differ."
            )
        say(f"Resuming at step {self.counters.step} of {self.total}.")

    def run(self, evaluate: Evaluate | None) -> None:
        train = self.config.train
        order = self._order(self.counters.step)
        progress = Progress(self.total, "train", "step", initial=self.counters.step)
        self.learner.train()
        try:
            with stop_signals() as stop:
                read = batches(self.items, order, workers=train.workers, pin_memory=self._is_gpu())
                for batch in itertools.islice(read, 0 if self._is_settled() else self.total - self.counters.step):
                    self._step(batch)
                    self._after(evaluate)
                    progress.advance()
                    if self._is_settled():
                        break
                    if stop.requested and self._at_update():
                        self._interrupt()
        finally:
            progress.close()
            self.log.close()
        self.save()

    def _step(self, batch: Any) -> None:  # noqa: ANN401
        step = self.counters.step
        torch.manual_seed(key("step", self.config.train.seed, step, self.runtime.rank))
        self.learner.step = step
        started = time.monotonic()
        losses = self._losses(batch)
        if losses:
            self._backward(losses)
        else:
            self.counters.empty_steps += 1
        self.counters.step += 1
        if self._at_update():
            self._update()
        if self.counters.step % self.config.train.log_every == 0 or self.counters.step == self.total:
            self._write(losses, time.monotonic() - started)

    def _losses(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401
        try:
            with self.runtime.autocast():
                return self.forward(to_device(batch, self.runtime.device))  # type: ignore[no-any-return]
        except FloatingPointError as error:  # the detector engine looks at its own numbers
            raise self._diverged(str(error)) from error

    def _backward(self, losses: Mapping[str, Tensor]) -> None:
        terms = torch.stack([loss.float() for loss in losses.values()])
        # The one host synchronisation of a step: the values are needed to stop at once when they are not finite.
        values = terms.detach().tolist()
        if not all(map(math.isfinite, values)):
            told = zip(losses, values, strict=True)
            raise self._diverged(", ".join(f"{name} {value:g}" for name, value in told))
        self.scaler.scale(terms.sum() / self._group_size()).backward()

    def _update(self) -> None:
        moving = [optimizer for optimizer in self.optimizers if optimizer.has_gradients()]
        if not moving:
            return
        for optimizer in moving:
            self._move(optimizer)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() < scale:
            self._skipped()
            return
        self.counters.updates += 1
        self.counters.skipped_in_a_row = 0
        self.learner.after_step(self.counters.step)

    def _move(self, optimizer: Optimizer) -> None:
        part = optimizer.trained
        optimizer.set_rate(self._rate(part.optim))
        if part.optim.clip_norm:
            self.scaler.unscale_(optimizer.torch)
            torch.nn.utils.clip_grad_norm_(part.module.parameters(), part.optim.clip_norm)
        self.scaler.step(optimizer.torch)
        optimizer.torch.zero_grad(set_to_none=True)

    def _rate(self, optim: Optim) -> float:
        return learning_rate(optim, self.counters.step - 1, self.total, self.per_epoch)

    def _skipped(self) -> None:
        self.counters.skipped_updates += 1
        self.counters.skipped_in_a_row += 1
        if self.counters.skipped_in_a_row >= _MAX_SKIPPED:
            raise TrainingError(
                f"{_MAX_SKIPPED} updates in a row had gradients beyond fp16 (step {self.counters.step}). "
                "Use train.precision=bf16 or off, or a smaller optim.lr."
            )

    def _after(self, evaluate: Evaluate | None) -> None:
        step, train = self.counters.step, self.config.train
        if step % self.per_epoch == 0:
            epoch = step // self.per_epoch
            self.learner.after_epoch(epoch)
            if evaluate and train.eval_every and epoch % train.eval_every == 0:
                values = evaluate(epoch)
                self.counters.history.extend(list(values.values())[:1])
                self.log.metrics(step, epoch, {f"eval/{name}": value for name, value in values.items()})
                self.learner.train()
        if step - self.saved_step >= train.save_every and self._at_update():
            self.save()

    def save(self) -> None:
        """Write a checkpoint, unless the newest one is of this step."""
        if self.saved_step == self.counters.step:
            return
        state = {
            "config": self._settings(),
            "learner": self.learner.state_dict(),
            "optimizers": {each.trained.name: each.torch.state_dict() for each in self.optimizers},
            "scaler": self.scaler.state_dict(),
            "counters": asdict(self.counters),
            "threads": torch.get_num_threads(),
        }
        checkpoint.save(self.folder.path, state)
        self.saved_step = self.counters.step

    def _interrupt(self) -> None:
        self.save()
        raise Interrupted(f"Stopped at step {self.counters.step} of {self.total}; the checkpoint is written.")

    def _diverged(self, told: str) -> TrainingError:
        step = self.counters.step
        names = ", ".join(self.items.names(self._items_of(step)))
        return TrainingError(
            f"The loss is not finite at step {step} ({told}); items of the batch: {names}. "
            f"The last checkpoint is of step {self.saved_step}. Lower optim.lr or set optim.clip_norm."
        )

    def _items_of(self, step: int) -> list[int]:
        return [index for _, index in next(iter(self._order(step)))]

    def _order(self, start_step: int = 0) -> EpochBatches:
        train = self.config.train
        return EpochBatches(
            num_items=len(self.items),
            batch_size=train.batch_size,
            epochs=train.epochs,
            seed=train.seed,
            start_step=start_step,
            drop_last=train.drop_last,
        )

    def _is_settled(self) -> bool:
        """Whether supervised training has stopped getting better, right after an evaluation."""
        train, history = self.config.train, self.counters.history
        if not (train.patience and self.learner.is_selected and history):
            return False
        return should_stop(history, train.patience, train.patience_from)

    def _write(self, losses: Mapping[str, Tensor], seconds: float) -> None:
        step = self.counters.step
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        values |= {name: float(value) for name, value in self.learner.metrics.items()}
        for optimizer in self.optimizers:
            values["_".join(filter(None, ("lr", optimizer.trained.name)))] = self._rate(optimizer.trained.optim)
        values["step_seconds"] = round(seconds, 4)
        values["peak_memory_mib"] = round(self.runtime.peak_memory_mib(), 1)
        self.log.metrics(step, math.ceil(step / self.per_epoch), values)

    def _at_update(self) -> bool:
        in_epoch = (self.counters.step - 1) % self.per_epoch + 1
        ends = in_epoch == self.per_epoch or self.counters.step == self.total
        return ends or in_epoch % self.config.train.accumulate == 0

    def _group_size(self) -> int:
        """Steps whose gradients make this update; the last group of an epoch may be smaller."""
        accumulate = self.config.train.accumulate
        first = self.counters.step - self.counters.step % self.per_epoch % accumulate
        epoch_end = (self.counters.step // self.per_epoch + 1) * self.per_epoch
        return min(accumulate, epoch_end - first, self.total - first)

    def _is_gpu(self) -> bool:
        return self.runtime.device.type == "cuda"

    def _settings(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")
