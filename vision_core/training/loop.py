"""The training loop: ``fit`` takes any learner through its steps and can be stopped and resumed at each."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from vision_core.config.loading import fingerprint
from vision_core.config.schema import Config, Optim
from vision_core.console import Progress, say
from vision_core.errors import CheckpointError, DataError, Interrupted, TrainingError
from vision_core.randomness import key, seed_torch
from vision_core.runs.folder import RunFolder
from vision_core.runs.metrics_log import RunLog
from vision_core.signals import StopRequest, stop_signals
from vision_core.training import checkpoint, distributed
from vision_core.training.data_parallel import TOUCH, shared_forward
from vision_core.training.learner import Prepared
from vision_core.training.loaders import EpochBatches, batches, to_device
from vision_core.training.optimizers import Optimizer, make_optimizers
from vision_core.training.runtime import Runtime
from vision_core.training.schedules import learning_rate, should_stop

_MAX_SKIPPED = 10


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
        EnvironmentFault: Another process of the training is gone.
    """
    with distributed.fail_together():
        loop = _Loop(prepared, config, runtime, run)
        loop.resume()
        loop.run(evaluate)
    return loop.counters


def refuse_other_start(prepared: Prepared, config: Config, run: RunFolder) -> None:
    """Make sure that a checkpoint in the folder is of these settings and items; nothing is written.

    Raises:
        CheckpointError: It is not, or it is damaged.
    """
    state = checkpoint.load(run.path, config.model_dump(mode="json"))
    if state and state.get("items") not in {None, _manifest(prepared)}:
        raise CheckpointError(
            f"{run.path} was begun on other items than its lists name now, or with other labels. Put them back as they "
            "were to go on, or train anew with --overwrite."
        )


def _manifest(prepared: Prepared) -> str:
    items = prepared.items
    return prepared.manifest or fingerprint(items.names(range(len(items))))


