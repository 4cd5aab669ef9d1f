"""Curves of a run: where their points lie, how they are smoothed, what they are called."""

import pytest

from vision_core.runs.curves import layout_curve, name_of


def test_layout_curve__corners_of_the_box() -> None:
    curve = layout_curve("loss", [(10, 4.0), (20, 2.0), (30, 3.0)], {})
    assert curve.points == "0.0,5.0 150.0,105.0 300.0,55.0"
    assert curve.words == "loss: 4 at step 10, 3 at step 30, between 2 and 4"
    memory = layout_curve("peak_memory_mib", [(1, 1110.4), (2, 1212.6)], {})
    assert (memory.low, memory.high) == ("1,110", "1,213")
    assert "1,110 at step 1" in memory.words


def test_layout_curve__one_point_and_long_curves() -> None:
    assert layout_curve("lr", [(5, 0.1)], {}).points == "0.0,105.0"
    long = layout_curve("loss", [(float(step), float(step)) for step in range(3000)], {})
    assert len(long.points.split()) == 300
    assert long.low == "4.5"  # the mean of the first bin, 0 to 9


def test_layout_curve__a_long_one_is_smoothed_a_short_one_is_not() -> None:
    assert layout_curve("loss", [(0, 1.0), (1, 2.0)], {}).smooth == ""
    jagged = layout_curve("loss", [(float(step), float(step % 2)) for step in range(40)], {})
    heights = [float(point.partition(",")[2]) for point in jagged.smooth.split()]
    assert len(heights) == 40
    assert all(abs(height - 55) < 15 for height in heights[2:-2])  # the middle of the box, which the values never are
    assert heights[0] == 105  # an end has no neighbours to be averaged with
    flat = layout_curve("lr", [(float(step), 0.1) for step in range(40)], {})
    assert flat.smooth == ""


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("loss_distance", "Loss: how far apart"),
        ("boxes", "Boxes an image"),
        ("step_seconds", "Seconds a step"),
        ("lr", "Learning rate"),
        ("lr_policy", "Learning rate of policy"),
        ("eval/voc07_ap50", "Score between epochs: voc07_ap50"),
        ("loss_of_another_task", "Loss: of another task"),
        ("entropy", "entropy"),
    ],
)
def test_name_of__a_metric_is_named_for_people(metric: str, name: str) -> None:
    assert name_of(metric, {"loss_distance": "Loss: how far apart", "boxes": "Boxes an image"}) == name
