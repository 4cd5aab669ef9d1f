"""Learning rates and other settings as plain functions of the step; there is no scheduler object to save."""

import math
from collections.abc import Sequence

from vision_core.config.schema import Optim


def cosine(step: int, total: int) -> float:
    """Compute half a cosine: 1 at step 0, 0 at ``total``."""
    length = max(total, 1)
    return 0.5 * (1 + math.cos(math.pi * min(step, length) / length))


def warmup(step: int, steps: int, start: float = 1e-3) -> float:
    """Compute a linear warm-up: ``start`` at step 0, 1 from ``steps`` on."""
    if step >= steps:
        return 1.0
    return start + (1 - start) * step / steps


def multistep(step: int, milestones: Sequence[int]) -> float:
    """Divide 1 by ten at every milestone reached."""
    return 0.1 ** sum(step >= milestone for milestone in milestones)


def learning_rate(optim: Optim, step: int, total: int, per_epoch: int = 1) -> float:
    """Compute the learning rate of ``step``, counted from 0.

    Args:
        optim: Settings of the schedule.
        step: Number of the step.
        total: Steps of the run.
        per_epoch: Steps of an epoch.
    """
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


def stale_epochs(history: Sequence[float], *, ties_are_stale: bool = False) -> int:
    """Count the epochs since the best score; higher is better.

    Args:
        history: Score of each epoch so far.
        ties_are_stale: Whether the best is the first of equal scores, not the last.
    """
    best = max(history, default=0.0)
    if ties_are_stale:
        return len(history) - 1 - history.index(best) if history else 0
    return next((age for age, score in enumerate(reversed(history)) if score >= best), 0)


def should_stop(history: Sequence[float], patience: int, earliest: int, *, ties_are_stale: bool = False) -> bool:
    """Tell whether to stop: no better score for ``patience`` epochs, past ``earliest``.

    Args:
        history: Score on validation of each epoch so far.
        patience: Epochs without a score as good as the best, or better than it where ``ties_are_stale``.
        earliest: Index of an epoch; training never stops before its end.
        ties_are_stale: As for ``stale_epochs``.
    """
    return len(history) - 1 > earliest and stale_epochs(history, ties_are_stale=ties_are_stale) >= patience
