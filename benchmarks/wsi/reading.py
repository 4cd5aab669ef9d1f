"""Tiles a second out of a slide, warm, on two threads, beside OpenSlide through PIL and pyvips.

The slide is made: 20,480 pixels a side as Aperio writes them, JPEG tiles of 256 pixels in 4:2:0, tissue on 30 %; the
tiles read are those of tissue, of 256 pixels at level 0, on the grid of the file's tiles and off it. Readers take
turns; a ratio is the median over the rounds. Every reader's pixels are compared first. Then, without a target: the
first pass after the file has left the page cache, the real Aperio region with its tiles of 240 pixels, and JPEG 2000,
which OpenSlide decodes. ``make bench-wsi-reading``.
"""

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import openslide
import pyvips
from numpy.typing import NDArray

from tests.vision_core.slides.tiffs import APERIO, Kind, tissue, write_tiff
from vision_core.assets import aperio_slide
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.settings import ReadSettings
from vision_core.slides.synthetic import SyntheticSlide, write_synthetic_slide

TARGET_RATE, TARGET_RATIO = 3000, 3.0
TILE_PX = 256
SHIFT = (100, 76)  # off the grid
BLOCK = 32  # tiles that a thread takes at a time
Pixels = NDArray[np.uint8]
Corners = Sequence[tuple[int, int]]
Read = Callable[[int, int, int], Pixels]


def ours(path: Path, *, fast: bool = True) -> Callable[[], Read]:
    """Read with our reader: one slide, which the threads share."""
    slide = open_slide(path, ReadSettings(fast=fast, mpp=0.5))
    return lambda: lambda x, y, side: slide.read(0, x, y, side, side)


def through_pil(path: Path) -> Callable[[], Read]:
    """Read with OpenSlide as its users do: a PIL image a tile, a handle a thread."""

    def reader() -> Read:
        slide = openslide.OpenSlide(path)
        return lambda x, y, side: np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))

    return reader


def through_vips(path: Path) -> Callable[[], Read]:
    """Read with pyvips: a region a thread."""

    def reader() -> Read:
        region = pyvips.Region.new(pyvips.Image.new_from_file(str(path)))
        return lambda x, y, side: np.frombuffer(region.fetch(x, y, side, side), np.uint8).reshape(side, side, 3)

    return reader


def through_tiatoolbox(path: Path) -> Callable[[], Read]:
    """Read with tiatoolbox: a reader a thread."""
    wsireader = importlib.import_module("tiatoolbox.wsicore.wsireader")

    def reader() -> Read:
        slide = wsireader.WSIReader.open(path)
        return lambda x, y, side: np.asarray(slide.read_rect((x, y), (side, side), resolution=0, units="level"))

    return reader


def through_lazyslide(path: Path) -> Callable[[], Read]:
    """Read with wsidata, on which LazySlide stands: a reader a thread."""
    wsidata = importlib.import_module("wsidata")

    def reader() -> Read:
        slide = wsidata.open_wsi(str(path)).reader
        return lambda x, y, side: np.asarray(slide.get_region(x, y, side, side, level=0))[..., :3]

    return reader


@cache
def peers() -> dict[str, Callable[[Path], Callable[[], Read]]]:
    """List the peers that are installed, by name and version."""
    found: dict[str, Callable[[Path], Callable[[], Read]]] = {
        f"OpenSlide {openslide.__library_version__} through PIL": through_pil,
        f"pyvips {pyvips.__version__}": through_vips,
    }
    for package, make in (("tiatoolbox", through_tiatoolbox), ("lazyslide", through_lazyslide)):
        try:
            found[f"{package} {version(package)}"] = make
        except PackageNotFoundError:
            print(f"{package}: not installed, not measured")
    return found


def rate(reader: Callable[[], Read], corners: Corners, side: int, threads: int) -> float:
    """Measure tiles a second, by wall time; threads take blocks of neighbours in turn."""
    blocks = iter([corners[first : first + BLOCK] for first in range(0, len(corners), BLOCK)])
    turn, readers = threading.Lock(), [reader() for _ in range(threads)]
    problems: list[BaseException] = []
    workers = [threading.Thread(target=_work, args=(each, side, blocks, turn, problems)) for each in readers]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if problems:
        raise problems[0]
    return len(corners) / (time.perf_counter() - start)


def tissue_corners(made: SyntheticSlide) -> list[tuple[int, int]]:
    """List the corners of the tiles whose centre lies in tissue, row after row."""
    half = TILE_PX // 2
    return [
        (x, y)
        for y in range(0, made.height - 2 * TILE_PX, TILE_PX)
        for x in range(0, made.width - 2 * TILE_PX, TILE_PX)
        if made.has_tissue(x + half, y + half)
    ]


