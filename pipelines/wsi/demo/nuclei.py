"""Nuclei in images of haematoxylin and eosin: segmentation, removal, enlargement, insertion.

Segmentation takes Otsu's threshold of haematoxylin against its surroundings, and a watershed from the peaks of the
distance transform separates touching nuclei.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.wsi.demo.pictures import Floats, Picture, blurred, to_picture
from pipelines.wsi.demo.stains import haematoxylin, optical_density

_SMOOTHING_PX, _SURROUNDINGS_PX = 1.0, 25.0
_LEVELS_PER_AMOUNT = 100  # of the histogram that Otsu's threshold is found in
_OF_OTSU = 0.8  # pale nuclei lie below Otsu's threshold
_LEAST_CONTRAST = 0.15
_PEAK_PX, _LEAST_DEPTH_PX = 9, 2.0
_LEAST_AREA_PX, _LARGEST_AREA_PX = 40, 700
_LEAST_SOLIDITY = 0.8
_LEAST_GREEN = 0.8  # density of green against red: teal ink lets green through, a nucleus does not
_RIM_PX = 3
_FILLED_PX, _INPAINT_PX = 2, 3
_COVER_BLUR_PX = 0.8
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Nucleus:
    """One nucleus, cut out of a picture.

    Attributes:
        pixels: ``(h, w, 3)`` uint8, with a rim of its surroundings.
        mask: ``(h, w)`` bool, its pixels.
        corner: ``(top, left)`` of its pixels in the picture.
    """

    pixels: Picture
    mask: NDArray[np.bool_]
    corner: tuple[int, int]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre ``(x, y)`` of its pixels in the picture."""
        (top, left), (height, width) = self.corner, self.mask.shape
        return left + (width - 1) / 2, top + (height - 1) / 2


def find_nuclei(picture: Picture) -> list[Nucleus]:
    """Find regions of ``(H, W, 3)`` with the size, shape and colour of a nucleus."""
    labels = label_nuclei(picture)
    boxes = ndimage.find_objects(labels)
    found = (_lift(picture, labels, (number, box)) for number, box in enumerate(boxes, start=1) if box)
    return [nucleus for nucleus in found if _has_shape(nucleus.mask) and not _is_ink(nucleus)]


def label_nuclei(picture: Picture) -> NDArray[np.int32]:
    """Label nuclei ``(H, W)``: 0 outside, a number of its own in each."""
    nuclear = _nuclear(picture)
    depth = blurred(_depth(nuclear), _SMOOTHING_PX)
    peaks = (depth == ndimage.maximum_filter(depth, _PEAK_PX)) & (depth >= _LEAST_DEPTH_PX)
    markers = ndimage.label(peaks)[0].astype(np.int32)
    # On a two-level image the flood fills the nucleus of each peak before it crosses the edge.
    flooded = cv2.watershed(np.dstack([255 * nuclear] * 3), markers)
    pieces = ndimage.label(nuclear)[0]
    has_peak = np.isin(pieces, pieces[peaks])
    return np.where(has_peak & (flooded > 0), flooded, 0).astype(np.int32)


def remove(picture: Picture, nuclei: Sequence[Nucleus]) -> Picture:
    """Remove nuclei by inpainting from their surroundings."""
    holes = np.zeros(picture.shape[:2], np.bool_)
    for nucleus in nuclei:
        (top, left), (height, width) = nucleus.corner, nucleus.mask.shape
        holes[top : top + height, left : left + width] |= nucleus.mask
    wide = ndimage.binary_dilation(holes, _SQUARE, iterations=_FILLED_PX)
    return cv2.inpaint(picture, wide.astype(np.uint8), _INPAINT_PX, cv2.INPAINT_TELEA).astype(np.uint8, copy=False)


def enlarged(nucleus: Nucleus, scale: float, degrees: float) -> tuple[Floats, Floats]:
    """Enlarge and rotate a nucleus: pixels ``(side, side, 3)`` and their opacity ``(side, side)``."""
    height, width = nucleus.mask.shape
    side = int(np.ceil(scale * np.hypot(height, width)))
    change = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    change[:, 2] += (side - width) / 2, (side - height) / 2
    wide = ndimage.binary_dilation(nucleus.mask, _SQUARE)
    cover = cv2.warpAffine(blurred(wide.astype(np.float32), _COVER_BLUR_PX), change, (side, side))
    pixels = cv2.warpAffine(
        nucleus.pixels, change, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return pixels.astype(np.float32), cover.astype(np.float32)


def put(picture: Picture, pixels: Floats, cover: Floats, centre: tuple[float, float]) -> None:
    """Paste ``pixels`` into ``picture`` in place around ``centre`` ``(x, y)``, cropped at the edges."""
    side = len(cover)
    left, top = (round(middle - (side - 1) / 2) for middle in centre)
    target = picture[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    height, width = target.shape[:2]
    top, left = max(0, -top), max(0, -left)
    seen = (slice(top, top + height), slice(left, left + width))
    share = cover[seen][..., None]
    target[:] = to_picture(target * (1 - share) + pixels[seen] * share)


def _nuclear(picture: Picture) -> NDArray[np.uint8]:
    """Threshold haematoxylin against its surroundings ``(H, W)``."""
    amount = blurred(haematoxylin(picture), _SMOOTHING_PX)
    contrast = amount - blurred(amount, _SURROUNDINGS_PX)
    levels = np.clip(contrast * _LEVELS_PER_AMOUNT, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    dense = levels > max(_OF_OTSU * otsu, _LEAST_CONTRAST * _LEVELS_PER_AMOUNT)
    return np.asarray(ndimage.binary_opening(dense, _SQUARE), np.uint8)


def _depth(nuclear: NDArray[np.uint8]) -> Floats:
    """Compute the distance ``(H, W)`` to the nearest pixel outside nuclei."""
    return cv2.distanceTransform(nuclear, cv2.DIST_L2, 3).astype(np.float32, copy=False)


def _lift(picture: Picture, labels: NDArray[np.int32], found: tuple[int, tuple[slice, ...]]) -> Nucleus:
    number, box = found
    rows, columns = (slice(max(0, edge.start - _RIM_PX), edge.stop + _RIM_PX) for edge in box)
    mask = labels[rows, columns] == number
    return Nucleus(pixels=picture[rows, columns].copy(), mask=mask, corner=(rows.start, columns.start))


def _has_shape(mask: NDArray[np.bool_]) -> bool:
    area = int(mask.sum())
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines)))
    return _LEAST_AREA_PX <= area <= _LARGEST_AREA_PX and area >= _LEAST_SOLIDITY * hull


def _is_ink(nucleus: Nucleus) -> bool:
    red, green, _ = optical_density(nucleus.pixels[nucleus.mask]).mean(axis=0)
    return bool(green < _LEAST_GREEN * red)
