"""The training loop: ``fit`` trains any learner, and continues an interrupted training with the same bits."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from vision_core.config.loading import fingerprint
from vision_core.config.schema import Config, Optim
from vision_core.console import Progress, note, say
from vision_core.errors import CheckpointError, Interrupted, NotFiniteError, TrainingError
from vision_core.randomness import key, seed_torch
from vision_core.runs.folder import RunFolder
from vision_core.runs.kept_teachers import KeptTeachers
from vision_core.runs.metrics_log import RunLog
from vision_core.signals import StopRequest, stop_signals
from vision_core.training import checkpoint, distributed
from vision_core.training.checkpoint import Counters
from vision_core.training.data_parallel import TOUCH, shared_forward
from vision_core.training.learner import Prepared, refuse_still_teacher
from vision_core.training.loaders import Steps, batches, to_device
from vision_core.training.optimizers import make_optimizers
from vision_core.training.runtime import Runtime, num_workers, tune_convolutions
from vision_core.training.schedules import learning_rate, should_stop

_MAX_SKIPPED = 10
_GO_ON = "continue from it with --resume --accept-changes and a lower optim.lr, or optim.clip_norm"


Evaluate = Callable[[int], Mapping[str, float]]


def fit(
    prepared: Prepared, config: Config, runtime: Runtime, run: RunFolder, evaluate: Evaluate | None = None
) -> Counters:
    """Train to the last epoch, from the newest checkpoint of ``run`` if there is one.

    Args:
        prepared: Learner, moved to the runtime's device here, and training set.
        config: Its ``train`` and ``optim`` sections are used here.
        runtime: Device and precision.
        run: Folder of the checkpoints and logs; ``accepts_changes`` is heeded.
        evaluate: Called with the epoch every ``train.eval_every`` epochs; its values are logged.

    Raises:
        ConfigError: The teacher would never move.
        TrainingError: A loss is not finite (under ``train.on_bad_loss=skip``: of ten steps in a row), an output between
            epochs is not, ten updates in a row had a gradient beyond fp16, or the run found nothing to learn.
        Interrupted: SIGTERM or Ctrl-C; a checkpoint was written before.
        EnvironmentFault: Another process of the training has ended without a message.
    """
    steps = Steps(len(prepared.items), config.train, world_size=runtime.world_size)
    refuse_still_teacher(prepared.learner.teacher_moves, steps)
    with distributed.fail_together():
        loop = _Loop(prepared, config, runtime, run)
        loop.resume()
        loop.run(evaluate)
    return loop.counters


def refuse_other_start(prepared: Prepared, config: Config, run: RunFolder) -> dict[str, list[Any]]:
    """Check that a checkpoint in the folder has these settings and items; writes nothing.

    Where ``run.accepts_changes`` is set, settings that a run can continue with may differ.

    Returns:
        Settings that differ, with their values then and now.

    Raises:
        CheckpointError: It has others, or it is damaged.
    """
    settings = config.model_dump(mode="json")
    checked = checkpoint.checked_entries(prepared.learner)
    state = checkpoint.load(run.path, settings, checked=checked, accepts_changes=run.accepts_changes)
    known = {None, _manifest(prepared), prepared.manifest_before or None}
    if state and state.get("items") not in known:
        raise CheckpointError(
            f"{run.path} was begun on other items than its lists name now, with other labels, or their files have "
            "changed. Restore them as they were to continue, or train anew with --overwrite."
        )
    return checkpoint.changes(state, settings) if state else {}


def _manifest(prepared: Prepared) -> str:
    items = prepared.items
    return prepared.manifest or fingerprint(items.names(range(len(items))))


class _Loop:
    """State of one call of ``fit``: what a checkpoint saves and restores."""

    def __init__(self, prepared: Prepared, config: Config, runtime: Runtime, run: RunFolder) -> None:
        train = config.train
        self.learner, self.items = prepared.learner.to(runtime.device), prepared.items
        self.config, self.runtime, self.folder = config, runtime, run
        self.settings, self.manifest = config.model_dump(mode="json"), _manifest(prepared)
        self.steps = Steps(len(self.items), train, runtime.rank, runtime.world_size)
        self.checked = checkpoint.checked_entries(self.learner)
        self.optimizers = make_optimizers(self.learner.trained(config.optim))
        self.scaler = runtime.scaler()
        self.forward = shared_forward(self.learner, runtime, compiled=train.compile)
        self.counters = Counters()
        self.saved_step = 0
        self.loss = ""  # of the newest step with one, for the progress
        self.kept: list[Tensor] = []  # buffers before the step, where a step can be left out
        self.log = RunLog(run.path, tensorboard=train.tensorboard) if runtime.is_first else None
        self.teachers = KeptTeachers(run, self.steps.total, train.keep_teachers)

    def resume(self) -> None:
        """Restore the newest checkpoint of the folder, if there is one."""
        path, settings = self.folder.path, self.settings
        accepts = self.folder.accepts_changes
        state = checkpoint.load(path, settings, checked=self.checked, accepts_changes=accepts)
        if state:
            self._restore(state)
        self.teachers.forget_after(self.counters.step)
        if self.log:
            self.log.forget_after(self.counters.step)
        if not state:
            return
        say(f"Resuming at step {self.counters.step} of {self.steps.total}.")
        distributed.wait()  # until all have read it
        if self.runtime.is_first:
            checkpoint.keep_only(path, state)
        if checkpoint.changes(state, settings):  # accepted: from now on they are those of the run
            self.saved_step = -1
            self._save()

    def run(self, evaluate: Evaluate | None) -> None:
        """Take the steps that are left, evaluate and save in between, and save the end."""
        train, steps, counters = self.config.train, self.steps, self.counters
        progress = Progress(steps.total, "train", "step", initial=counters.step)
        self.learner.train()
        tune_convolutions(has_fixed_sizes=self.learner.has_fixed_sizes)
        with closing(progress), closing(self.log) if self.log else nullcontext(), stop_signals() as stop:
            for batch in self._batches():
                must_stop = self._step(batch, stop)
                if counters.step % steps.per_epoch == 0:
                    self._end_epoch(counters.step // steps.per_epoch, evaluate)
                self.teachers.keep(counters.step, self.learner.product)  # before a checkpoint of this step
                is_at_update = steps.complete_update(counters.step)
                if is_at_update and counters.step - self.saved_step >= train.save_every:
                    self._save()
                # Several processes agree on a stop within the step; a single one also heeds a request made since.
                must_stop |= self.runtime.world_size == 1 and stop.requested
                progress.advance(", ".join(filter(None, (self.loss, self.learner.status))))
                if self._has_settled():
                    break
                if must_stop and is_at_update:
                    self._save()
                    raise Interrupted(f"Stopped at step {counters.step} of {steps.total}; the checkpoint is written.")
        self._save()
        self.learner.conclude()

    def _batches(self) -> Iterable[Any]:
        """Read the batches of the steps that are left."""
        order = dataclasses.replace(self.steps.order, start_step=self.counters.step)
        device = self.runtime.device
        workers = num_workers(self.config.train.workers, device)
        read = batches(self.items, order, workers=workers, pin_memory=device.type == "cuda")
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
        if self.config.train.on_bad_loss == "skip":
            self._keep_buffers()
        fault = ""
        try:
            with self.runtime.autocast():
                losses = self.forward(to_device(batch, device))
        except FloatingPointError as error:  # detectron2 checks its own numbers
            losses, fault = {}, str(error)

        # The one host synchronisation of a step: the values are needed to stop at once when they are not finite.
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist() if losses else []
        is_bad = bool(fault) or not all(map(math.isfinite, values))
        has_loss = any(name != TOUCH for name in losses)
        is_any_bad, has_any_loss, must_stop = distributed.any_of([is_bad, has_loss, stop.requested], device)
        if is_any_bad:
            terms = zip(losses, values, strict=True)
            told = ", ".join(f"{name} {value:g}" for name, value in terms if name != TOUCH)
            fault = fault or told or "weights"
            self._leave_out(fault if is_bad else "")
            losses, values = {}, []
        elif self.runtime.world_size > 1:
            self.learner.exchange()

        if has_any_loss and not is_any_bad:  # all processes compute gradients, or none does
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            mean = total * self.steps.own_weight(step) / self.steps.in_update_of(step)
            self.scaler.scale(mean).backward()
            self.counters.bad_in_a_row = 0
            self.loss = f"loss {sum(values):.3g}" if values else self.loss
        elif not is_any_bad:
            self.counters.empty_steps += 1
        self.counters.step += 1
        if self.steps.complete_update(self.counters.step):
            self._update()
        if self.counters.step % self.config.train.log_every == 0 or self.counters.step == self.steps.total:
            self._log_step(dict(zip(losses, values, strict=True)), time.monotonic() - started)
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
            self._note_teacher("step")
            return
        self.learner.discard()
        self.counters.skipped_updates += 1
        self.counters.skipped_in_a_row += 1
        if self.counters.skipped_in_a_row >= _MAX_SKIPPED:
            raise TrainingError(
                f"{_MAX_SKIPPED} updates in a row had gradients beyond fp16 (step {self.counters.step}). "
                "Use train.precision=bf16 or off, or a smaller optim.lr."
            )

    def _note_teacher(self, moment: str) -> None:
        if self.learner.teacher_moves == moment:
            self.counters.teacher_moves += 1
            self.counters.teacher_moved_at = self.counters.step

    def _rate(self, optim: Optim) -> float:
        update = self.steps.update_of(self.counters.step - 1)
        return learning_rate(optim, update, self.steps.total_updates, self.steps.updates_per_epoch)

    def _end_epoch(self, epoch: int, evaluate: Evaluate | None) -> None:
        """Let the learner finish an epoch, and evaluate in process 0 where it is due."""
        train = self.config.train
        self.learner.after_epoch(epoch)
        self._note_teacher("epoch")
        if not (evaluate and train.eval_every and epoch % train.eval_every == 0):
            return
        try:
            values = dict(evaluate(epoch)) if self.runtime.is_first else {}
        except NotFiniteError as error:
            raise self._diverged(error) from error
        values = distributed.broadcast_from_first(values)
        self.counters.history.extend(list(values.values())[:1])
        if self.log:
            self.log.metrics(self.counters.step, epoch, {f"eval/{name}": value for name, value in values.items()})
        self.learner.train()

    def _has_settled(self) -> bool:
        """Tell whether supervised training has stopped improving on validation."""
        train, history = self.config.train, self.counters.history
        if not (train.patience and self.learner.is_selected and history):
            return False
        ties_are_stale = self.learner.ties_are_stale
        return should_stop(history, train.patience, train.patience_from, ties_are_stale=ties_are_stale)

    def _log_step(self, losses: Mapping[str, float], seconds: float) -> None:
        """Write the metrics of a step; losses are means over all processes, weighted by their items."""
        step = self.counters.step
        weight = self.steps.own_weight(step - 1) / self.runtime.world_size
        own = {name: weight * loss for name, loss in losses.items() if name != TOUCH}
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
        """Write a checkpoint in process 0, unless the newest one is of this step.

        Raises:
            TrainingError: The last update was not finite; the checkpoint before stays.
        """
        if self.saved_step == self.counters.step:
            return
        state = {
            "config": self.settings,
            "items": self.manifest,
            "learner": self.learner.state_dict(),
            "optimizers": {each.trained.name: each.torch.state_dict() for each in self.optimizers},
            "scaler": self.scaler.state_dict(),
            "counters": asdict(self.counters),
            "notes": list(self.learner.notes),
            "threads": torch.get_num_threads(),
            "processes": self.runtime.world_size,
        }
        if wrong := checkpoint.not_finite(state, self.checked):
            raise TrainingError(
                f"After step {self.counters.step} '{len(wrong)}' weights or states of the optimizer are not finite, "
                f"first '{wrong[0]}'; no checkpoint is written of them. {self._last_checkpoint()}"
            )
        if self.runtime.is_first:
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
            optimizer.restore(state["optimizers"][optimizer.trained.name])
        if state["scaler"]:  # empty where the part before had another precision
            self.scaler.load_state_dict(state["scaler"])
        self.learner.notes[:] = state.get("notes", [])
        self.counters = Counters(
            **checkpoint.teacher_of_before(state["counters"], self.learner.teacher_moves, self.steps.per_epoch)
            | state["counters"]
        )
        self.saved_step = self.counters.step
        if state["threads"] != torch.get_num_threads():
            say(
                f"note: started with {state['threads']} threads, continuing with {torch.get_num_threads()}: "
                "the last bits of the result can differ."
            )

    @torch.no_grad()
    def _keep_buffers(self) -> None:
        """Copy the buffers, which a forward pass moves, in one call: a GPU starts no kernel for each of a hundred."""
        now = list(self.learner.buffers())
        if [each.shape for each in self.kept] != [each.shape for each in now]:
            self.kept = [torch.empty_like(each) for each in now]
        if now:
            torch._foreach_copy_(self.kept, now)

    @torch.no_grad()
    def _leave_out(self, fault: str) -> None:
        """Leave out a step whose loss is not finite in some process, or end the run.

        Args:
            fault: What is not finite in this process; empty where it is another.
        """
        counters = self.counters
        for buffer, value in zip(self.learner.buffers() if self.kept else (), self.kept, strict=True):
            buffer.copy_(value)
        self.learner.discard()
        counters.bad_losses += 1
        counters.bad_in_a_row += 1
        own = self._told(fault) if fault else ""
        told = next(filter(None, distributed.gather_objects(own)))
        if self.config.train.on_bad_loss == "skip" and counters.bad_in_a_row < _MAX_SKIPPED:
            (say if counters.bad_losses == 1 else note)(f"{told} The step is left out (train.on_bad_loss=skip).")
            return
        many = f"{counters.bad_in_a_row} steps in a row were not finite. " if counters.bad_in_a_row > 1 else ""
        other = "" if own else "The loss of another process is not finite. "
        raise TrainingError(f"{other}{many}{told} {self._last_checkpoint()}")

    def _diverged(self, error: NotFiniteError) -> TrainingError:
        where = f"after step {self.counters.step} ({error.where})"
        return TrainingError(f"The output is not finite {where}: the weights have diverged. {self._last_checkpoint()}")

    def _told(self, fault: str) -> str:
        step = self.counters.step
        places = next(iter(dataclasses.replace(self.steps.order, start_step=step)))
        names = ", ".join(self.items.names([index for _, index in places]))
        return f"The loss is not finite at step {step} ({fault}); items of the batch: {names}."

    def _last_checkpoint(self) -> str:
        if self.saved_step > 0:
            return f"The last checkpoint is of step {self.saved_step}: {_GO_ON}."
        return "There is no checkpoint yet. Train anew with a lower optim.lr, or set optim.clip_norm."
