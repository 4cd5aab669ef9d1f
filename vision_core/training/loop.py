"""The training loop: ``fit`` trains any learner, and continues an interrupted training with the same bits."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from vision_core.config.loading import fingerprint
from vision_core.config.schema import Config, Optim, Train
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
from vision_core.training.optimizers import make_optimizers
from vision_core.training.runtime import Runtime
from vision_core.training.schedules import learning_rate, should_stop

_MAX_SKIPPED = 10


@dataclass(kw_only=True)
class Counters:
    """Progress of a run, saved with every checkpoint; ``history`` has the first value of each evaluation."""

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
        run: Folder of the checkpoints and logs.
        evaluate: Called with the epoch every ``train.eval_every`` epochs; its values are logged.

    Raises:
        TrainingError: A loss is not finite, or ten updates in a row had a gradient that is not.
        Interrupted: SIGTERM or Ctrl-C; a checkpoint was written before.
        EnvironmentFault: Another process of the training has ended without a message.
    """
    with distributed.fail_together():
        loop = _Loop(prepared, config, runtime, run)
        loop.resume()
        loop.run(evaluate)
    return loop.counters


def refuse_other_start(prepared: Prepared, config: Config, run: RunFolder) -> None:
    """Check that a checkpoint in the folder has these settings and items; writes nothing.

    Raises:
        CheckpointError: It has others, or it is damaged.
    """
    state = checkpoint.load(run.path, config.model_dump(mode="json"))
    known = {None, _manifest(prepared), prepared.manifest_before or None}
    if state and state.get("items") not in known:
        raise CheckpointError(
            f"{run.path} was begun on other items than its lists name now, with other labels, or their files have "
            "changed. Restore them as they were to continue, or train anew with --overwrite."
        )


def _manifest(prepared: Prepared) -> str:
    items = prepared.items
    return prepared.manifest or fingerprint(items.names(range(len(items))))


