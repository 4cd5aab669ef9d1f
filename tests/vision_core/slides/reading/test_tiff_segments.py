import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from numpy.typing import NDArray

from tests.vision_core.slides.tiffs import overwrite, tissue
from vision_core.errors import InputError
from vision_core.slides.reading.slide import TileError, open_slide
from vision_core.slides.settings import ReadSettings

PIXELS = tissue((300, 257))


def write(path: Path, pixels: NDArray[np.generic] = PIXELS, compression: str = "deflate", mpp: float = 0.5) -> Path:
    options = {"compression": compression, "xres": 1000 / mpp, "yres": 1000 / mpp}
    pyvips.Image.new_from_array(pixels).tiffsave(str(path), **options)
    return path


def known_pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(pyvips.Image.new_from_file(str(path)).numpy(), np.uint8)


@pytest.mark.parametrize("compression", ["none", "jpeg", "deflate", "lzw", "packbits", "webp"])
def test_read__equals_the_whole_image(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a.tif", compression=compression)
    whole = known_pixels(path)
    with open_slide(path) as slide:
        assert slide.size == (300, 257) and slide.mpp == 0.5 and not slide.is_fast
        for y in (0, 100, 127, 128, 250):
            np.testing.assert_array_equal(slide.read(0, 31, y, 64, 50), whole[y : y + 50, 31:95])
        region = slide.read(0, -5, -5, 300, 400)
    np.testing.assert_array_equal(region[5:305, 5:262], whole)
    assert (region[305:] == 255).all() and (region[:, 262:] == 255).all() and (region[:5] == 255).all()


@pytest.mark.parametrize("rows", [1, 7, 16, 300])
def test_read__strips_of_any_height(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "a.tif"
    options: dict[str, Any] = {"rowsperstrip": rows, "resolution": (20_000, 20_000), "resolutionunit": 3}
    for compression in (None, "zlib"):
        tifffile.imwrite(path, PIXELS, compression=compression, photometric="rgb", **options)
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 0, 257, 300), PIXELS)


def test_read__transparent_pixels_are_white(tmp_path: Path) -> None:
    alpha = np.full((300, 257, 1), 255, np.uint8)
    alpha[:, 100:] = 0
    with open_slide(write(tmp_path / "alpha.tif", np.concatenate([PIXELS, alpha], axis=2))) as slide:
        region = slide.read(0, 0, 0, 257, 300)
    np.testing.assert_array_equal(region[:, :100], PIXELS[:, :100])
    assert (region[:, 100:] == 255).all()


def test_open_slide__strips_are_noted_as_slow(tmp_path: Path) -> None:
    assert open_slide(write(tmp_path / "a.tif")).notes[-1].endswith("so reading it is slow.")


def test_open_slide__a_photograph_in_tiff_says_no_pixel_size_that_can_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", mpp=352.8)
    with pytest.raises(InputError, match=r"gives '352\.8' microns per pixel"):
        open_slide(path)
    assert open_slide(path, ReadSettings(mpp=0.5)).mpp == 0.5


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw"])
def test_read__damaged_strip_is_an_error_and_the_others_are_not(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a.tif", compression=compression)
    whole = known_pixels(path)
    page = tifffile.TiffFile(path).pages.first
    offset, count = page.dataoffsets[1], page.databytecounts[1]
    overwrite(path, offset + count // 2, bytes(count - count // 2))
    with open_slide(path) as slide:
        for _ in range(2):
            with pytest.raises(TileError, match=r"level 0 cannot be read at x 0, y 128: the strip is damaged"):
                slide.read(0, 0, 100, 64, 64)
        np.testing.assert_array_equal(slide.read(0, 0, 256, 257, 44), whole[256:])


def test_read__strip_past_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, rowsperstrip=100, photometric="rgb", resolution=(20_000, 20_000), resolutionunit=3)
    path.write_bytes(path.read_bytes()[:-60_000])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, 257, 100), PIXELS[:100])
        with pytest.raises(TileError, match="the file ends after"):
            slide.read(0, 0, 200, 257, 100)


def huge(path: Path, side: int, rows: int | None = None) -> Path:
    """An image of zeros without compression, which takes no room on the disk."""
    options: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": 3, "rowsperstrip": rows}
    tifffile.imwrite(path, shape=(side, side, 3), dtype=np.uint8, bigtiff=True, photometric="rgb", **options)
    return path


@pytest.mark.parametrize("rows", [16, None])
def test_read__an_image_of_30_gigabytes_in_little_memory(tmp_path: Path, rows: int | None) -> None:
    path = huge(tmp_path / "a.tif", 100_000, rows)
    overwrite(path, path.stat().st_size - 3, b"\x01\x02\x03")
    tracemalloc.start()
    with open_slide(path) as slide:
        for y in (0, 50_000, 99_744):
            region = slide.read(0, 99_744, y, 256, 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert region[-1, -1].tolist() == [1, 2, 3] and region[:-1].max() == 0
    assert peak < 350 * 2**20


def test_open_slide__a_compressed_strip_too_large_to_be_decoded_is_refused(tmp_path: Path) -> None:
    path = huge(tmp_path / "a.tif", 20_000)
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["Compression"].valueoffset
    overwrite(path, place, b"\x08\x00")
    with pytest.raises(InputError, match=r"strips of 1,144 MiB each.*vips tiffsave"):
        open_slide(path)


def test_close__a_read_afterwards_says_so(tmp_path: Path) -> None:
    slide = open_slide(write(tmp_path / "a.tif"))
    slide.close()
    with pytest.raises(ValueError, match="is closed"):
        slide.read(0, 0, 0, 8, 8)
