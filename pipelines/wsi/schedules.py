"""Settings that move with the step."""

from pipelines.wsi.config import FollowingTeacher, Masking
from vision_core.training import schedules


def cosine_between(start: float, end: float, step: int, total: int) -> float:
    """From ``start`` at step 0 to ``end`` at step ``total`` along half a cosine."""
    return end + (start - end) * schedules.cosine(step, total)


def high_share(masking: Masking, step: int, total: int) -> float:
    """Share of the highest scores to mask at ``step`` (0-based) of ``total``.

    ``total`` counts the steps of the largest number of epochs, also where early stopping ends the run before.
    """
    return cosine_between(masking.high, 0.0, step, total) if masking.high_schedule == "cosine" else masking.high


def keep_rate(teacher: FollowingTeacher, step: int, total: int) -> float:
    """Share of itself that the teacher keeps after ``step`` (0-based) of ``total``."""
    if teacher.schedule == "constant":
        return teacher.keep_rate
    return cosine_between(teacher.keep_rate, 1.0, step, total)
