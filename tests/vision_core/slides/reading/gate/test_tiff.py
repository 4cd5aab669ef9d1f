"""Generated TIFFs, read by the package and by tifffile and pyvips: equal or refused, alike for tiles and strips."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from numpy.typing import NDArray

from tests.vision_core.slides.tiffs import tissue
from vision_core.errors import InputError
from vision_core.slides.reading.slide import open_slide

SIZE = (150, 170)
DTYPES = {"u1": np.uint8, "u2": np.uint16, "i1": np.int8, "i2": np.int16, "f2": np.float16, "f4": np.float32}
NUM_SAMPLES = {"rgb": 3, "minisblack": 1, "miniswhite": 1, "palette": 1, "separated": 4, "cielab": 3, "ycbcr": 3}


@dataclass(frozen=True)
class Kind:
    """How a TIFF is written: what readers look at, one field each."""

    dtype: str
    photometric: str
    extra: str | None
    is_planar: bool
    orientation: int
    is_tiled: bool
    compression: str
    num_levels: int

    @property
    def is_sound(self) -> bool:
        """Whether it is 8-bit RGB that must be read, not refused."""
        return self.dtype == "u1" and self.photometric == "rgb" and not (self.is_planar and self.extra)


def kinds() -> list[Kind]:
    """All combinations that the writers can write, each once."""
    every = product(
        DTYPES,
        NUM_SAMPLES,
        (None, "unspecified", "assocalpha", "unassalpha"),
        (False, True),
        range(1, 9),
        (True,),
        ("none", "zlib", "zlib+predictor", "packbits", "lzw", "webp"),
        (1, 2),
    )
    return [each for each in (Kind(*values) for values in every) if _can_be_written(each)]


def chosen(number: int, seed: int, *, is_sound: bool) -> list[Kind]:
    """Some of them, each time the same."""
    generator = np.random.default_rng(seed)
    found = [each for each in kinds() if each.is_sound == is_sound]
    return [found[place] for place in generator.choice(len(found), number, replace=False)]


def test_kinds__are_many() -> None:
    assert len(kinds()) > 1000
    assert sum(each.is_sound for each in kinds()) > 100


@pytest.mark.parametrize("is_sound", [True, False], ids=["sound", "other"])
def test_open_slide__equals_other_readers_or_refuses(is_sound: bool, tmp_path: Path) -> None:
    check(chosen(24, seed=1, is_sound=is_sound), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize("is_sound", [True, False], ids=["sound", "other"])
def test_open_slide__equals_other_readers_or_refuses_on_a_larger_grid(
    is_sound: bool, seed: int, tmp_path: Path
) -> None:
    check(chosen(60, seed=seed, is_sound=is_sound), tmp_path)


def check(found: list[Kind], folder: Path) -> None:
    """Read each kind in tiles and in strips."""
    for number, kind in enumerate(found):
        tiled = read(folder / f"{number}.tif", kind)
        strips = read(folder / f"{number}-strips.tif", replace(kind, is_tiled=False))
        assert (tiled is None) == (strips is None), kind
        assert tiled is not None or not kind.is_sound, kind
        for level in range(kind.num_levels if tiled else 0):
            assert tiled is not None and strips is not None
            np.testing.assert_array_equal(tiled[level], strips[level], err_msg=str(kind))


def read(path: Path, kind: Kind) -> list[NDArray[np.uint8]] | None:
    """The pixels of each level, compared with those of tifffile and pyvips; None where the file is refused."""
    write(path, kind)
    try:
        slide = open_slide(path)
    except InputError as error:
        assert len(error.problems) == 1 and str(path) in str(error)
        return None
    with slide:
        assert len(slide.levels) == kind.num_levels, kind
        found = [slide.read(number, 0, 0, *level.size) for number, level in enumerate(slide.levels)]
        turned = any(f"orientation {kind.orientation}" in note for note in slide.notes)
    assert turned == (kind.orientation != 1), kind
    for number, pixels in enumerate(found):
        for reader, expected in references(path, kind, number):
            np.testing.assert_array_equal(pixels, expected, err_msg=f"{reader}, level {number}: {kind}")
    return found


def references(path: Path, kind: Kind, level: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """What other readers see of a level, as far as they can decode it."""
    if kind.compression in {"none", "zlib", "zlib+predictor"}:
        with tifffile.TiffFile(path) as file:
            page = file.pages[level]
            stored = page.asarray()
            if kind.photometric == "palette":
                yield "tifffile", (page.colormap.T[stored] >> 8).astype(np.uint8)  # type: ignore[union-attr]
            else:
                yield "tifffile", over_white(np.moveaxis(stored, 0, -1) if kind.is_planar else stored, kind)
    if kind.extra == "assocalpha":
        return  # pyvips divides by the alpha, and rounds
    try:
        image = pyvips.Image.new_from_file(str(path), page=level)
        yield "pyvips", over_white(image.numpy(), kind)
    except pyvips.Error as error:
        assert kind.is_planar, error  # in tiles, which it does not read


def over_white(pixels: NDArray[Any], kind: Kind) -> NDArray[np.uint8]:
    """The colours, over white where there is transparency."""
    colours = pixels[..., :3]
    if kind.extra in {None, "unspecified"}:
        return np.asarray(colours, np.uint8)
    alpha = pixels[..., 3:].astype(np.float32) / 255
    if kind.extra == "unassalpha":
        return np.rint(colours * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.minimum(colours + 255.0 * (1 - alpha), 255).round().astype(np.uint8)


def write(path: Path, kind: Kind) -> None:
    """Write it with tifffile, or with pyvips where only that has the compression."""
    pixels = _values(kind)
    levels = [pixels, pixels[::2, ::2].copy()][: kind.num_levels]
    if kind.compression not in {"none", "zlib", "zlib+predictor"}:
        options: dict[str, Any] = {"tile": kind.is_tiled, "tile_width": 64, "tile_height": 64, "pyramid": False}
        image = pyvips.Image.new_from_array(pixels)
        image.tiffsave(str(path), compression=kind.compression, xres=2000, yres=2000, lossless=True, **options)
        return
    layout: dict[str, Any] = {"tile": (64, 64)} if kind.is_tiled else {"rowsperstrip": 40}
    if kind.photometric == "palette":
        ramp = np.arange(256)
        layout["colormap"] = np.stack([ramp * 257, 65_535 - ramp * 257, ramp * 100]).astype(np.uint16)
    tags: list[Any] = [(274, 3, 1, kind.orientation, True)] if kind.orientation != 1 else []
    tags += [(530, 3, 2, (1, 1), True)] if kind.photometric == "ycbcr" else []
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                np.moveaxis(level, -1, 0) if kind.is_planar else level,
                photometric=kind.photometric,
                planarconfig="separate" if kind.is_planar else "contig" if level.ndim == 3 else None,
                extrasamples=[kind.extra] if kind.extra else [],
                compression=None if kind.compression == "none" else "zlib",
                predictor=kind.compression == "zlib+predictor",
                subfiletype=int(number > 0),
                resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER",
                extratags=tags,
                metadata=None,
                **layout,
            )


def _values(kind: Kind) -> NDArray[Any]:
    number = NUM_SAMPLES[kind.photometric] + bool(kind.extra)
    pixels = np.concatenate([tissue(SIZE, seed=3), tissue(SIZE, seed=4)[..., :2]], axis=2)[..., :number]
    if kind.extra:
        pixels[..., -1] = np.linspace(0, 255, SIZE[1])
    if kind.extra == "assocalpha":
        pixels[..., :-1] = pixels[..., :-1] * (pixels[..., -1:] / 255)
    return np.squeeze(pixels.astype(DTYPES[kind.dtype]), axis=2) if number == 1 else pixels.astype(DTYPES[kind.dtype])


def _can_be_written(kind: Kind) -> bool:
    number = NUM_SAMPLES[kind.photometric] + bool(kind.extra)
    is_vips = kind.compression in {"packbits", "lzw", "webp"}
    if is_vips:  # it writes its own colours alone
        plain = kind.photometric == "rgb" and kind.dtype == "u1" and not kind.is_planar
        return plain and kind.extra in {None, "unassalpha"} and kind.orientation == 1 and kind.num_levels == 1
    if kind.photometric == "palette" and (kind.dtype not in {"u1", "u2"} or kind.extra):
        return False
    if kind.is_planar and number == 1:
        return False
    if kind.compression == "zlib+predictor" and (kind.dtype[0] == "f" or kind.photometric == "palette"):
        return False
    return not (kind.photometric == "palette" and kind.dtype == "u2")
