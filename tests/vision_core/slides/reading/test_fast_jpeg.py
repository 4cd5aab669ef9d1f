import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import pyvips
from numpy.typing import NDArray

from tests.vision_core.slides.caches import held_bytes
from tests.vision_core.slides.tiffs import APERIO, Kind, overwrite, pyramid, tile_place, tissue, write_tiff
from vision_core.assets import aperio_slide
from vision_core.slides.reading.gate.inspection import inspect_slide
from vision_core.slides.reading.jpeg_tiles import TileGrid
from vision_core.slides.reading.slide import Slide, TileError, open_slide
from vision_core.slides.settings import ReadSettings

Damage = Callable[[Path, int, int], None]
SIZE = (250, 330)
SLOW = ReadSettings(fast=False)
KINDS = {
    "ycbcr_420": Kind(),
    "ycbcr_422": Kind(subsampling="422"),
    "ycbcr_444": Kind(subsampling="444"),
    "ycbcr_440": Kind(subsampling="440"),
    "rgb": Kind(is_rgb=True),
    "tables_in_tiles": Kind(has_tables=False),
    "oblong_tiles": Kind(tile=(48, 80)),
    "aperio": Kind(is_rgb=True, description=APERIO),
    "missing_tile": Kind(missing=frozenset({8})),
    "aperio_missing_tile": Kind(missing=frozenset({8}), description=APERIO),
}


def both(path: Path) -> tuple[Slide, Slide]:
    return open_slide(path), open_slide(path, SLOW)


