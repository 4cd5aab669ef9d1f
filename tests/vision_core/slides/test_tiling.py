from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vision_core.slides.painted import glass, stain, write_slide
from vision_core.assets import aperio_slide
from vision_core.errors import ConfigError, InputError
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.settings import TileSettings, TissueSettings
from vision_core.slides.tiling import Tiles, integral_image, tile_grid, tissue_shares
from vision_core.slides.tissue.overview import overview_grid
from vision_core.slides.tissue.regions import Region, regions_to_mask
from vision_core.slides.tissue.segmentation import Tissue, find_tissue


def rectangle(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1536 x 1024 pixels at half a micron, levels 1, 2, 4, 8, 16."""
    return write_slide(tmp_path_factory.mktemp("slides") / "a.tif", glass(1024, 1536), 0.5)


def laid(path: Path, *regions: Region, **settings: object) -> Tiles:
    with open_slide(path) as slide:
        return tile_grid(slide, Tissue(regions=regions), TileSettings(**settings))


WHOLE = Region(outline=rectangle(0, 0, 1536, 1024))


@pytest.mark.parametrize(
    ("tile_px", "mpp", "expected"),  # side, level, pixels to read
    [
        (256, 0.5, (256, 0, 256)),
        (128, 1.0, (256, 1, 128)),
        (64, 1.5, (192, 1, 96)),
        (128, 2.0, (512, 2, 128)),
        (100, 1.9, (380, 1, 190)),
        (16, 20.0, (640, 4, 40)),
        (256, 0.46, (236, 0, 236)),
    ],
)
def test_tile_grid__side_level_and_pixels_to_read(
    path: Path, tile_px: int, mpp: float, expected: tuple[int, int, int]
) -> None:
    tiles = laid(path, WHOLE, tile_px=tile_px, mpp=mpp)
    assert (tiles.side, tiles.level, tiles.read_px) == expected
    assert (tiles.tile_px, tiles.mpp) == (tile_px, mpp)


def test_tile_grid__half_a_pixel_is_no_reason_to_resize() -> None:
    with open_slide(aperio_slide()) as slide:  # 0.499 microns
        tiles = tile_grid(slide, Tissue(regions=(Region(outline=rectangle(0, 0, 2220, 2967)),)), TileSettings())
    assert (tiles.side, tiles.read_px, tiles.notes) == (256, 256, ())


def test_tile_grid__row_by_row_from_the_corner(path: Path) -> None:
    tiles = laid(path, WHOLE)
    expected = [[x, y] for y in range(0, 1024, 256) for x in range(0, 1536, 256)]
    assert tiles.corners.tolist() == expected and tiles.corners.dtype == np.int64


def test_tile_grid__overlap(path: Path) -> None:
    corners = laid(path, WHOLE, tile_px=128, mpp=1.0, overlap_px=32).corners
    assert np.unique(corners[:, 0]).tolist() == list(range(0, 1536 - 96, 192))  # the last has half its width inside
    with pytest.raises(ConfigError, match=r"tiles\.overlap_px: found 128, expected less than tiles\.tile_px, 128"):
        laid(path, WHOLE, tile_px=128, overlap_px=128)


def test_tile_grid__tiles_beyond_the_edge_need_tissue_too(path: Path) -> None:
    assert laid(path, WHOLE, tile_px=300, least_tissue=0.42).corners.tolist()[-1] == [1200, 600]
    kept = laid(path, WHOLE, tile_px=300, least_tissue=0.0).corners
    assert kept.max(axis=0).tolist() == [1500, 900]
    only = Region(outline=rectangle(0, 0, 1536, 1024))
    assert laid(path, only, tile_px=1400).corners.tolist() == [[0, 0]]


@pytest.mark.parametrize(("least", "count"), [(0.0, 6), (0.24, 4), (0.26, 2), (0.5, 2), (0.51, 1), (1.0, 1)])
def test_tile_grid__least_share_of_tissue(path: Path, least: float, count: int) -> None:
    # Of six tiles one is full, one half, two a quarter and two 1/16.
    shapes = [
        (0, 0, 256, 256),
        (256, 0, 384, 256),
        (512, 0, 640, 128),
        (768, 0, 896, 128),
        (1024, 0, 1088, 64),
        (1280, 0, 1344, 64),
    ]
    tiles = laid(path, *(Region(outline=rectangle(*shape)) for shape in shapes), least_tissue=least)
    assert len(tiles) == count


def test_tile_grid__holes_are_no_tissue(path: Path) -> None:
    holed = Region(outline=WHOLE.outline, holes=(rectangle(240, 240, 520, 520),))
    kept = {tuple(corner) for corner in laid(path, holed).corners.tolist()}
    assert {tuple(corner) for corner in laid(path, WHOLE).corners.tolist()} - kept == {(256, 256)}


@pytest.mark.parametrize("layout", ["mpp", "level0_512", "level0_256"])
def test_tile_grid__no_tissue(path: Path, layout: str) -> None:
    tiles = laid(path, layout=layout)
    assert tiles.corners.shape == (0, 2) and tiles.corners.dtype == np.int64 and tiles.side > 0


@pytest.mark.parametrize(
    ("mpp", "is_refused"), [(0.5, False), (0.49, False), (0.46, False), (0.45, True), (0.25, True)]
)
def test_tile_grid__finer_than_the_slide(path: Path, mpp: float, is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(InputError, match=rf"has 0\.5 microns per pixel, but tiles of {mpp} .* tiles\.mpp to 0\.5"):
            laid(path, WHOLE, mpp=mpp)
        return
    tiles = laid(path, WHOLE, mpp=mpp)
    assert tiles.read_px <= 256 and bool(tiles.notes) == (mpp < 0.5)


def test_tissue_shares__exact_to_the_mask() -> None:
    draws = np.random.default_rng(0)
    mask = draws.random((30, 40)) < 0.5
    pixel_size, side = (3.0, 2.0), 17
    xs, ys = np.arange(0, 120, 13.0), np.arange(0, 60, 11.0)
    fine = np.pad(mask.repeat(2, axis=0).repeat(3, axis=1), 20)[20:, 20:]  # pixels of level 0
    expected = [[fine[int(y) : int(y) + side, int(x) : int(x) + side].sum() / side**2 for x in xs] for y in ys]
    np.testing.assert_allclose(tissue_shares(integral_image(mask), pixel_size, (xs, ys), side), expected, atol=1e-12)


def test_tissue_shares__fractions_of_pixels() -> None:
    mask = np.array([[True, False], [False, True]])
    shares = tissue_shares(integral_image(mask), (10.0, 10.0), (np.array([2.5]), np.array([5.0])), 10)
    assert shares.item() == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)


def test_tile_grid__mpp_equals_counting_pixels_of_the_mask() -> None:
    with open_slide(aperio_slide()) as slide:
        tissue = find_tissue(slide, TissueSettings())
        for overlap_px, least in ((0, 0.5), (64, 0.9), (0, 0.01)):
            settings = TileSettings(tile_px=112, mpp=1.0, overlap_px=overlap_px, least_tissue=least)
            tiles = tile_grid(slide, tissue, settings)
            grid = overview_grid(slide)
            rows = np.minimum((np.arange(slide.size[0]) / grid.pixel_size[1]).astype(int), grid.shape[0] - 1)
            columns = np.minimum((np.arange(slide.size[1]) / grid.pixel_size[0]).astype(int), grid.shape[1] - 1)
            mask = regions_to_mask(tissue.regions, grid.shape, grid.pixel_size)[rows][:, columns]
            shares = {
                (x, y): mask[y : y + tiles.side, x : x + tiles.side].sum() / tiles.side**2
                for y in range(0, slide.size[0], tiles.side - 2 * overlap_px)
                for x in range(0, slide.size[1], tiles.side - 2 * overlap_px)
            }
            found = {tuple(corner) for corner in tiles.corners.tolist()}
            assert found >= {corner for corner, share in shares.items() if share > least + 0.01}
            assert found <= {corner for corner, share in shares.items() if share > least - 0.01}
            assert len(found) == len(tiles) > 0


def clam(region: Region, side: int) -> set[tuple[int, int]]:
    """The rule of CLAM, tile by tile."""
    outline = region.outline.astype(np.int32)[:, None]
    left, top, width, height = cv2.boundingRect(outline)
    kept = set()
    for y in range(top, top + height, side):
        for x in range(left, left + width, side):
            middle, shift = (x + side // 2, y + side // 2), side // 2 // 2
            points = [(middle[0] + a * shift, middle[1] + b * shift) for a in (-1, 1) for b in (-1, 1)]
            if not any(cv2.pointPolygonTest(outline, point, False) >= 0 for point in points):
                continue
            holes = [hole.astype(np.int32)[:, None] for hole in region.holes]
            if not any(cv2.pointPolygonTest(hole, middle, False) > 0 for hole in holes):
                kept.add((x, y))
    return kept


@pytest.mark.parametrize("side", [256, 512])
@pytest.mark.parametrize("seed", range(6))
def test_tile_grid__clam_layout_equals_the_rule_tile_by_tile(path: Path, side: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    regions = []
    for _ in range(3):
        middle = draws.integers(500, 20_000, 2)
        regions.append(
            Region(
                outline=star(draws, middle, 6000), holes=(star(draws, middle, 2500), star(draws, middle + 3000, 1500))
            )
        )
    tiles = laid(path, *regions, layout=f"level0_{side}")
    expected = set().union(*(clam(region, side) for region in regions))
    assert {tuple(corner) for corner in tiles.corners.tolist()} == expected
    assert len(tiles) == len(expected) > 50
    assert tiles.corners.tolist() == sorted(tiles.corners.tolist(), key=lambda corner: (corner[1], corner[0]))
    assert (tiles.side, tiles.tile_px, tiles.level, tiles.read_px, tiles.mpp) == (side, side, 0, side, 0.5)


def star(draws: np.random.Generator, middle: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    angles = np.sort(draws.uniform(0, 2 * np.pi, 30))
    radii = draws.uniform(0.3, 1, 30) * size
    ring = middle + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return np.maximum(np.rint(ring), 0)


def test_tile_grid__clam_layout_by_hand(path: Path) -> None:
    # From the corner (100, 50) of the region; the second column begins at its last pixel, beyond its four points.
    region = Region(outline=rectangle(100, 50, 612, 562))
    assert laid(path, region, layout="level0_512").corners.tolist() == [[100, 50]]
    assert laid(path, region, layout="level0_256").corners.tolist() == [[100, 50], [356, 50], [100, 306], [356, 306]]
    # One point on the edge is enough: 100 + 512 + 256 - 128 = 740.
    for right, count in ((739, 1), (740, 2)):
        region = Region(outline=rectangle(100, 50, right, 562))
        assert len(laid(path, region, layout="level0_512")) == count
    # The centre on the edge of a hole is not inside it.
    for left, count in ((356, 1), (355, 0)):
        region = Region(outline=rectangle(100, 50, 612, 562), holes=(rectangle(left, 200, 500, 400),))
        assert len(laid(path, region, layout="level0_512")) == count


def test_tile_grid__clam_layout_runs_past_the_edge_of_the_slide(path: Path) -> None:
    tiles = laid(path, Region(outline=rectangle(1400, 800, 1536, 1024)), layout="level0_512")
    assert tiles.corners.tolist() == [[1400, 800]]
    with open_slide(path) as slide:
        assert slide.read(0, 1400, 800, 512, 512)[224:, 136:].min() == 255


def test_tile_grid__a_tile_of_two_regions_is_there_once(path: Path) -> None:
    region = Region(outline=rectangle(0, 0, 1000, 1000))
    assert len(laid(path, region, region, layout="level0_256")) == len(laid(path, region, layout="level0_256"))


def test_tile_grid__hundred_thousand_tiles(tmp_path: Path) -> None:
    picture = stain(glass(1600, 1600), [(100, 100, 1500, 1500)])
    with open_slide(write_slide(tmp_path / "a.tif", picture, 8.0)) as slide:
        tiles = tile_grid(slide, find_tissue(slide, TissueSettings()), TileSettings(tile_px=16, mpp=8.0, overlap_px=12))
    assert len(tiles) == pytest.approx((1400 / 4) ** 2, rel=0.03)
