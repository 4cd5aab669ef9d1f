"""Tiles a second from a slide to a file of features, and the memory it takes.

The slide is made as in ``reading``: 20,480 pixels a side, tiles of 256 pixels at 0.5 microns, tissue on 30 %. Our
processing runs beside the same through OpenSlide and PIL, which differs in reading alone: a PIL image a tile, a handle
a thread. They take turns, and a ratio is the median over the rounds. Encoders have random weights: a small one of about
10 million operations, and ResNet-18; torch computes on one thread, so that reading has a core. Memory is the peak of a
process of its own, tissue and grid included, on this slide and on one of four times its area.
``make bench-wsi-features``.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import openslide
import torch
from numpy.typing import NDArray
from torch import nn

from vision_core.slides.encoders.encoder import Encoder, EncoderNetwork, has_cpu_bf16
from vision_core.slides.features.extraction import ExtractionSettings, extract_features, summarise_times
from vision_core.slides.reading.slide import Slide, open_slide
from vision_core.slides.settings import ReadSettings, TileSettings, TissueSettings
from vision_core.slides.synthetic import SyntheticSlide, write_synthetic_slide
from vision_core.slides.tiling import Tiles, tile_grid
from vision_core.slides.tissue.segmentation import find_tissue

SMALL_RATE, SMALL_RATIO = 400, 1.8
RESNET_RATE, RESNET_RATE_BF16 = 15, 25
MEMORY_MIB = 900
TISSUE_SECONDS = 0.3
RESNET_TILES = 192
_BATCH = 64
SlideProcessor = Callable[[Path, Tiles, Encoder, int], dict[str, float]]


def small_network() -> nn.Module:
    """Build a network of about 10 million operations at 224 px: 5 million multiply-adds."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 4, stride=4), nn.ReLU()]
    for width in (8, 16, 32):
        layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def make_encoder(name: str) -> Encoder:
    """Build an encoder with random weights; bf16 where the processor has it."""
    torch.manual_seed(0)
    return Encoder(EncoderNetwork(name=name, network=_NETWORKS[name](), weights="random"), 224)


def _resnet18() -> nn.Module:
    from vision_core.backbones.networks import build_backbone  # timm is heavy, and no part of the memory measured

    return build_backbone("resnet18", 0)


_NETWORKS = {"small": small_network, "resnet18": _resnet18}


class PilSlide:
    """A slide as users of OpenSlide read it: a PIL image a tile, a handle a thread."""

    def __init__(self, path: Path) -> None:
        self.path, self.mpp = path, 0.5
        self._own = threading.local()

    def read(self, level: int, x: int, y: int, width: int, height: int, **_: bool) -> NDArray[np.uint8]:
        """Read as ``Slide.read``."""
        if not hasattr(self._own, "handle"):
            self._own.handle = openslide.OpenSlide(self.path)
        return np.asarray(self._own.handle.read_region((x, y), level, (width, height)).convert("RGB"))


def ours(path: Path, tiles: Tiles, encoder: Encoder, threads: int) -> dict[str, float]:
    """Extract features on an open slide with our reader."""
    with open_slide(path) as slide:
        return _extract(slide, tiles, encoder, threads)


def through_pil(path: Path, tiles: Tiles, encoder: Encoder, threads: int) -> dict[str, float]:
    """Extract the same through OpenSlide and PIL."""
    return _extract(cast(Slide, PilSlide(path)), tiles, encoder, threads)