class _Loop:
    """One call of ``fit``; its state is what a checkpoint holds."""

    def __init__(self, prepared: Prepared, config: Config, runtime: Runtime, run: RunFolder) -> None:
        self.learner, self.items = prepared.learner.to(runtime.device), prepared.items
        self.config, self.runtime, self.folder = config, runtime, run
        self.manifest = _manifest(prepared)
        train = config.train
        self.optimizers = make_optimizers(self.learner.trained(config.optim))
        self.scaler = runtime.scaler()
        self.counters = Counters()
        self.forward = shared_forward(self.learner, runtime, compiled=train.compile)
        self.must_stop = False
        self.per_epoch = self._order().steps_per_epoch
        if not self.per_epoch:
            raise DataError(
                f"{len(self.items)} items make no step of {train.batch_size} (train.batch_size, train.drop_last). "
                "Use a smaller batch, or more items."
            )
        self.total = min(self.per_epoch * train.epochs, train.max_steps or sys.maxsize)
        self.updates_per_epoch = -(-self.per_epoch // train.accumulate)
        self.total_updates = self._update_of(self.total - 1) + 1
        self.log = RunLog(run.path, tensorboard=train.tensorboard) if runtime.is_first else None
        self.saved_step = 0

    def resume(self) -> None:
        state = checkpoint.load(self.folder.path, self._settings())
        if state is None:
            if self.log:
                self.log.forget_after(0)
            return
        self._require_as_many(state.get("processes", 1))
        self.learner.load_state_dict(state["learner"], strict=True)
        for optimizer in self.optimizers:
            optimizer.torch.load_state_dict(state["optimizers"][optimizer.trained.name])
        self.scaler.load_state_dict(state["scaler"])
        self.counters = Counters(**state["counters"])
        self.saved_step = self.counters.step
        if self.log:
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
                for batch in islice(read, 0 if self._is_settled() else self.total - self.counters.step):
                    self._step(batch, stop)
                    self._after(evaluate)
                    # Several processes agree on a stop in the middle of a step; one heeds it at once.
                    self.must_stop |= self.runtime.world_size == 1 and stop.requested
                    progress.advance()
                    if self._is_settled():
                        break
                    if self.must_stop and self._at_update():
                        self._interrupt()
        finally:
            progress.close()
            if self.log:
                self.log.close()
        self.save()

    def _step(self, batch: Any, stop: StopRequest) -> None:  # noqa: ANN401
        step = self.counters.step
        seed_torch(key("step", self.config.train.seed, step, self.runtime.rank))
        self.learner.step, self.learner.update = step, self._update_of(step)
        started = time.monotonic()
        losses = self._losses(batch)
        is_learning = self._has_anyone_learnt(losses, stop)
        if self.runtime.world_size > 1:
            self.learner.exchange()
        if is_learning:
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
                return self.forward(to_device(batch, self.runtime.device))
        except FloatingPointError as error:  # the detector engine looks at its own numbers
            raise self._diverged(str(error)) from error

    def _has_anyone_learnt(self, losses: Mapping[str, Tensor], stop: StopRequest) -> bool:
        """Whether a process has something to learn from in this step; then all take it, else none does."""
        # The one host synchronisation of a step: the values are needed to stop at once when they are not finite.
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist() if losses else []
        is_bad = not all(map(math.isfinite, values))
        has_loss = any(name != TOUCH for name in losses)
        is_any_bad, learns, must_stop = distributed.any_of([is_bad, has_loss, stop.requested], self.runtime.device)
        self.must_stop = must_stop
        if is_any_bad:
            self._stop_diverged(losses, values)
        return learns

    def _stop_diverged(self, losses: Mapping[str, Tensor], values: Sequence[float]) -> None:
        told = ", ".join(f"{name} {value:g}" for name, value in zip(losses, values, strict=True))
        own = None if all(map(math.isfinite, values)) else self._diverged(told)
        told_by_all = distributed.gather_objects(str(own or ""))
        raise own or TrainingError(f"The loss of another process is not finite. {next(filter(None, told_by_all))}")

    def _backward(self, losses: Mapping[str, Tensor]) -> None:
        terms = torch.stack([loss.float() for loss in losses.values()])
        self.scaler.scale(terms.sum() * self._own_share(self.counters.step) / self._group_size()).backward()

    def _own_share(self, step: int) -> float:
        """What makes the mean over processes one over items: they differ where a last step has fewer."""
        world = self.runtime.world_size
        if world == 1:
            return 1.0
        at = step % self.per_epoch * self.config.train.batch_size * world
        in_step = min(self.config.train.batch_size * world, len(self.items) - at)
        return len(range(self.runtime.rank, in_step, world)) * world / in_step

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
        update = self._update_of(self.counters.step - 1)
        return learning_rate(optim, update, self.total_updates, self.updates_per_epoch)

    def _update_of(self, step: int) -> int:
        """Number of the update that ``step`` works for: what schedules count, however many steps make one."""
        epoch, in_epoch = divmod(step, self.per_epoch)
        return epoch * self.updates_per_epoch + in_epoch // self.config.train.accumulate

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
                self._evaluate(evaluate, epoch)
        if step - self.saved_step >= train.save_every and self._at_update():
            self.save()

    def _evaluate(self, evaluate: Evaluate, epoch: int) -> None:
        values = distributed.broadcast_from_first(dict(evaluate(epoch)) if self.runtime.is_first else {})
        self.counters.history.extend(list(values.values())[:1])
        if self.log:
            self.log.metrics(self.counters.step, epoch, {f"eval/{name}": value for name, value in values.items()})
        self.learner.train()

    def save(self) -> None:
        """Write a checkpoint, unless the newest one is of this step."""
        if self.saved_step == self.counters.step:
            return
        if not self.runtime.is_first:
            self.saved_step = self.counters.step
            return
        state = {
            "config": self._settings(),
            "items": self.manifest,
            "learner": self.learner.state_dict(),
            "optimizers": {each.trained.name: each.torch.state_dict() for each in self.optimizers},
            "scaler": self.scaler.state_dict(),
            "counters": asdict(self.counters),
            "threads": torch.get_num_threads(),
            "processes": self.runtime.world_size,
        }
        checkpoint.save(self.folder.path, state)
        self.saved_step = self.counters.step

    def _require_as_many(self, processes_then: int) -> None:
        if processes_then == self.runtime.world_size:
            return
        start = f"torchrun --nproc-per-node {processes_then}" if processes_then > 1 else "python"
        raise CheckpointError(
            f"{self.folder.path} was trained by '{processes_then}' processes, now there are "
            f"'{self.runtime.world_size}': steps and updates would be of other items. Resume with '{start} -m ...', "
            "or use --overwrite."
        )

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
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
        )

    def _is_settled(self) -> bool:
        """Whether supervised training has stopped getting better, right after an evaluation."""
        train, history = self.config.train, self.counters.history
        if not (train.patience and self.learner.is_selected and history):
            return False
        return should_stop(history, train.patience, train.patience_from)

    def _write(self, losses: Mapping[str, Tensor], seconds: float) -> None:
        step = self.counters.step
        values = self._mean_losses(losses)
        if not self.log:
            return
        values |= {name: float(value) for name, value in self.learner.metrics.items()}
        for optimizer in self.optimizers:
            values["_".join(filter(None, ("lr", optimizer.trained.name)))] = self._rate(optimizer.trained.optim)
        values["step_seconds"] = round(seconds, 4)
        values["peak_memory_mib"] = round(self.runtime.peak_memory_mib(), 1)
        self.log.metrics(step, math.ceil(step / self.per_epoch), values)

    def _mean_losses(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all processes, weighted by their items."""
        share = self._own_share(self.counters.step - 1) / self.runtime.world_size
        own = {name: share * float(loss.detach()) for name, loss in losses.items() if name != TOUCH}
        parts = distributed.gather_objects(own)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in dict.fromkeys(chain(*parts))}

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
