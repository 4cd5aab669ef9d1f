"""Learning rates and other settings as plain functions of the step; there is no scheduler object to save."""

import math
from collections.abc import Sequence

from vision_core.settings import Optim

_WARMUP_START = 1e-3


def constant(step: int, total: int) -> float:
    """Always 1."""
    return 1.0


def cosine(step: int, total: int) -> float:
    """From 1 at step 0 to 0 at step ``total`` along half a cosine."""
    length = max(total, 1)
    return 0.5 * (1 + math.cos(math.pi * min(step, length) / length))


def warmup(step: int, steps: int) -> float:
    """From 0.001 at step 0 to 1 at ``steps``, linearly; 1 after that and where ``steps`` is 0."""
    if step >= steps:
        return 1.0
    return _WARMUP_START + (1 - _WARMUP_START) * step / steps


def warmup_cosine(step: int, total: int, warmup_steps: int) -> float:
    """Linear warm-up, then a cosine over the steps that are left."""
    return warmup(step, warmup_steps) * cosine(max(step - warmup_steps, 0), total - warmup_steps)


def warmup_multistep(step: int, warmup_steps: int, milestones: Sequence[int]) -> float:
    """Linear warm-up; divided by ten at every milestone that has been reached."""
    return warmup(step, warmup_steps) * 0.1 ** sum(step >= milestone for milestone in milestones)


def learning_rate(optim: Optim, step: int, total: int) -> float:
    """The learning rate of ``step`` (0-based) in a run of ``total`` steps."""
    match optim.schedule:
        case "constant":
            factor = constant(step, total)
        case "cosine":
            factor = cosine(step, total)
        case "warmup_cosine":
            factor = warmup_cosine(step, total, optim.warmup_steps)
        case "warmup_multistep":
            factor = warmup_multistep(step, optim.warmup_steps, optim.milestones)
    return optim.lr * factor