class _Steps:
    """Arithmetic of steps, epochs and updates: an update takes the gradients of ``train.accumulate`` steps."""

    def __init__(self, order: EpochBatches, train: Train) -> None:
        self.order, self.accumulate = order, train.accumulate
        self.per_epoch = order.steps_per_epoch
        if not self.per_epoch:
            raise DataError(
                f"{order.num_items} items make no step of {train.batch_size} (train.batch_size, train.drop_last). "
                "Use a smaller batch, or more items."
            )
        self.total = min(self.per_epoch * train.epochs, train.max_steps or sys.maxsize)
        self.updates_per_epoch = -(-self.per_epoch // train.accumulate)
        self.total_updates = self.update_of(self.total - 1) + 1

    def update_of(self, step: int) -> int:
        """Compute the number of the update that ``step`` contributes to, which is what schedules count."""
        epoch, in_epoch = divmod(step, self.per_epoch)
        return epoch * self.updates_per_epoch + in_epoch // self.accumulate

    def complete_update(self, done: int) -> bool:
        """Tell whether an update follows after ``done`` steps; the end of an epoch completes one early."""
        in_epoch = (done - 1) % self.per_epoch + 1
        return in_epoch == self.per_epoch or done == self.total or in_epoch % self.accumulate == 0

    def in_update_of(self, step: int) -> int:
        """Count the steps of the update that ``step`` contributes to; the last one of an epoch may have fewer."""
        first = step - step % self.per_epoch % self.accumulate
        epoch_end = (step // self.per_epoch + 1) * self.per_epoch
        return min(self.accumulate, epoch_end - first, self.total - first)

    def own_weight(self, step: int) -> float:
        """Compute the factor that turns the mean over processes into one over items: their numbers may differ."""
        world, batch_size = self.order.world_size, self.order.batch_size
        if world == 1:
            return 1.0
        in_step = min(batch_size * world, self.order.num_items - step % self.per_epoch * batch_size * world)
        return len(range(self.order.rank, in_step, world)) * world / in_step


class _Loop:
    """State of one call of ``fit``: what a checkpoint saves and restores."""

    def __init__(self, prepared: Prepared, config: Config, runtime: Runtime, run: RunFolder) -> None:
        train = config.train
        self.learner, self.items = prepared.learner.to(runtime.device), prepared.items
        self.config, self.runtime, self.folder = config, runtime, run
        self.settings, self.manifest = config.model_dump(mode="json"), _manifest(prepared)
        self.order = EpochBatches(
            num_items=len(self.items),
            batch_size=train.batch_size,
            epochs=train.epochs,
            seed=train.seed,
            drop_last=train.drop_last,
            rank=runtime.rank,
            world_size=runtime.world_size,
        )
        self.steps = _Steps(self.order, train)
        self.optimizers = make_optimizers(self.learner.trained(config.optim))
        self.scaler = runtime.scaler()
        self.forward = shared_forward(self.learner, runtime, compiled=train.compile)
        self.counters = Counters()
        self.saved_step = 0
        self.log = RunLog(run.path, tensorboard=train.tensorboard) if runtime.is_first else None

    def resume(self) -> None:
        """Restore the newest checkpoint of the folder, if there is one."""
        state = checkpoint.load(self.folder.path, self.settings)
        if state:
            self._restore(state)
        if self.log:
            self.log.forget_after(self.counters.step)
        if state:
            say(f"Resuming at step {self.counters.step} of {self.steps.total}.")

    def run(self, evaluate: Evaluate | None) -> None:
        """Take the steps that are left, evaluate and save in between, and save the end."""
        train, steps, counters = self.config.train, self.steps, self.counters
        progress = Progress(steps.total, "train", "step", initial=counters.step)
        self.learner.train()
        with closing(progress), closing(self.log) if self.log else nullcontext(), stop_signals() as stop:
            for batch in self._batches():
                must_stop = self._step(batch, stop)
                if counters.step % steps.per_epoch == 0:
                    self._end_epoch(counters.step // steps.per_epoch, evaluate)
                is_at_update = steps.complete_update(counters.step)
                if is_at_update and counters.step - self.saved_step >= train.save_every:
                    self._save()
                # Several processes agree on a stop within the step; a single one also heeds a request made since.
                must_stop |= self.runtime.world_size == 1 and stop.requested
                progress.advance()
                if self._has_settled():
                    break
                if must_stop and is_at_update:
                    self._save()
                    raise Interrupted(f"Stopped at step {counters.step} of {steps.total}; the checkpoint is written.")
        self._save()

    def _batches(self) -> Iterable[Any]:
        """Read the batches of the steps that are left."""
        order = dataclasses.replace(self.order, start_step=self.counters.step)
        is_gpu = self.runtime.device.type == "cuda"
        read = batches(self.items, order, workers=self.config.train.workers, pin_memory=is_gpu)
        return islice(read, 0 if self._has_settled() else self.steps.total - self.counters.step)

    def _step(self, batch: Any, stop: StopRequest) -> bool:  # noqa: ANN401 (each task has its own batch)
        """Take one step: losses, gradients, an update when its steps are complete, a line of metrics.

        Returns:
            Whether a stop was requested of any process.
        """
        step, device = self.counters.step, self.runtime.device
        seed_torch(key("step", self.config.train.seed, step, self.runtime.rank))
        self.learner.step, self.learner.update = step, self.steps.update_of(step)
        started = time.monotonic()
        try:
            with self.runtime.autocast():
                losses = self.forward(to_device(batch, device))
        except FloatingPointError as error:  # detectron2 checks its own numbers
            raise self._divergence(str(error)) from error

        # The one host synchronisation of a step: the values are needed to stop at once when they are not finite.
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist() if losses else []
        is_bad = not all(map(math.isfinite, values))
        has_loss = any(name != TOUCH for name in losses)
        is_any_bad, has_any_loss, must_stop = distributed.any_of([is_bad, has_loss, stop.requested], device)
        if is_any_bad:
            self._stop_diverged(losses, values)
        if self.runtime.world_size > 1:
            self.learner.exchange()

        if has_any_loss:  # all processes compute gradients, or none does
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            mean = total * self.steps.own_weight(step) / self.steps.in_update_of(step)
            self.scaler.scale(mean).backward()
        else:
            self.counters.empty_steps += 1
        self.counters.step += 1
        if self.steps.complete_update(self.counters.step):
            self._update()
        if self.counters.step % self.config.train.log_every == 0 or self.counters.step == self.steps.total:
            self._log_step(losses, time.monotonic() - started)
        return must_stop

    def _update(self) -> None:
        """Move every optimizer that has gradients, unless fp16 gradients overflowed."""
        moving = [optimizer for optimizer in self.optimizers if optimizer.has_gradients()]
        if not moving:
            return
        for optimizer in moving:
            part = optimizer.trained
            optimizer.set_rate(self._rate(part.optim))
            if part.optim.clip_norm:
                self.scaler.unscale_(optimizer.torch)
                torch.nn.utils.clip_grad_norm_(part.module.parameters(), part.optim.clip_norm)
            self.scaler.step(optimizer.torch)
            optimizer.torch.zero_grad(set_to_none=True)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            self.counters.updates += 1
            self.counters.skipped_in_a_row = 0
            self.learner.after_step(self.counters.step)
            return
        self.counters.skipped_updates += 1
        self.counters.skipped_in_a_row += 1
        if self.counters.skipped_in_a_row >= _MAX_SKIPPED:
            raise TrainingError(
                f"{_MAX_SKIPPED} updates in a row had gradients beyond fp16 (step {self.counters.step}). "
                "Use train.precision=bf16 or off, or a smaller optim.lr."
            )

    def _rate(self, optim: Optim) -> float:
        update = self.steps.update_of(self.counters.step - 1)
        return learning_rate(optim, update, self.steps.total_updates, self.steps.updates_per_epoch)

    def _end_epoch(self, epoch: int, evaluate: Evaluate | None) -> None:
        """Let the learner finish an epoch, and evaluate in process 0 where it is due."""
        train = self.config.train
        self.learner.after_epoch(epoch)
        if not (evaluate and train.eval_every and epoch % train.eval_every == 0):
            return
        values = distributed.broadcast_from_first(dict(evaluate(epoch)) if self.runtime.is_first else {})
        self.counters.history.extend(list(values.values())[:1])
        if self.log:
            self.log.metrics(self.counters.step, epoch, {f"eval/{name}": value for name, value in values.items()})
        self.learner.train()

    def _has_settled(self) -> bool:
        """Tell whether supervised training has stopped improving on validation."""
        train, history = self.config.train, self.counters.history
        if not (train.patience and self.learner.is_selected and history):
            return False
        return should_stop(history, train.patience, train.patience_from)

    def _log_step(self, losses: Mapping[str, Tensor], seconds: float) -> None:
        """Write the metrics of a step; losses are means over all processes, weighted by their items."""
        step = self.counters.step
        weight = self.steps.own_weight(step - 1) / self.runtime.world_size
        own = {name: weight * float(loss.detach()) for name, loss in losses.items() if name != TOUCH}
        parts = distributed.gather_objects(own)
        if not self.log:
            return
        values = {name: sum(part.get(name, 0.0) for part in parts) for name in dict.fromkeys(chain(*parts))}
        values |= {name: float(value) for name, value in self.learner.metrics.items()}
        for optimizer in self.optimizers:
            values["_".join(filter(None, ("lr", optimizer.trained.name)))] = self._rate(optimizer.trained.optim)
        values["step_seconds"] = round(seconds, 4)
        values["peak_memory_mib"] = round(self.runtime.peak_memory_mib(), 1)
        self.log.metrics(step, math.ceil(step / self.steps.per_epoch), values)

    def _save(self) -> None:
        """Write a checkpoint in process 0, unless the newest one is of this step."""
        if self.saved_step == self.counters.step:
            return
        if self.runtime.is_first:
            state = {
                "config": self.settings,
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

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Load the content of a checkpoint, of as many processes as now."""
        then, now = state.get("processes", 1), self.runtime.world_size
        if then != now:
            start = f"torchrun --nproc-per-node {then}" if then > 1 else "python"
            raise CheckpointError(
                f"{self.folder.path} was trained by '{then}' processes, now there are '{now}': steps and updates would "
                f"have other items. Resume with '{start} -m ...', or use --overwrite."
            )
        self.learner.load_state_dict(state["learner"], strict=True)
        for optimizer in self.optimizers:
            optimizer.torch.load_state_dict(state["optimizers"][optimizer.trained.name])
        self.scaler.load_state_dict(state["scaler"])
        self.counters = Counters(**state["counters"])
        self.saved_step = self.counters.step
        if state["threads"] != torch.get_num_threads():
            say(
                f"note: started with {state['threads']} threads, continuing with {torch.get_num_threads()}: "
                "the last bits of the result can differ."
            )

    def _stop_diverged(self, losses: Mapping[str, Tensor], values: Sequence[float]) -> None:
        """Stop all processes where the loss of one is not finite; each names the step and the items of that one."""
        told = ", ".join(f"{name} {value:g}" for name, value in zip(losses, values, strict=True))
        own = None if all(map(math.isfinite, values)) else self._divergence(told)
        told_by_all = distributed.gather_objects(str(own or ""))
        raise own or TrainingError(f"The loss of another process is not finite. {next(filter(None, told_by_all))}")

    def _divergence(self, told: str) -> TrainingError:
        step = self.counters.step
        places = next(iter(dataclasses.replace(self.order, start_step=step)))
        names = ", ".join(self.items.names([index for _, index in places]))
        return TrainingError(
            f"The loss is not finite at step {step} ({told}); items of the batch: {names}. "
            f"The last checkpoint is of step {self.saved_step}. Lower optim.lr or set optim.clip_norm."
        )
