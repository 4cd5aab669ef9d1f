"""Learning rates and other settings as plain functions of the step; there is no scheduler object to save."""

import math
from collections.abc import Sequence

from vision_core.config.schema import Optim


def cosine(step: int, total: int) -> float:
    """From 1 at step 0 to 0 at step ``total`` along half a cosine."""
    length = max(total, 1)
    return 0.5 * (1 + math.cos(math.pi * min(step, length) / length))


def warmup(step: int, steps: int, start: float = 1e-3) -> float:
    """From ``start`` at step 0 to 1 at ``steps``, linearly; 1 after that and where ``steps`` is 0."""
    if step >= steps:
        return 1.0
    return start + (1 - start) * step / steps


def multistep(step: int, milestones: Sequence[int]) -> float:
    """From 1, divided by ten at every milestone that has been reached."""
    return 0.1 ** sum(step >= milestone for milestone in milestones)


def learning_rate(optim: Optim, step: int, total: int, per_epoch: int = 1) -> float:
    """The learning rate of ``step`` (0-based) in a run of ``total`` steps, ``per_epoch`` of them in an epoch."""
    if optim.schedule_by == "epoch":
        step, total = step // per_epoch, -(-total // per_epoch)
    warmup_steps = optim.warmup_steps if optim.schedule.startswith("warmup") else 0
    rate = optim.lr * warmup(step, warmup_steps, optim.warmup_start)
    match optim.schedule:
        case "cosine" | "warmup_cosine":
            falling = cosine(max(step - warmup_steps, 0), total - warmup_steps)
            return optim.lr_end + (rate - optim.lr_end) * falling
        case "warmup_multistep":
            return rate * multistep(step, optim.milestones)
        case "constant":
            return rate


def stale_epochs(history: Sequence[float]) -> int:
    """Epochs since the last that was as good as all before it; higher is better."""
    best = max(history, default=0.0)
    return next((age for age, score in enumerate(reversed(history)) if score >= best), 0)


def should_stop(history: Sequence[float], patience: int, earliest: int) -> bool:
    """Whether to stop after the last epoch of ``history``: stale for ``patience`` epochs, and past ``earliest``.

    Args:
        history: The score on validation of each epoch so far.
        patience: Epochs without one as good.
        earliest: Index of an epoch; the run goes on up to and including it.
    """
    return len(history) - 1 > earliest and stale_epochs(history) >= patience
