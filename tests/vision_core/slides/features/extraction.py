"""What tests of extraction share: a slide, a grid on it, an encoder whose features are colours, and damage."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from tests.vision_core.slides.tiffs import Kind, overwrite, pyramid, tile_place, tissue, write_tiff
from vision_core.slides.encoders.encoder import Encoder, EncoderNetwork
from vision_core.slides.reading.slide import Slide
from vision_core.slides.tiling import Tiles

SIDE = 64


class Colours(nn.Module):
    """Means of the quarters of a tile: (B, 3, H, W) to (B, 12)."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def encoder(network: nn.Module | None = None, input_px: int = SIDE, **other: Any) -> Encoder:  # noqa: ANN401
    built = EncoderNetwork(name="colours", network=network or Colours(), weights="c0", **other)
    return Encoder(built, input_px, precision="off")


def slide_in(folder: Path) -> Path:
    return write_tiff(folder / "a.tif", pyramid(tissue((512, 640))), Kind())


def grid(count: int = 80, read_px: int = SIDE, level: int = 0) -> Tiles:
    """Tiles of 64 px, row by row, at 0.5 microns times what is read."""
    corners = np.stack(np.meshgrid(np.arange(0, 640, 64), np.arange(0, 512, 64)), -1).reshape(-1, 2)
    factor = read_px // SIDE * 2**level
    return Tiles(
        corners=np.resize(corners, (count, 2)).astype(np.int64),
        side=SIDE * factor,
        tile_px=SIDE,
        mpp=0.5 * factor,
        level=level,
        read_px=read_px,
    )


def by_hand(slide: Slide, tiles: Tiles, network: Encoder) -> np.ndarray[Any, Any]:
    pixels = [slide.read(tiles.level, int(x), int(y), tiles.read_px, tiles.read_px) for x, y in tiles.corners]
    return network.encode(np.stack(pixels)).numpy()


def damaged(path: Path, *numbers: int) -> None:
    for number in numbers:
        start, length = tile_place(path, number)
        overwrite(path, start, bytes(length))
