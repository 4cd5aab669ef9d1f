from pathlib import Path

import numpy as np
import pytest
import pyvips

from tests.vision_core.slides.tiffs import Kind, overwrite, pyramid, tissue, write_tiff
from vision_core.assets import aperio_slide
from vision_core.slides.reading.source import Level
from vision_core.slides.reading.tiff_directories import FileDescriptor, read_first_page, read_tile_grids

SIZE = (250, 330)
LEVELS = [Level(width=330, height=250, downsample=1.0), Level(width=165, height=125, downsample=2.0)]


def test_read_tile_grids__one_a_level_in_the_order_of_levels(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)), Kind(tile=(48, 80)))
    coarse, fine = read_tile_grids(path, LEVELS[::-1])
    assert fine is not None and coarse is not None
    assert (fine.columns, fine.rows, fine.tile_width, fine.tile_height) == (7, 4, 48, 80)
    assert (coarse.columns, coarse.rows) == (4, 2)
    assert len(fine.offsets) == len(fine.counts) == 28


def test_read_tile_grids__a_level_without_a_directory_of_its_size(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [tissue(SIZE)])
    assert [grid is None for grid in read_tile_grids(path, LEVELS)] == [False, True]


def test_read_tile_grids__two_directories_of_one_size_are_not_guessed_between(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [tissue(SIZE), tissue(SIZE, seed=1)])
    assert read_tile_grids(path, LEVELS[:1]) == (None,)


def test_read_tile_grids__label_and_macro_of_the_same_size_are_in_strips_and_not_taken() -> None:
    levels = [Level(width=387, height=463, downsample=1.0), Level(width=1280, height=431, downsample=1.0)]
    assert read_tile_grids(aperio_slide(), levels) == (None, None)


@pytest.mark.parametrize("kind", ["lzw", "grey", "sixteen_bits", "jpeg2000"])
def test_read_tile_grids__what_is_no_jpeg_in_8_bit_colour_is_not_taken(tmp_path: Path, kind: str) -> None:
    path, pixels = tmp_path / "a.tif", tissue((128, 128))
    if kind == "jpeg2000":
        write_tiff(path, [pixels], Kind(is_jpeg2000=True))
    else:
        values = {"lzw": pixels, "grey": pixels[..., 0].copy(), "sixteen_bits": pixels.astype(np.uint16)}[kind]
        compression = "jpeg" if kind == "grey" else "lzw"
        pyvips.Image.new_from_array(values).tiffsave(str(path), tile=True, compression=compression)
    assert read_tile_grids(path, [Level(width=128, height=128, downsample=1.0)]) == (None,)


@pytest.mark.parametrize("seed", range(30))
def test_read_tile_grids__junk_in_directories_is_no_crash(tmp_path: Path, seed: int) -> None:
    path = write_tiff(tmp_path / "a.tif", [tissue((64, 64))], Kind(tile=(32, 32)))
    generator, size = np.random.default_rng(seed), path.stat().st_size
    place = int.from_bytes(path.read_bytes()[4:8], "little") + int(generator.integers(0, 150))
    overwrite(path, min(place, size - 8), generator.bytes(8))
    (grid,) = read_tile_grids(path, [Level(width=64, height=64, downsample=1.0)])
    assert grid is None or len(grid.offsets) == grid.columns * grid.rows


def test_read_first_page__none_of_what_is_no_tiff(tmp_path: Path) -> None:
    for content in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(100)):
        (tmp_path / "a.tif").write_bytes(content)
        assert read_first_page(tmp_path / "a.tif") is None


def test_open_file__is_closed_with_its_last_reader(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    file = FileDescriptor(tmp_path / "a")
    link = Path(f"/proc/self/fd/{file.fd}")
    assert link.exists()
    del file
    assert not link.exists() or str(link.readlink()) != str(tmp_path / "a")
