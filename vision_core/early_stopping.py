"""When a run has stopped getting better."""

from collections.abc import Sequence


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
