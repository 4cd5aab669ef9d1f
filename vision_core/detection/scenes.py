"""Scenes composed of real pixels: cut-outs on grounds, with exact boxes. Semi-synthetic, and called so where scored.

Objects differ in size, overlap, and leave the picture; parts of objects of the same pool lie about as unlabelled
clutter. All draws are keyed, so that a seed says all.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vision_core.console import track
from vision_core.detection.cut_outs import Coverage, CutOut, Picture, Pool
from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.randomness import key

_ATTEMPTS = 20
_LARGEST_VALUE = 2.0  # of tinted pixels, in standard deviations
_DARKEST, _BRIGHTEST = 70, 185  # channels of a tint
_CONTRAST = (18, 34)  # standard deviation of tinted pixels; with the lines above all values lie in 0 to 255

Place = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """How scenes are composed.

    Attributes:
        side_px: Side of the square pictures.
        objects: Fewest and most labelled objects.
        length_px: Shortest and longest longer side of an object.
        canvas_px: Scale objects by this length instead of their own longer side, so that they keep their relative
            sizes; None: each by its own.
        clutter: Fewest and most parts of objects.
        feather_px: Standard deviation of the blur of the edges.
        shared: Largest part of the smaller of two boxes that both cover when an object is placed.
        off: Largest part of an object's sides that may lie off the picture.
        least_visible: Objects of which less can be seen are crowd regions: neither target nor mistake.
        is_tinted: Give objects and grounds alike a random colour and contrast, so that colour says nothing of the
            class; else pictures keep their colours, and grounds swap theirs.
    """

    side_px: int = 128
    objects: tuple[int, int] = (2, 5)
    length_px: tuple[int, int] = (28, 40)
    canvas_px: int | None = None
    clutter: tuple[int, int] = (1, 4)
    feather_px: float = 0.6
    shared: float = 0.35
    off: float = 0.3
    least_visible: float = 0.3
    is_tinted: bool = False


PHOTOGRAPH_SCENES = SceneSettings(length_px=(32, 72))
CLOTHES_SCENES = SceneSettings(length_px=(28, 40), canvas_px=28, is_tinted=True)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and its objects.

    Attributes:
        picture: ``(side, side, 3)`` uint8.
        boxes: ``(M, 4)`` float32, ``xyxy`` in pixels: what can be seen of each object.
        labels: ``(M,)`` int64.
        crowd: ``(M,)`` bool, of objects that are mostly hidden.
        names: Instances, one per object.
        owners: ``(side, side)`` int64: which object a pixel shows, -1 for ground and clutter.
    """

    picture: Picture
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    names: tuple[str, ...]
    owners: NDArray[np.int64]


def compose(pool: Pool, settings: SceneSettings, generator: np.random.Generator) -> Scene:
    """Compose a scene: ground, clutter, objects, in this order; classes are drawn evenly."""
    picture = _ground(pool, settings, generator)
    owners = np.full(picture.shape[:2], -1, np.int64)
    for _ in range(int(generator.integers(settings.clutter[0], settings.clutter[1] + 1))):
        piece = _piece(_scaled(_drawn(pool, generator), settings, generator), generator)
        _paint(picture, piece, _place(piece, settings, generator), settings.feather_px)
    boxes: list[tuple[int, int, int, int]] = []
    placed: list[CutOut] = []
    for _ in range(int(generator.integers(settings.objects[0], settings.objects[1] + 1))):
        each = _scaled(_drawn(pool, generator), settings, generator)
        place = _free_place(each, boxes, settings, generator)
        if place is None:
            continue
        covered = _paint(picture, each, place, settings.feather_px)
        owners[covered] = len(placed)
        boxes.append(_box(each, place))
        placed.append(each)
    return _labelled(picture, owners, placed, settings)


def compose_crop(
    each: CutOut, pool: Pool, side: int, settings: SceneSettings, generator: np.random.Generator
) -> Picture:
    """Compose a picture of ``side`` pixels that one whole object fills, for image–text models."""
    ground = _ground(pool, replace(settings, side_px=side), generator)
    changed = _toned(each, settings, generator)
    length = int(side * generator.uniform(0.8, 1.0))
    changed = _resized(changed, length / max(changed.coverage.shape))
    height, width = changed.coverage.shape
    place = int(generator.integers(0, side - width + 1)), int(generator.integers(0, side - height + 1))
    _paint(ground, changed, place, settings.feather_px)
    return ground


