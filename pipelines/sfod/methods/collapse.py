"""Notice when a teacher talks itself into nothing, or into one class, without looking at labels."""

from torch import Tensor

FEWER_BY = 10


def describe_collapse(first: Tensor, now: Tensor) -> str:
    """What has collapsed since the first epoch, in words; empty when nothing has.

    Args:
        first: ``(classes,)`` pseudo labels of the first epoch, by class.
        now: ``(classes,)`` those of the epoch just over, on the same images.
    """
    before, after = int(first.sum()), int(now.sum())
    if before and after * FEWER_BY <= before:
        return f"pseudo labels fell from {before} in the first epoch to {after}"
    had, has = int((first > 0).sum()), int((now > 0).sum())
    if had > 1 and has == 1 and int(first.max()) < before * (1 - 1 / FEWER_BY):
        return f"all {after} pseudo labels are of one class, of {had} in the first epoch"
    return ""
