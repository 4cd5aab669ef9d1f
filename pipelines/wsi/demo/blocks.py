"""Division of a scanned region into blocks, and of the blocks among groups that share no pixel.

The blocks are dealt in the order of their haematoxylin, so that every group gets both epidermis and dermis.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.wsi.demo.pictures import Picture
from pipelines.wsi.demo.stains import haematoxylin

PATCH_PX = 160
_BLOCK_PX = 297
_STEP_PX = 8
_LEAST_TISSUE = 0.85
_LEAST_PLACES = 8
_MOST_HAEMATOXYLIN = 0.9  # above it is keratin without nuclei
_LEAST_SATURATION = 25
_MEDIAN_PX = 7


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Source pixels of the slides of one group.

    Attributes:
        blocks: Copies of parts of the region.
        places: ``(n, 3)`` int64: block, top and left of each patch that is nearly all tissue, sorted by haematoxylin.
    """

    blocks: tuple[Picture, ...]
    places: NDArray[np.int64]

    def patches(self, ranks: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Cut patches ``(n, PATCH_PX, PATCH_PX, 3)`` by rank of haematoxylin, from 0 to 1."""
        chosen = self.places[np.rint(ranks * (len(self.places) - 1)).astype(np.int64)]
        return np.stack([self.blocks[block][_window(top, left)] for block, top, left in chosen])


def divide(region: Picture, groups: int) -> list[Pool]:
    """Deal the blocks with tissue to pools, each block to one pool."""
    blocks = [block for block in blocks_of(region) if len(tissue_places(block)) >= _LEAST_PLACES]
    blocks.sort(key=lambda block: float(haematoxylin(block).mean()))
    return [_pool(blocks[number] for number in dealt(len(blocks), groups, group)) for group in range(groups)]


def blocks_of(region: Picture) -> Iterator[Picture]:
    """Cut the region into blocks of about ``_BLOCK_PX`` pixels without overlap."""
    rows, columns = (max(1, round(edge / _BLOCK_PX)) for edge in region.shape[:2])
    for band in np.array_split(region, rows):
        yield from (block.copy() for block in np.array_split(band, columns, axis=1))


def dealt(count: int, groups: int, group: int) -> list[int]:
    """Deal numbers below ``count`` to a group, every second round in reverse order."""
    return [number for number in range(count) if _receiver(number, groups) == group]


def tissue_places(block: Picture) -> NDArray[np.int64]:
    """Find patches of tissue: top and left ``(n, 2)`` on a grid of ``_STEP_PX``."""
    saturation = cv2.medianBlur(cv2.cvtColor(block, cv2.COLOR_RGB2HSV)[..., 1], _MEDIAN_PX)
    tissue = _means(saturation > _LEAST_SATURATION)
    is_tissue = (tissue >= _LEAST_TISSUE) & (_means(haematoxylin(block)) <= _MOST_HAEMATOXYLIN)
    return np.argwhere(is_tissue[::_STEP_PX, ::_STEP_PX]) * _STEP_PX


def _receiver(number: int, groups: int) -> int:
    deal, place = divmod(number, groups)
    return groups - 1 - place if deal % 2 else place


def _pool(blocks: Iterable[Picture]) -> Pool:
    blocks = tuple(blocks)
    places = [(number, *place) for number, block in enumerate(blocks) for place in tissue_places(block).tolist()]
    amounts = [haematoxylin(block) for block in blocks]
    places.sort(key=lambda place: float(amounts[place[0]][_window(*place[1:])].mean()))
    return Pool(blocks=blocks, places=np.array(places, np.int64))


def _means(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Compute the mean of every patch of ``(H, W)`` values, indexed by top and left."""
    sums = cv2.integral(values.astype(np.float32))  # (H + 1, W + 1)
    below, above = sums[PATCH_PX:], sums[:-PATCH_PX]
    inside = below[:, PATCH_PX:] - below[:, :-PATCH_PX] - above[:, PATCH_PX:] + above[:, :-PATCH_PX]
    return np.asarray(inside / PATCH_PX**2)


def _window(top: int, left: int) -> tuple[slice, slice]:
    return slice(top, top + PATCH_PX), slice(left, left + PATCH_PX)
