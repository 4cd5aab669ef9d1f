"""What is said beside a score of items that the model has seen before."""

from collections.abc import Sequence
from typing import Literal

Kind = Literal["TRAINED ON", "TRANSDUCTIVE", "CALIBRATED ON"]
_DONE: dict[Kind, tuple[str, str]] = {
    "TRAINED ON": ("trained on", "Scores on them say nothing about other {noun}: evaluate on other {noun}."),
    "TRANSDUCTIVE": ("adapted to", "Say so beside the figures, or evaluate on other {noun}."),
    "CALIBRATED ON": (
        "what its epoch or thresholds were chosen on",
        "Say so beside the figures, or evaluate on other {noun}.",
    ),
}


def note_overlap(kind: Kind, shared: Sequence[str], total: int, noun: str) -> tuple[str, ...]:
    """Say how many items of a scored list the model has seen; nothing where there is none.

    Args:
        kind: What was done with them.
        shared: Names of those items.
        total: Items of the scored list.
        noun: What they are, in the plural.
    """
    if not shared:
        return ()
    done, remedy = _DONE[kind]
    told = f"{kind}: {len(shared)} of the {total} {noun} of data.eval_split are also {done} (first '{shared[0]}')."
    return (f"{told} {remedy.format(noun=noun)}",)
