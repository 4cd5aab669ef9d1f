"""Kinds of boxes: one for each word."""

from collections.abc import Sequence

import numpy as np

from apps.boxes import PURPLE, VERMILION, YELLOW, Kind, Marks, marks_of
from vision_core.images.drawing import GREEN, ORANGE, SKY_BLUE
from vision_core.results import Detections

_COLOURS = (SKY_BLUE, ORANGE, GREEN, YELLOW, VERMILION, PURPLE)
_DASHES = ("", "7 5", "2 3")  # of further words, whose colours come again


def kinds_of(words: Sequence[str]) -> list[Kind]:
    """Choose colour and dashes of each word."""
    count = len(_COLOURS)
    return [
        Kind(name=word, colour=_COLOURS[place % count], dashes=_DASHES[place // count % len(_DASHES)])
        for place, word in enumerate(words)
    ]


def marks_of_words(found: Detections) -> list[Marks]:
    """Mark the boxes of each word."""
    return [
        marks_of(found, kind, np.flatnonzero(found.labels == label))
        for label, kind in enumerate(kinds_of(found.classes))
    ]
