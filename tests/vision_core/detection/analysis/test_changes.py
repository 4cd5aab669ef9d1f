import numpy as np

from vision_core.detection.analysis.changes import find_changes
from vision_core.results import Detections

ONE = (10.0, 10.0, 30.0, 30.0)


def found(boxes: list[tuple[float, ...]], label: int = 0) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.full(len(boxes), 0.9, np.float32),
        labels=np.full(len(boxes), label, np.int64),
        classes=("tree", "bush"),
        image_size=(100, 80),
        model="sfod/mt/123",
    )


def test_find_changes__the_best_pair_first_and_one_partner_each() -> None:
    source = found([ONE, (12, 10, 32, 30), (60, 60, 80, 80)])
    adapted = found([(10, 10, 30, 31), (60, 60, 80, 74), (0, 50, 9, 59)])
    changes = find_changes(source, adapted)
    assert [each.tolist() for each in (changes.same, changes.moved, changes.gained, changes.lost)] == [
        [0],
        [1],
        [2],
        [1],
    ]


def test_find_changes__a_box_of_another_class_is_another_object() -> None:
    changes = find_changes(found([ONE]), found([ONE], label=1))
    assert (len(changes.gained), len(changes.lost), len(changes.same)) == (1, 1, 0)
    nothing = find_changes(found([]), found([]))
    assert all(len(getattr(nothing, name)) == 0 for name in ("gained", "lost", "moved", "same"))
