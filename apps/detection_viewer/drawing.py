"""Kinds of boxes: what an adaptation changed, and whose boxes they are."""

from apps.boxes import Kind, Marks, marks_of
from vision_core.detection.analysis.changes import WORDS, find_changes
from vision_core.images.drawing import GREEN, GREY, ORANGE, SKY_BLUE
from vision_core.results import Detections

GAINED = Kind(name=WORDS["gained"], colour=SKY_BLUE)
LOST = Kind(name=WORDS["lost"], colour=ORANGE, dashes="7 5")
MOVED = Kind(name=WORDS["moved"], colour=GREEN, dashes="2 3")
SAME = Kind(name=WORDS["same"], colour=GREY)
SOURCE = Kind(name="source model", colour=ORANGE)
ADAPTED = Kind(name="adapted model", colour=SKY_BLUE)


def marks_of_changes(source: Detections, adapted: Detections) -> list[Marks]:
    """Mark what changed between two models; what did not, first, so that it lies below."""
    changes = find_changes(source, adapted)
    return [
        marks_of(adapted, SAME, changes.same),
        marks_of(source, LOST, changes.lost),
        marks_of(adapted, MOVED, changes.moved),
        marks_of(adapted, GAINED, changes.gained),
    ]