def check_pixels(path: Path, corners: Corners, side: int) -> None:
    """Print how many of some tiles look in each peer as they do here."""
    some = list(corners)[:: max(1, len(corners) // 50)]
    read = ours(path)()
    known = [read(x, y, side) for x, y in some]
    for name, make in peers().items():
        read = make(path)()
        same = sum(np.array_equal(read(x, y, side), tile) for (x, y), tile in zip(some, known, strict=True))
        print(f"  {name}: {same} of {len(some)} tiles have our pixels")


def compare(path: Path, corners: Corners, side: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Print rates in turn.

    Returns:
        The median of our rates, and of the ratios to OpenSlide through PIL.
    """
    readers = {"ours": ours, **peers()}
    check_pixels(path, corners, side)
    rounds = [
        # Opened anew, so that nothing is kept from the round before.
        {name: rate(make(path), corners, side, arguments.threads) for name, make in readers.items()}
        for _ in range(arguments.rounds)
    ]
    for name in readers:
        rates = [each[name] for each in rounds]
        print(f"  {name}: {_median(rates)} tiles/s")
    reference = next(name for name in readers if name.endswith("through PIL"))
    ratios = [each["ours"] / each[reference] for each in rounds]
    print(f"  ratio to {reference}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return statistics.median(each["ours"] for each in rounds), statistics.median(ratios)


def cold(path: Path, corners: Corners, arguments: argparse.Namespace) -> None:
    """Print rates of a first pass, after the system has been asked to drop the file's pages."""
    for name, make in {"ours": ours, "OpenSlide through PIL": through_pil, "pyvips": through_vips}.items():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        print(f"  {name}: {rate(make(path), corners, TILE_PX, arguments.threads):,.0f} tiles/s")


def aperio_rates(arguments: argparse.Namespace) -> None:
    """Print rates on the real Aperio region, whose tiles have 240 pixels."""
    path, side = aperio_slide(), 240
    grid = [(x, y) for y in range(0, 2967 - 2 * side, side) for x in range(0, 2220 - 2 * side, side)]
    for name, shift in (("on", (0, 0)), ("off", SHIFT)):
        print(f"The real Aperio region, tiles of 240 pixels, {name} the grid:")
        compare(path, [(x + shift[0], y + shift[1]) for x, y in grid], side, arguments)


def jpeg2000_rates(folder: Path, arguments: argparse.Namespace) -> None:
    """Print rates on JPEG 2000 tiles."""
    side = 8 * TILE_PX
    kind = Kind(is_jpeg2000=True, tile=(TILE_PX, TILE_PX), description=APERIO)
    path = write_tiff(folder / "jpeg2000.svs", [tissue((side, side))], kind)
    corners = [(x, y) for y in range(0, side, TILE_PX) for x in range(0, side, TILE_PX)]
    print(f"JPEG 2000, {len(corners)} tiles on the grid:")
    readers = {"ours": ours(path), "OpenSlide through PIL": through_pil(path)}
    for name, reader in readers.items():
        print(f"  {name}: {rate(reader, corners, TILE_PX, arguments.threads):,.0f} tiles/s")


def made_slide(folder: Path, size: int) -> tuple[Path, SyntheticSlide]:
    """Make the slide, once; returns its path and what it was made of."""
    made = SyntheticSlide(width=size, height=size)
    path = folder / f"made-{size}.svs"
    if not path.exists():
        print(f"making '{path}'")
        write_synthetic_slide(path, made)
    return path, made


def _work(
    read: Read, side: int, blocks: Iterator[Corners], turn: threading.Lock, problems: list[BaseException]
) -> None:
    try:
        while True:
            with turn:
                block = next(blocks, None)
            if block is None:
                return
            for x, y in block:
                read(x, y, side)
    except BaseException as error:
        problems.append(error)


def _median(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def main() -> int:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--size", type=int, default=20_480, help="pixels of the made slide's side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    default = Path(tempfile.gettempdir()) / "domainsight-slides"
    parser.add_argument("--folder", type=Path, default=default, help="where the made slide is kept")
    arguments = parser.parse_args()
    path, made = made_slide(arguments.folder, arguments.size)
    corners = tissue_corners(made)
    off_grid = [(x + SHIFT[0], y + SHIFT[1]) for x, y in corners]
    print(f"{made.width} x {made.height} pixels, {len(corners)} tiles, {arguments.threads} threads; warm, on the grid:")
    on_rate, on_ratio = compare(path, corners, TILE_PX, arguments)
    print("warm, off the grid:")
    off_rate, off_ratio = compare(path, off_grid, TILE_PX, arguments)
    print("cold, on the grid:")
    cold(path, corners, arguments)
    aperio_rates(arguments)
    jpeg2000_rates(arguments.folder, arguments)
    slowest, ratio = min(on_rate, off_rate), min(on_ratio, off_ratio)
    print(f"wsi_reading rate: {slowest:,.0f} tiles/s (target >= {TARGET_RATE:,})")
    print(f"wsi_reading: {ratio:.2f} (target >= {TARGET_RATIO:g})")
    return int(arguments.check and (slowest < TARGET_RATE or ratio < TARGET_RATIO))


if __name__ == "__main__":
    sys.exit(main())
