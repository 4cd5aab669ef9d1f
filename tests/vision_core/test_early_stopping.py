"""Early stopping against the numbers of the specification (check C15)."""

from vision_core.early_stopping import should_stop, stale_epochs

HISTORY = (0.80, 0.85, 0.84, 0.85, 0.83, 0.82, 0.81)


def test_should_stop__patience_and_earliest_epoch() -> None:
    so_far = [HISTORY[: epoch + 1] for epoch in range(len(HISTORY))]
    assert [stale_epochs(scores) for scores in so_far] == [0, 0, 1, 0, 1, 2, 3]
    assert [should_stop(scores, patience=3, earliest=4) for scores in so_far] == [False] * 6 + [True]
    assert not should_stop(HISTORY, patience=3, earliest=6)


def test_stale_epochs__before_the_first() -> None:
    assert stale_epochs([]) == 0
