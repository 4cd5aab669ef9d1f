"""Image quilting of tissue of any size from overlapping patches, with a ragged outline.

The minimum-error cut is that of Efros and Freeman, "Image quilting for texture synthesis and transfer", SIGGRAPH 2001.
Patches are not chosen to fit their neighbours, so that all cuts of one direction are found together.
"""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.wsi.demo.blocks import PATCH_PX, Pool
from pipelines.wsi.demo.pictures import Floats, Picture, blurred, smooth_field, to_picture

OVERLAP_PX = 40
_STEP_PX = PATCH_PX - OVERLAP_PX
_SEAM_BLUR_PX = 5
_GLASS = 244.0
_PATCHES_ALIKE = 4  # approximate number of neighbouring patches of one tissue type
_RANK_SPREAD = 0.12
_COARSE_PX, _FINE_PX = 300, 40
_FRAY = 0.15
_FALL = 6.0
_EDGE_BLUR_PX = 1.5


def compose(pool: Pool, outline: Floats, generator: np.random.Generator) -> Picture:
    """Compose tissue where ``outline`` ``(H, W)`` is 1, on white glass.

    A tissue type extends over several neighbouring patches.
    """
    height, width = outline.shape
    rows, columns = (-(-(edge - OVERLAP_PX) // _STEP_PX) for edge in (height, width))
    patches = [_mirrored(patch, generator) for patch in pool.patches(_ranks((rows, columns), generator))]
    tissue = quilt(np.stack(patches).reshape(rows, columns, PATCH_PX, PATCH_PX, 3))[:height, :width]
    share = outline[..., None]
    return to_picture(tissue * share + np.float32(_GLASS) * (1 - share))


def quilt(patches: NDArray[np.uint8]) -> Picture:
    """Quilt ``(rows, columns, side, side, 3)`` patches that overlap by ``OVERLAP_PX``."""
    bands = join(np.moveaxis(patches, 1, 0))  # (rows, side, width, 3)
    whole = join(np.swapaxes(bands, 1, 2)[:, None])[0]  # (width, height, 3)
    return np.ascontiguousarray(np.swapaxes(whole, 0, 1))


def join(parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join overlapping parts ``(n, batch, H, W, 3)`` into ``(batch, H, width, 3)``."""
    before, after = parts[:-1, :, :, -OVERLAP_PX:], parts[1:, :, :, :OVERLAP_PX]
    flat = (-1, *before.shape[2:])
    seams = blend(before.reshape(flat), after.reshape(flat)).reshape(before.shape)
    inner = parts[:, :, :, OVERLAP_PX:-OVERLAP_PX]
    pieces = [parts[0, :, :, :OVERLAP_PX], inner[0]]
    for seam, piece in zip(seams, inner[1:], strict=True):
        pieces += [seam, piece]
    return np.concatenate([*pieces, parts[-1, :, :, -OVERLAP_PX:]], axis=2)


def blend(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend strips ``(batch, H, W, 3)``: ``left`` up to the cut, ``right`` from there on."""
    difference = left.astype(np.float32) - right
    cuts = cheapest_cuts((difference**2).sum(axis=3))  # (batch, H)
    share = (np.arange(left.shape[2]) >= cuts[..., None]).astype(np.float32)
    soft = np.stack([cv2.blur(each, (_SEAM_BLUR_PX, _SEAM_BLUR_PX)) for each in share])[..., None]
    return to_picture(left + (right - left.astype(np.float32)) * soft)


def cheapest_cuts(costs: Floats) -> NDArray[np.int64]:
    """Find the minimum-cost vertical cuts ``(batch, H)`` through ``(batch, H, W)`` costs.

    From row to row a cut moves by one column at most.
    """
    totals = np.pad(np.moveaxis(costs, 1, 0), ((0, 0), (0, 0), (1, 1)), constant_values=np.inf)  # (H, batch, W + 2)
    for above, row in pairwise(totals):
        row[:, 1:-1] += np.minimum(np.minimum(above[:, :-2], above[:, 1:-1]), above[:, 2:])
    cuts = np.empty(totals.shape[:2], np.int64)  # (H, batch), columns of the padded totals
    cuts[-1] = totals[-1].argmin(axis=1)
    batch = np.arange(len(costs))[:, None]
    for row in range(len(totals) - 2, -1, -1):
        near = cuts[row + 1][:, None] + np.array([-1, 0, 1])  # (batch, 3)
        cuts[row] = cuts[row + 1] + totals[row][batch, near].argmin(axis=1) - 1
    return cuts.T - 1


def draw_outline(side_px: int, share: float, generator: np.random.Generator) -> Floats:
    """Draw a ragged tissue mask ``(side, side)`` that covers ``share`` of the area."""
    field = smooth_field(side_px, _COARSE_PX, generator) + _FRAY * smooth_field(side_px, _FINE_PX, generator)
    away = np.abs(np.linspace(-1, 1, side_px, dtype=np.float32)) ** 4
    field -= _FALL * np.maximum(away[:, None], away)
    island = (field > np.quantile(field, 1 - share)).astype(np.float32)
    return blurred(island, _EDGE_BLUR_PX)


def _ranks(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw ranks ``(rows * columns,)``, uniform in [0, 1] and similar among neighbours."""
    field = smooth_field(max(shape), _PATCHES_ALIKE, generator)[: shape[0], : shape[1]]
    even = field.ravel().argsort().argsort() / (field.size - 1)
    return np.asarray(np.clip(even + generator.normal(0, _RANK_SPREAD, field.size), 0, 1))


def _mirrored(patch: Picture, generator: np.random.Generator) -> Picture:
    # Not rotated by 90 degrees: fibres of one direction look like tissue, crossed ones like a weave.
    down, across = 1 - 2 * generator.integers(2, size=2)
    return patch[::down, ::across]