def compare(path: Path, tiles: Tiles, name: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Print rates in turn.

    Returns:
        The median of our rates, and of the ratios to the peer.
    """
    encoder = make_encoder(name)
    peer = f"OpenSlide {openslide.__library_version__} through PIL"
    ways: dict[str, SlideProcessor] = {"ours": ours, peer: through_pil}
    threads = arguments.threads
    for way in ways.values():
        way(path, replace(tiles, corners=tiles.corners[:_BATCH]), encoder, threads)
    rounds = [{each: way(path, tiles, encoder, threads) for each, way in ways.items()} for _ in range(arguments.rounds)]
    for each in ways:
        print(f"  {each}: {_spread([facts[each]['tiles_per_second'] for facts in rounds])} tiles/s")
    print(f"  ours, last round: {summarise_times(rounds[-1]['ours'])}")
    ratios = [facts["ours"]["tiles_per_second"] / facts[peer]["tiles_per_second"] for facts in rounds]
    print(f"  ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return statistics.median(facts["ours"]["tiles_per_second"] for facts in rounds), statistics.median(ratios)


def find_tiles(path: Path) -> Tiles:
    """Lay the grid over the tissue found."""
    with open_slide(path) as slide:
        return _grid(slide)


def tissue_seconds(path: Path, rounds: int) -> float:
    """Time how long an open slide's tissue and grid take; returns the median."""
    taken = []
    with open_slide(path) as slide:
        for _ in range(rounds):
            begun = time.perf_counter()
            _grid(slide)
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def peak_mib(path: Path, threads: int) -> float:
    """Measure the peak memory of a process that processes a slide with the small encoder."""
    words = [sys.executable, "-m", "benchmarks.wsi.features", "--memory-of", str(path), "--threads", str(threads)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    print(f"  '{path.name}': {done.stdout.strip()}")
    return float(done.stdout.split()[0])


def tell_memory(path: Path, threads: int) -> None:
    """Process a slide, and print this process's peak."""
    torch.set_num_threads(1)
    at_first = _own_peak_mib()
    tiles = find_tiles(path)
    ours(path, tiles, make_encoder("small"), threads)
    print(f"{_own_peak_mib():.0f} MiB, {at_first:.0f} of them before the slide was opened, {len(tiles)} tiles")


def made_slide(folder: Path, size: int) -> Path:
    """Make the slide, once."""
    path = folder / f"made-{size}.svs"
    if not path.exists():
        print(f"making '{path}'")
        write_synthetic_slide(path, SyntheticSlide(width=size, height=size))
    return path


def _grid(slide: Slide) -> Tiles:
    return tile_grid(slide, find_tissue(slide, TissueSettings()), TileSettings())


def _own_peak_mib() -> float:
    """Unlike ``ru_maxrss``, without the peak of the process that started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _extract(slide: Slide, tiles: Tiles, encoder: Encoder, threads: int) -> dict[str, float]:
    settings = ExtractionSettings(read=ReadSettings(threads=threads), batch_size=_BATCH)
    return dict(extract_features(slide, tiles, encoder, settings).facts)


def _spread(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def main() -> int:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--size", type=int, default=20_480, help="pixels of the made slide's side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="that read")
    parser.add_argument("--torch-threads", type=int, default=1, help="that encode")
    default = Path(tempfile.gettempdir()) / "domainsight-slides"
    parser.add_argument("--folder", type=Path, default=default, help="where made slides are kept")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        tell_memory(arguments.memory_of, arguments.threads)
        return 0
    path, large = (made_slide(arguments.folder, size) for size in (arguments.size, 2 * arguments.size))
    tiles, tissue = find_tiles(path), tissue_seconds(path, arguments.rounds)
    has_bf16 = has_cpu_bf16()
    threads = f"{arguments.threads} threads read, {arguments.torch_threads} encode"
    print(f"{len(tiles)} tiles, {threads}, bf16 {'on' if has_bf16 else 'not there'}")
    torch.set_num_threads(arguments.torch_threads)
    print("a small encoder:")
    small_rate, ratio = compare(path, tiles, "small", arguments)
    print(f"ResNet-18, {RESNET_TILES} tiles:")
    resnet_rate, _ = compare(path, replace(tiles, corners=tiles.corners[:RESNET_TILES]), "resnet18", arguments)
    print("peak memory with the small encoder:")
    peak = max(peak_mib(each, arguments.threads) for each in (path, large))
    for package in ("tiatoolbox", "lazyslide"):
        if importlib.util.find_spec(package) is None:
            print(f"{package}: not installed, not measured")
    resnet_target = RESNET_RATE_BF16 if has_bf16 else RESNET_RATE
    print(f"wsi_features rate: {small_rate:,.0f} tiles/s (target >= {SMALL_RATE})")
    print(f"wsi_features ResNet-18: {resnet_rate:.1f} tiles/s (target >= {resnet_target})")
    print(f"wsi_features tissue and grid: {tissue:.2f} s (target <= {TISSUE_SECONDS})")
    print(f"wsi_features memory: {peak:.0f} MiB (target <= {MEMORY_MIB})")
    print(f"wsi_features: {ratio:.2f} (target >= {SMALL_RATIO:g})")
    rates = small_rate < SMALL_RATE or resnet_rate < resnet_target or ratio < SMALL_RATIO
    return int(arguments.check and (rates or peak > MEMORY_MIB or tissue > TISSUE_SECONDS))


if __name__ == "__main__":
    sys.exit(main())
