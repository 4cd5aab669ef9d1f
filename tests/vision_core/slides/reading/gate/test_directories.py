from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile

from tests.vision_core.slides.tiffs import Kind, overwrite, pyramid, tissue, write_tiff
from vision_core.assets import aperio_slide
from vision_core.slides.reading.gate.directories import Directory, read_directories, tile_grid

SIZE = (250, 330)


def directories(path: Path) -> tuple[Directory, ...]:
    return read_directories(path)[0]


def test_read_directories__one_a_level_with_its_tiles(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE)), Kind(tile=(48, 80)))
    fine, coarse, coarsest = directories(path)
    assert (fine.size, coarse.size, coarsest.size) == ((330, 250), (165, 125), (83, 63))
    assert [each.is_reduced for each in (fine, coarse, coarsest)] == [False, True, True]
    grid = tile_grid(fine)
    assert grid is not None
    assert (grid.columns, grid.rows, grid.tile_width, grid.tile_height) == (7, 4, 48, 80)
    assert len(grid.offsets) == len(grid.counts) == 28


def test_read_directories__label_and_macro_are_in_strips() -> None:
    sizes = [each.size for each in directories(aperio_slide()) if not each.is_tiled]
    assert {(387, 463), (1280, 431)} <= set(sizes)


def test_read_directories__those_below_others(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.tif", tissue((128, 128))
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, photometric="rgb", subifds=1, tile=(64, 64))
        file.write(pixels[::2, ::2].copy(), photometric="rgb", tile=(64, 64))
    assert [(each.name, each.size, each.is_reduced) for each in directories(path)] == [
        ("directory 0", (128, 128), False),
        ("directory 0.0", (64, 64), True),
    ]


def test_directory__survives_json(tmp_path: Path) -> None:
    (fine, *_) = directories(write_tiff(tmp_path / "a.tif", pyramid(tissue(SIZE))))
    again = Directory.from_json(fine.to_json(), fine.offsets, fine.counts)
    assert again.to_json() == fine.to_json()
    assert again.tables == fine.tables and again.columns == fine.columns


@pytest.mark.parametrize("kind", ["lzw", "grey", "sixteen_bits", "jpeg2000"])
def test_tile_grid__none_of_what_is_no_jpeg_in_8_bit_colour(tmp_path: Path, kind: str) -> None:
    path, pixels = tmp_path / "a.tif", tissue((128, 128))
    if kind == "jpeg2000":
        write_tiff(path, [pixels], Kind(is_jpeg2000=True))
    else:
        values = {"lzw": pixels, "grey": pixels[..., 0].copy(), "sixteen_bits": pixels.astype(np.uint16)}[kind]
        compression = "jpeg" if kind == "grey" else "lzw"
        pyvips.Image.new_from_array(values).tiffsave(str(path), tile=True, compression=compression)
    assert tile_grid(directories(path)[0]) is None


@pytest.mark.parametrize("seed", range(30))
def test_read_directories__junk_is_no_crash(tmp_path: Path, seed: int) -> None:
    path = write_tiff(tmp_path / "a.tif", [tissue((64, 64))], Kind(tile=(32, 32)))
    generator, size = np.random.default_rng(seed), path.stat().st_size
    place = int.from_bytes(path.read_bytes()[4:8], "little") + int(generator.integers(0, 150))
    overwrite(path, min(place, size - 8), generator.bytes(8))
    for each in directories(path):
        grid = tile_grid(each)
        assert grid is None or len(grid.offsets) == grid.columns * grid.rows


def test_read_directories__none_of_what_is_no_tiff(tmp_path: Path) -> None:
    for content in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(100)):
        (tmp_path / "a.tif").write_bytes(content)
        assert directories(tmp_path / "a.tif") == ()