def tiles(slide: Slide, level: int, side: tuple[int, int], shift: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Corners in pixels of level 0 of all tiles of a level, those over its edges included."""
    each = slide.levels[level]
    for y in range(-side[1], each.height + side[1], side[1]):
        for x in range(-side[0], each.width + side[0], side[0]):
            yield round((x + shift[0]) * each.downsample), round((y + shift[1]) * each.downsample)


def assert_same(path: Path, side: tuple[int, int], shift: tuple[int, int]) -> None:
    fast, slow = both(path)
    assert fast.is_fast and not slow.is_fast
    for level in range(len(fast.levels)):
        for x, y in tiles(fast, level, side, shift):
            found, known = (slide.read(level, x, y, *side) for slide in (fast, slow))
            np.testing.assert_array_equal(found, known, err_msg=f"level {level}, x {x}, y {y}")
    fast.close()
    slow.close()


@pytest.mark.parametrize("shift", [(0, 0), (21, 13)])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_read__every_tile_of_every_level_equals_openslide(tmp_path: Path, kind: Kind, shift: tuple[int, int]) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)), kind)
    assert_same(path, kind.tile, shift)


@pytest.mark.parametrize("side", [(1, 1), (33, 129), (400, 300)])
def test_read__regions_of_any_size_equal_openslide(tmp_path: Path, side: tuple[int, int]) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)))
    fast, slow = both(path)
    for level, (x, y) in [(0, (0, 0)), (0, (-7, 31)), (0, (63, 64)), (1, (10, 20)), (2, (60, 8)), (2, (61, 9))]:
        np.testing.assert_array_equal(fast.read(level, x, y, *side), slow.read(level, x, y, *side))


@pytest.mark.parametrize("size", [(251, 333), (640, 1021)])
@pytest.mark.parametrize("name", ["ycbcr_420", "rgb", "oblong_tiles"])
def test_read__between_pixels_of_a_level_equals_openslide(tmp_path: Path, size: tuple[int, int], name: str) -> None:
    """Downsamples of these pyramids are not whole, so that nearly all places lie between pixels."""
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(size), (1, 3, 7)), KINDS[name])
    fast, slow = both(path)
    assert fast._fast is not None and not any(level.downsample.is_integer() for level in fast.levels[1:])
    generator = np.random.default_rng(0)
    for level in (0, 1, 2) * 40:
        corner = (int(generator.integers(-60, size[1] + 20)), int(generator.integers(-60, size[0] + 20)))
        side = (int(generator.integers(1, 200)), int(generator.integers(1, 200)))
        found, known = fast._fast.read(level, corner, side), slow.read(level, *corner, *side)
        assert found is not None
        np.testing.assert_array_equal(found, known, err_msg=f"level {level}, {corner}, {side}")


def test_read__regions_that_openslide_reads_in_parts(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue((60, 8600)), (1, 2)), Kind(tile=(256, 64)))
    fast, slow = both(path)
    for level, x, y, width in [(0, 3, 5, 8590), (1, 0, 0, 4300), (1, 3, 1, 4290), (1, -3, -1, 4290)]:
        np.testing.assert_array_equal(fast.read(level, x, y, width, 30), slow.read(level, x, y, width, 30))


@pytest.mark.parametrize("shift", [(0, 0), (100, 76)])
def test_read__real_aperio_equals_openslide(shift: tuple[int, int]) -> None:
    assert_same(aperio_slide(), (240, 240), shift)


@pytest.mark.parametrize("quality", [80, 95])
@pytest.mark.parametrize("size", [(300, 420), (301, 423)])
def test_read__pyvips_pyramid_equals_openslide(tmp_path: Path, quality: int, size: tuple[int, int]) -> None:
    path = tmp_path / "a.tif"
    options = {"tile": True, "tile_width": 64, "tile_height": 64, "pyramid": True, "xres": 2000.0, "yres": 2000.0}
    pyvips.Image.new_from_array(tissue(size)).tiffsave(str(path), compression="jpeg", Q=quality, **options)
    assert_same(path, (64, 64), (0, 0))
    assert_same(path, (50, 50), (7, 5))


def test_read__opaque_pixels_are_those_of_openslides_own_interface(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)))
    with open_slide(path) as slide, openslide.OpenSlide(path) as known:
        for level, x, y in [(0, 64, 64), (0, 300, 200), (1, 40, 60), (2, 64, 128)]:
            region = np.asarray(known.read_region((x, y), level, (64, 64)))
            is_opaque = region[..., 3] == 255
            assert is_opaque.any()
            np.testing.assert_array_equal(slide.read(level, x, y, 64, 64)[is_opaque], region[is_opaque][:, :3])


def test_read__outside_is_white(tmp_path: Path) -> None:
    with open_slide(write_tiff(tmp_path / "a.tif", [tissue(SIZE)])) as slide:
        assert slide.read(0, 5000, 0, 8, 9).tolist() == np.full((9, 8, 3), 255).tolist()
        corner = slide.read(0, -3, -2, 10, 10)
        assert (corner[:2] == 255).all() and (corner[:, :3] == 255).all()
        np.testing.assert_array_equal(corner[2:, 3:], slide.read(0, 0, 0, 7, 8))


def test_read__a_tile_returned_is_the_callers_own(tmp_path: Path) -> None:
    with open_slide(write_tiff(tmp_path / "a.tif", [tissue(SIZE)])) as slide:
        for corner in (64, 70):
            first = slide.read(0, corner, corner, 64, 64)
            kept = first.copy()
            first[:] = 0
            np.testing.assert_array_equal(slide.read(0, corner, corner, 64, 64), kept)


def test_read__threads_give_the_same_pixels(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)))
    fast, slow = both(path)
    corners = [(x, y) for y in range(-20, 250, 50) for x in range(-20, 330, 50)] * 4
    with ThreadPoolExecutor(4) as threads:
        for slide in (fast, slow):
            found = list(threads.map(lambda at, slide=slide: slide.read(0, *at, 64, 64).sum(), corners))
            assert found == [int(slow.read(0, *at, 64, 64).sum()) for at in corners]


def zeroed(path: Path, offset: int, count: int) -> None:
    overwrite(path, offset, bytes(count))


def half_zeroed(path: Path, offset: int, count: int) -> None:
    overwrite(path, offset + count // 2, bytes(count - count // 2))


def zeroed_inside(path: Path, offset: int, count: int) -> None:
    overwrite(path, offset + count // 2, bytes(min(64, count // 4)))


def cut_short(path: Path, offset: int, count: int) -> None:
    overwrite(path, offset + count // 3, b"\xff\xd9" + bytes(count - count // 3 - 2))


def other_bytes(path: Path, offset: int, count: int) -> None:
    overwrite(path, offset + count // 2, np.random.default_rng(0).bytes(count // 2))


DAMAGES = [zeroed, half_zeroed, zeroed_inside, cut_short, other_bytes]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["ycbcr_420", "rgb", "aperio", "tables_in_tiles"])
def test_read__damaged_tile_is_an_error_and_its_neighbours_are_not(tmp_path: Path, name: str, damage: Damage) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)), KINDS[name])
    with open_slide(path) as slide:
        known = slide.read(0, 0, 0, 128, 64)
    damage(path, *tile_place(path, 8))  # column 2 of row 1, of 6 columns
    with open_slide(path) as slide:
        assert slide.is_fast
        for corner in ((128, 64), (100, 30), (140, 90)):
            with pytest.raises(TileError, match=r"a\.tif': level 0 cannot be read at x 128, y 64: "):
                slide.read(0, *corner, 64, 64)
        np.testing.assert_array_equal(slide.read(0, 0, 0, 128, 64), known)


@pytest.mark.parametrize("damage", [zeroed, half_zeroed], ids=lambda damage: damage.__name__)
def test_read__damaged_tile_of_a_coarser_level_names_its_place_in_level_0(tmp_path: Path, damage: Damage) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)))
    damage(path, *tile_place(path, 4, level=1))  # column 1 of row 1, of 3 columns
    with open_slide(path) as slide, pytest.raises(TileError, match="level 1 cannot be read at x 128, y 128: "):
        slide.read(1, 140, 150, 20, 20)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_read__damaged_tile_of_the_real_aperio_slide(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(aperio_slide().read_bytes())
    damage(path, *tile_place(path, 23))  # column 3 of row 2, of 10 columns
    with open_slide(path) as slide:
        for corner in ((720, 480), (650, 410)):
            with pytest.raises(TileError, match=r"level 0 cannot be read at x 720, y 480"):
                slide.read(0, *corner, 240, 240)
        assert slide.read(0, 0, 0, 240, 240).std() > 0


def test_read__damaged_tile_is_an_error_in_all_threads_that_wait(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [tissue(SIZE)])
    zeroed(path, *tile_place(path, 8))
    start = threading.Barrier(4)

    def attempt(slide: Slide) -> str:
        start.wait()
        try:
            slide.read(0, 100, 60, 64, 64)
        except TileError as error:
            return str(error)
        return ""

    with open_slide(path) as slide, ThreadPoolExecutor(4) as threads:
        assert all("x 128, y 64" in text for text in threads.map(attempt, [slide] * 4))


def test_read__a_tile_past_the_end_of_the_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)))
    offset, _ = tile_place(path, 8)
    data = path.read_bytes()
    path.write_bytes(data.replace(offset.to_bytes(4, "little"), (len(data) + 10_000).to_bytes(4, "little")))
    with open_slide(path) as slide, pytest.raises(TileError, match="the file ends after 0 of"):
        slide.read(0, 128, 64, 64, 64)


def test_read__a_tile_of_another_size_is_damage(tmp_path: Path) -> None:
    small = write_tiff(tmp_path / "b.tif", [tissue((32, 32))], Kind(tile=(32, 32), has_tables=False))
    offset, count = tile_place(small, 0)
    stream = small.read_bytes()[offset : offset + count]
    path = write_tiff(tmp_path / "a.tif", [tissue(SIZE)], Kind(has_tables=False))
    offset, room = tile_place(path, 8)
    assert count <= room
    overwrite(path, offset, stream)
    with open_slide(path) as slide, pytest.raises(TileError, match="x 128, y 64: it has 32 x 32 pixels"):
        slide.read(0, 128, 64, 64, 64)


def test_open__even_tiles_with_tables_made_for_them_are_no_zeroed_ones(tmp_path: Path) -> None:
    """An optimised table gives an even area the shortest code, which may be zeros."""
    path = tmp_path / "a.tif"
    pixels = np.full((512, 512, 3), 200, np.uint8)
    pixels[:64, :64] = tissue((64, 64))
    write_tiff(path, [pixels], Kind(tile=(256, 256), has_tables=False, is_optimised=True))
    assert bytes(32) in path.read_bytes()
    assert_same(path, (256, 256), (0, 0))


def test_open__tiles_that_are_not_as_openslide_sees_them_are_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)))
    assert len(inspect_slide(path, is_fast=True, stated={})[1]["directories"]) == 3
    monkeypatch.setattr(
        "vision_core.slides.reading.gate.directories.tile_header",
        lambda tables, is_rgb: b"\xff\xd8" + tables[2:-2] + _WRONG,
    )
    assert not inspect_slide(path, is_fast=True, stated={})[1]["directories"]


_WRONG = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # says RGB of YCbCr


@pytest.mark.parametrize("kind", [Kind(is_jpeg2000=True, description=APERIO), None], ids=["jpeg2000", "deflate"])
def test_open__other_compressions_are_left_to_openslide(tmp_path: Path, kind: Kind | None) -> None:
    path, pixels = tmp_path / "a.svs", tissue((128, 128))
    if kind:
        write_tiff(path, [pixels], kind)
    else:
        options = {"tile": True, "tile_width": 64, "tile_height": 64, "xres": 2000.0, "yres": 2000.0}
        pyvips.Image.new_from_array(pixels).tiffsave(str(path), compression="deflate", **options)
    with open_slide(path) as slide:
        assert not slide.is_fast
        difference = np.abs(slide.read(0, 0, 0, 128, 128).astype(int) - pixels)
        assert difference.mean() < (8 if kind else 1e-9)


def test_read__cache_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 40 * 64 * 64 * 3
    monkeypatch.setattr("vision_core.slides.reading.fast_jpeg._CACHE_BYTES", limit)
    path = write_tiff(tmp_path / "a.tif", [tissue((1000, 1000))])
    fast, slow = both(path)
    for x, y in tiles(fast, 0, (64, 64), (21, 13)):
        np.testing.assert_array_equal(fast.read(0, x, y, 64, 64), slow.read(0, x, y, 64, 64))
        assert fast._fast is not None and held_bytes(fast._fast._cache) <= limit


@pytest.mark.parametrize(("sequential", "room"), [(False, 22), (True, 12)])
def test_read__off_grid_decodes_each_tile_once(
    sequential: bool, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two rows of tiles; for one, where regions share no pixels."""
    monkeypatch.setattr("vision_core.slides.reading.fast_jpeg._KEPT_RELEASED_TILES", 0)
    monkeypatch.setattr("vision_core.slides.reading.fast_jpeg._CACHE_BYTES", room * 64 * 64 * 3)
    path = write_tiff(tmp_path / "a.tif", [tissue((640, 640))])
    with open_slide(path) as slide:
        decode, decoded = TileGrid.decode, list[tuple[int, int]]()

        def counting(grid: TileGrid, file: int, column: int, row: int) -> NDArray[np.uint8]:
            decoded.append((column, row))
            return decode(grid, file, column, row)

        monkeypatch.setattr(TileGrid, "decode", counting)
        for x, y in tiles(slide, 0, (64, 64), (21, 13)):
            slide.read(0, x, y, 64, 64, sequential=sequential)
    assert sorted(decoded) == [(x, y) for x in range(10) for y in range(10)]


def test_read__a_disk_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of a disk cannot be had here: it is injected at the call that would raise it."""

    def fail(file: int, count: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with open_slide(write_tiff(tmp_path / "a.tif", [tissue(SIZE)])) as slide:
        with monkeypatch.context() as patched:
            patched.setattr("vision_core.slides.reading.jpeg_tiles.os.pread", fail)
            for corner in (64, 70):
                with pytest.raises(OSError, match="Input/output error"):
                    slide.read(0, corner, 64, 64, 64)
        assert slide.read(0, 70, 64, 64, 64).any()


def test_close__a_read_afterwards_says_so(tmp_path: Path) -> None:
    slide = open_slide(write_tiff(tmp_path / "a.tif", [tissue(SIZE)]))
    slide.close()
    slide.close()
    with pytest.raises(ValueError, match="is closed"):
        slide.read(0, 0, 0, 64, 64)
