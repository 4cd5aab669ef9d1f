"""Cut-outs of real objects, and grounds to lay them on, that scenes are composed of.

Three pools: photographs in colour (Tux Paint's stamps), clothing in grey (Fashion-MNIST), and the same clothing from a
sheet of a few items. Grounds are aerial images of woods. ``divide`` makes parts that share neither an object nor a
pixel of ground.
"""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vision_core.assets import clothing, stamps, tree_crowns
from vision_core.errors import DataError
from vision_core.images.reading import read_image
from vision_core.randomness import key

CLOTHES = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CLOTHES_PX = 28
STAMPS_FILE = Path(__file__).with_name("stamps.yaml")
_STAMP_PX = 128  # longest side that stamps are kept at
_IDX_BYTES = b"\0\0\x08"
_CLOTH = 16  # grey value above which a pixel shows clothing; the photographs lie on black

Picture = NDArray[np.uint8]
Coverage = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """One object without its ground.

    Attributes:
        name: Of the instance, unique in its pool.
        label: Index into the classes of the pool.
        picture: ``(h, w, 3)`` uint8, RGB.
        coverage: ``(h, w)`` float32 in 0 to 1, cut to what it covers.
    """

    name: str
    label: int
    picture: Picture
    coverage: Coverage


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Objects of some classes and grounds to lay them on.

    Attributes:
        classes: Names in the order of the labels.
        cut_outs: The objects.
        grounds: Large pictures ``(H, W, 3)`` uint8, of which scenes cut windows.
    """

    classes: tuple[str, ...]
    cut_outs: tuple[CutOut, ...]
    grounds: tuple[Picture, ...]

    def of_label(self, label: int) -> tuple[CutOut, ...]:
        """List the objects of one class."""
        return tuple(each for each in self.cut_outs if each.label == label)


def divide(pool: Pool, names: Sequence[str]) -> dict[str, Pool]:
    """Divide a pool into named parts: of each class as many objects each as can be, of each ground a band.

    Which object goes where follows from its name alone, not from the order of the pool.

    Raises:
        DataError: A class has fewer objects than there are parts.
    """
    parts: dict[str, list[CutOut]] = {name: [] for name in names}
    for label, title in enumerate(pool.classes):
        members = sorted(pool.of_label(label), key=lambda each: key("part", each.name))
        if len(members) < len(names):
            raise DataError(f"'{title}' has '{len(members)}' objects, and '{len(names)}' parts are to share none.")
        for place, each in enumerate(members):
            parts[names[place % len(names)]].append(each)
    bands = [np.array_split(ground, len(names), axis=1) for ground in pool.grounds]
    return {
        name: replace(pool, cut_outs=tuple(parts[name]), grounds=tuple(band[place] for band in bands))
        for place, name in enumerate(names)
    }


def photographs(grounds: Sequence[Picture] | None = None) -> Pool:
    """Read the photographs among the stamps, as ``stamps.yaml`` lists them by class, on coloured grounds.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    folder = stamps()
    listed: Mapping[str, list[str]] = yaml.safe_load(STAMPS_FILE.read_text(encoding="utf-8"))
    cut_outs = [
        _stamp(folder / f"{name}.png", name, label) for label, names in enumerate(listed.values()) for name in names
    ]
    return Pool(classes=tuple(listed), cut_outs=tuple(cut_outs), grounds=tuple(woods() if grounds is None else grounds))


def clothes(per_class: int, grounds: Sequence[Picture] | None = None) -> Pool:
    """Read the first ``per_class`` pieces of clothing of each class, on grounds of woods.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    images_path, labels_path = clothing()
    pixels, labels = read_idx(images_path), read_idx(labels_path)
    rows = [row for label in range(len(CLOTHES)) for row in np.flatnonzero(labels == label)[:per_class]]
    cut_outs = tuple(garment(pixels[row], f"clothes-{row:05d}", int(labels[row])) for row in rows)
    return Pool(classes=CLOTHES, cut_outs=cut_outs, grounds=tuple(woods() if grounds is None else grounds))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes, of any number of dimensions.

    Raises:
        DataError: It is none, or ends too early.
    """
    content = gzip.decompress(path.read_bytes())
    kind, dimensions = content[:3], content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    if kind != _IDX_BYTES or len(content) != 4 + 4 * dimensions + int(shape.prod()):
        raise DataError(f"'{path}' is no whole IDX file of bytes. Install its package anew.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def clothes_sheet(path: Path, grounds: Sequence[Picture] | None = None) -> Pool:
    """Read pieces of clothing from a grey sheet of tiles of 28 x 28 px, a row for each class.

    Raises:
        DataError: The sheet has other than ten rows of tiles.
    """
    sheet = np.asarray(Image.open(path).convert("L"))
    rows, columns = (edge / CLOTHES_PX for edge in sheet.shape)
    if rows != len(CLOTHES) or columns != int(columns):
        raise DataError(f"'{path}' is {sheet.shape[1]} x {sheet.shape[0]} px: expected {len(CLOTHES)} rows of tiles.")
    tiles = sheet.reshape(len(CLOTHES), CLOTHES_PX, int(columns), CLOTHES_PX).swapaxes(1, 2)
    cut_outs = tuple(
        garment(tile, f"sheet-{label}-{column:02d}", label)
        for label, row in enumerate(tiles)
        for column, tile in enumerate(row)
    )
    return Pool(classes=CLOTHES, cut_outs=cut_outs, grounds=tuple(woods() if grounds is None else grounds))


def woods() -> tuple[Picture, ...]:
    """Read a large aerial image of woods, 2299 x 2472 px."""
    return (read_image(tree_crowns()["yell_large"].image_path),)


def garment(pixels: NDArray[np.uint8], name: str, label: int) -> CutOut:
    """Cut a piece of clothing ``(28, 28)`` out of its black ground; holes, such as white prints, belong to it."""
    covered = ndimage.binary_fill_holes(pixels > _CLOTH)
    pieces, count = ndimage.label(covered)
    if count > 1:  # lint, and the partner of a pair where it does not touch
        sizes = ndimage.sum_labels(covered, pieces, range(1, count + 1))
        covered = np.isin(pieces, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
    return _cut(np.repeat(pixels[..., None], 3, axis=2), covered.astype(np.float32), name, label)


def _stamp(path: Path, name: str, label: int) -> CutOut:
    picture = Image.open(path).convert("RGBA")
    picture.thumbnail((_STAMP_PX, _STAMP_PX), Image.Resampling.BOX)
    pixels = np.asarray(picture)
    return _cut(pixels[..., :3], pixels[..., 3].astype(np.float32) / np.float32(255), name, label)


def _cut(picture: Picture, coverage: Coverage, name: str, label: int) -> CutOut:
    rows, columns = (np.flatnonzero((coverage > 0.5).any(axis=axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CutOut(name=name, label=label, picture=picture[window].copy(), coverage=coverage[window].copy())