def write_scenes(  # noqa: PLR0913 (keywords)
    folder: Path, split: str, pool: Pool, settings: SceneSettings, *, count: int, seed: int = 0
) -> DetectionDataset:
    """Write scenes as ``<split>/*.png`` and a COCO index ``<split>.json``; returns the same as records."""
    records, entries = [], []
    for number in track(range(count), count, f"scenes of {split}", "scene"):
        scene = compose(pool, settings, np.random.default_rng(key("scene", split, seed, number)))
        path = folder / split / f"{number:04d}.png"
        write_png(path, scene.picture)
        records.append(
            ImageRecord(
                image_id=str(number + 1),
                path=path,
                boxes=scene.boxes,
                labels=scene.labels,
                difficult=np.zeros(len(scene.labels), np.bool_),
                crowd=scene.crowd,
                size=(settings.side_px, settings.side_px),
            )
        )
        entries.append(scene.names)
    dataset = DetectionDataset(name=split, classes=pool.classes, records=tuple(records), has_labels=True)
    write_atomic(folder / f"{split}.json", json.dumps(_index(dataset, entries)))
    return dataset


def _index(dataset: DetectionDataset, names: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Describe records as a COCO index; ``instance`` names the cut-out of each box."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record, instances in zip(dataset.records, names, strict=True):
        height, width = record.size or (0, 0)
        number = int(record.image_id)
        images.append({"id": number, "file_name": record.path.name, "width": width, "height": height})
        for box, label, crowd, name in zip(record.boxes.tolist(), record.labels, record.crowd, instances, strict=True):
            left, top, right, bottom = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(crowd),
                    "instance": name,
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(dataset.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _labelled(picture: Picture, owners: NDArray[np.int64], placed: Sequence[CutOut], settings: SceneSettings) -> Scene:
    """Box what can be seen of each object; one that cannot be seen at all is left out."""
    shown = [number for number in range(len(placed)) if (owners == number).any()]
    shares = [float((owners == each).sum() / (placed[each].coverage > 0.5).sum()) for each in shown]
    return Scene(
        picture=picture,
        boxes=np.array([extent(owners == each) for each in shown], np.float32).reshape(-1, 4),
        labels=np.array([placed[each].label for each in shown], np.int64),
        crowd=np.array([share < settings.least_visible for share in shares], np.bool_),
        names=tuple(placed[each].name for each in shown),
        owners=owners,
    )


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Compute the box ``xyxy`` of the true pixels; right and bottom are behind the last."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _drawn(pool: Pool, generator: np.random.Generator) -> CutOut:
    members = pool.of_label(int(generator.integers(len(pool.classes))))
    return members[int(generator.integers(len(members)))]


def _scaled(each: CutOut, settings: SceneSettings, generator: np.random.Generator) -> CutOut:
    """Resize, tone and perhaps mirror an object."""
    length = generator.uniform(*settings.length_px)
    scale = length / (settings.canvas_px or max(each.coverage.shape))
    changed = _resized(_toned(each, settings, generator), scale)
    if generator.random() < 0.5:
        changed = replace(changed, picture=changed.picture[:, ::-1], coverage=changed.coverage[:, ::-1])
    return changed


def _resized(each: CutOut, scale: float) -> CutOut:
    """Resize an object; colours are weighed by coverage, so that none of its former ground bleeds in."""
    height, width = (max(3, round(edge * scale)) for edge in each.coverage.shape)
    weighed = each.picture.astype(np.float32) * each.coverage[..., None]
    layers = [
        np.asarray(Image.fromarray(layer).resize((width, height), Image.Resampling.BILINEAR))
        for layer in (*weighed.transpose(2, 0, 1), each.coverage)
    ]
    coverage = layers[-1].clip(0, 1)
    colours = np.stack(layers[:-1], axis=-1) / np.maximum(coverage, 1e-3)[..., None]
    return replace(each, picture=colours.round().clip(0, 255).astype(np.uint8), coverage=coverage)


def _toned(each: CutOut, settings: SceneSettings, generator: np.random.Generator) -> CutOut:
    if not settings.is_tinted:
        return each
    return replace(each, picture=tinted(each.picture, each.coverage > 0.5, generator))


def tinted(picture: Picture, mask: NDArray[np.bool_], generator: np.random.Generator) -> Picture:
    """Paint grey pixels in a random colour and contrast, which are all that the mean within ``mask`` then tells.

    Args:
        picture: ``(h, w, 3)``, of which the mean over the channels counts.
        mask: ``(h, w)``, of the pixels that become standardised.
        generator: Draws colour and contrast.
    """
    grey = picture.mean(axis=2)
    values = (grey - grey[mask].mean()) / max(float(grey[mask].std()), 1.0)
    values = values.clip(-_LARGEST_VALUE, _LARGEST_VALUE)
    values = (values - values[mask].mean()).clip(-_LARGEST_VALUE, _LARGEST_VALUE)
    colour = generator.uniform(_DARKEST, _BRIGHTEST, 3)
    toned = colour + generator.uniform(*_CONTRAST) * values[..., None]
    return toned.round().clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def _ground(pool: Pool, settings: SceneSettings, generator: np.random.Generator) -> Picture:
    """Cut a window of a ground, of one to two sides, and give it another colour."""
    ground = pool.grounds[int(generator.integers(len(pool.grounds)))]
    side = min(int(settings.side_px * generator.uniform(1, 2)), *ground.shape[:2])
    top, left = (int(generator.integers(0, edge - side + 1)) for edge in ground.shape[:2])
    window = Image.fromarray(ground[top : top + side, left : left + side])
    picture = np.array(window.resize((settings.side_px, settings.side_px), Image.Resampling.BOX))
    if settings.is_tinted:
        return tinted(picture, np.ones(picture.shape[:2], np.bool_), generator)
    swapped = picture[..., generator.permutation(3)] * generator.uniform(0.7, 1.3, 3)
    return swapped.clip(0, 255).astype(np.uint8)


def _piece(each: CutOut, generator: np.random.Generator) -> CutOut:
    """Cut a half or a quarter off an object; where it is empty, the object's middle is taken."""
    height, width = each.coverage.shape
    down, right = (int(generator.integers(2)) for _ in range(2))
    rows = np.s_[: height // 2 + 1] if down else np.s_[height // 2 :]
    columns = np.s_[: width // 2 + 1] if right else np.s_[width // 2 :]
    kinds = {0: (rows, np.s_[:]), 1: (np.s_[:], columns), 2: (rows, columns)}
    window = kinds[int(generator.integers(3))]
    if not (each.coverage[window] > 0.5).any():
        window = np.s_[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return replace(each, picture=each.picture[window], coverage=each.coverage[window])


def _place(each: CutOut, settings: SceneSettings, generator: np.random.Generator) -> Place:
    """Draw the left upper corner of an object, of which a part may lie off the picture."""
    height, width = each.coverage.shape
    left, top = (
        int(generator.integers(-int(settings.off * edge), settings.side_px - edge + int(settings.off * edge) + 1))
        for edge in (width, height)
    )
    return left, top


def _free_place(
    each: CutOut, boxes: Sequence[tuple[int, int, int, int]], settings: SceneSettings, generator: np.random.Generator
) -> Place | None:
    for _ in range(_ATTEMPTS):
        place = _place(each, settings, generator)
        box = _box(each, place)
        if all(_shared(box, other) <= settings.shared for other in boxes):
            return place
    return None


def _box(each: CutOut, place: Place) -> tuple[int, int, int, int]:
    height, width = each.coverage.shape
    return place[0], place[1], place[0] + width, place[1] + height


def _shared(first: Sequence[int], second: Sequence[int]) -> float:
    """Compute what part of the smaller of two boxes both cover."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(width, 0) * max(height, 0) / min(areas)


def _paint(picture: Picture, each: CutOut, place: Place, feather_px: float) -> NDArray[np.bool_]:
    """Paint an object with soft edges; returns the pixels ``(H, W)`` that it covers by more than half."""
    coverage = np.zeros(picture.shape[:2], np.float32)
    left, top, right, bottom = _box(each, place)
    inside = np.s_[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    height, width = coverage[inside].shape
    own = np.s_[max(-top, 0) : max(-top, 0) + height, max(-left, 0) : max(-left, 0) + width]
    coverage[inside] = _softened(each.coverage, feather_px)[own]
    weight = coverage[inside][..., None]
    area = picture[inside]
    area[:] = (area * (1 - weight) + each.picture[own] * weight).round().astype(np.uint8)
    return coverage > 0.5


def _softened(coverage: Coverage, feather_px: float) -> Coverage:
    """Blur the edges inwards alone: what is covered by more than half stays so, and nothing new is."""
    if not feather_px:
        return coverage
    blurred = ndimage.gaussian_filter(coverage, feather_px, mode="constant")
    return np.where(coverage > 0.5, np.maximum(blurred, 0.55), np.minimum(coverage, 0.5)).astype(np.float32)
