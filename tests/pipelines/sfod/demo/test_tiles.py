import numpy as np
import pytest

from pipelines.sfod.demo.tiles import Window, halves, objects_in, overlapping, partition

AREA = Window(left=10, top=20, right=1259, bottom=537)


def _coverage(windows: list[Window], area: Window) -> np.ndarray:
    counts = np.zeros((area.bottom + 9, area.right + 9), int)
    for window in windows:
        counts[window.top : window.bottom, window.left : window.right] += 1
    return counts


@pytest.mark.parametrize("area", [AREA, Window(left=0, top=0, right=100, bottom=60)])
def test_partition__every_pixel_once_and_nothing_outside(area: Window) -> None:
    counts = _coverage(partition(area, 256), area)
    assert (area.crop(counts[..., None].astype(np.uint8)) == 1).all()
    assert counts.sum() == area.width * area.height


def test_partition__tiles_are_as_near_to_the_wanted_size_as_they_can_be() -> None:
    sizes = {(window.width, window.height) for window in partition(AREA, 256)}
    assert sizes == {(249, 258), (250, 258), (249, 259), (250, 259)}


def test_overlapping__covers_everything_half_a_tile_apart_at_most() -> None:
    windows = overlapping(AREA, 256)
    counts = _coverage(windows, AREA)
    assert (AREA.crop(counts[..., None].astype(np.uint8)) >= 1).all()
    assert counts.sum() == len(windows) * 256 * 256
    lefts = sorted({window.left for window in windows})
    assert (lefts[0], lefts[-1]) == (10, 1259 - 256)
    assert max(np.diff(lefts)) <= 128


def test_overlapping__short_edge_is_used_whole() -> None:
    windows = overlapping(Window(left=0, top=0, right=400, bottom=200), 256)
    assert {(window.width, window.height) for window in windows} == {(256, 200)}


def test_halves__meet_without_sharing_a_row() -> None:
    upper, lower = halves(AREA)
    assert (upper.top, upper.bottom, lower.top, lower.bottom) == (20, 278, 278, 537)


def test_objects_in__own_boxes_are_moved_and_cut_and_pieces_told_apart() -> None:
    window = Window(left=100, top=0, right=200, bottom=100)
    boxes = np.array(
        [
            [110, 10, 130, 30],  # inside
            [90, 50, 120, 80],  # centre inside, cut on the left
            [180, 50, 230, 80],  # centre outside: a piece
            [197, 50, 240, 80],  # a piece of three pixels
            [300, 300, 310, 310],  # elsewhere
        ],
        dtype=np.float64,
    )
    found, is_piece = objects_in(window, boxes)
    np.testing.assert_array_equal(found, [[10, 10, 30, 30], [0, 50, 20, 80], [80, 50, 100, 80]])
    assert is_piece.tolist() == [False, False, True]


def test_objects_in__a_partition_owns_every_box_once() -> None:
    corners = np.random.default_rng(0).integers(0, 400, (500, 2))
    boxes = np.concatenate([corners, corners + 40], axis=1).astype(np.float64)
    windows = partition(Window(left=0, top=0, right=440, bottom=440), 100)
    owned = sum(int((~objects_in(window, boxes)[1]).sum()) for window in windows)
    assert owned == 500
