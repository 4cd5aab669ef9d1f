import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vision_core.slides.tissue.regions import (
    Region,
    join_diagonal_pixels,
    locate_in_polygon,
    mask_to_regions,
    regions_to_mask,
)

PIXELS = [(1.0, 1.0), (16.0, 16.0), (15.97, 16.04)]
SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)


def random_mask(seed: int) -> NDArray[np.bool_]:
    draws = np.random.default_rng(seed)
    return join_diagonal_pixels(draws.random(draws.integers(1, 40, 2)) < draws.random())


@pytest.mark.parametrize("pixel_size", PIXELS)
def test_mask_to_regions__draw_mask_gives_the_mask_back(pixel_size: tuple[float, float]) -> None:
    for seed in range(60):
        mask = random_mask(seed)
        np.testing.assert_array_equal(regions_to_mask(mask_to_regions(mask, pixel_size), mask.shape, pixel_size), mask)


def test_mask_to_regions__rings_run_along_the_edges_of_pixels() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1:5, 2:6] = True
    mask[2, 3:5] = False
    (region,) = mask_to_regions(mask, (10.0, 100.0))
    assert sorted(map(tuple, region.outline.tolist())) == [(20, 100), (20, 500), (60, 100), (60, 500)]
    (hole,) = region.holes
    assert sorted(map(tuple, hole.tolist())) == [(30, 200), (30, 300), (50, 200), (50, 300)]


def test_mask_to_regions__area_of_rings_is_the_area_of_the_mask() -> None:
    for seed in range(30):
        mask = random_mask(seed)
        regions = mask_to_regions(mask, (1.0, 1.0))
        area = sum(_area(region.outline) - sum(map(_area, region.holes)) for region in regions)
        assert area == pytest.approx(mask.sum())


def test_mask_to_regions__no_point_twice_so_that_polygons_are_valid() -> None:
    for seed in range(30):
        regions = mask_to_regions(random_mask(seed), (1.0, 1.0))
        points = [point for region in regions for ring in (region.outline, *region.holes) for point in ring.tolist()]
        assert len({tuple(point) for point in points}) == len(points)


def test_mask_to_regions__full_and_empty() -> None:
    (region,) = mask_to_regions(np.ones((3, 4), bool), (2.0, 2.0))
    assert len(region.outline) == 4 and region.outline.max(axis=0).tolist() == [8, 6]
    assert mask_to_regions(np.zeros((3, 4), bool), (2.0, 2.0)) == ()


def test_join_diagonal_pixels__only_adds_and_leaves_no_corner() -> None:
    for seed in range(40):
        mask = np.random.default_rng(seed).random((30, 30)) < 0.5
        joined = join_diagonal_pixels(mask)
        assert (joined | mask == joined).all()
        a, b, c, d = joined[:-1, :-1], joined[:-1, 1:], joined[1:, :-1], joined[1:, 1:]
        assert not ((a == d) & (b == c) & (a != b)).any()


@pytest.mark.parametrize("seed", range(20))
def test_locate_in_polygon__equals_opencv_point_by_point(seed: int) -> None:
    draws = np.random.default_rng(seed)
    ring = draws.integers(0, 30, (draws.integers(3, 30), 2))
    xs, ys = np.arange(-1, 31, 0.5), np.arange(-1, 31, 0.5)
    contour = ring.astype(np.int32)[:, None]
    expected = [[np.sign(cv2.pointPolygonTest(contour, (float(x), float(y)), False)) for x in xs] for y in ys]
    np.testing.assert_array_equal(locate_in_polygon(ring.astype(float), xs, ys), expected)


def test_locate_in_polygon__corner_edge_inside_outside() -> None:
    found = locate_in_polygon(SQUARE, np.array([-1.0, 0, 5, 10, 11]), np.array([-1.0, 0, 5, 10, 11]))
    assert found.tolist() == [[-1] * 5, [-1, 0, 0, 0, -1], [-1, 0, 1, 0, -1], [-1, 0, 0, 0, -1], [-1] * 5]


def test_regions_to_mask__overlapping_regions_are_joined_and_parts_beyond_are_cut() -> None:
    regions = [Region(outline=SQUARE), Region(outline=SQUARE + 5), Region(outline=SQUARE - 100)]
    mask = regions_to_mask(regions, (12, 12), (1.0, 1.0))
    expected = np.zeros((12, 12), bool)
    expected[:10, :10] = expected[5:, 5:] = True
    np.testing.assert_array_equal(mask, expected)


def test_regions_to_mask__hole_that_reaches_out_of_its_region() -> None:
    mask = regions_to_mask([Region(outline=SQUARE, holes=(SQUARE + 5, SQUARE + 50))], (12, 12), (1.0, 1.0))
    assert mask.sum() == 100 - 25 and not mask[5:, 5:].any()


def _area(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
