"""Masks of tissue drawn in QuPath, read from its GeoJSON export."""

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vision_core.errors import InputError
from vision_core.files import parse_json
from vision_core.slides.tissue.regions import Points, Region, join_diagonal_pixels, mask_to_regions, regions_to_mask

_MAX_BYTES = 500_000_000
_WITHOUT_AREA = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
_IGNORED_CLASS = "ignore"  # QuPath's class of areas to leave out is called Ignore*
_PACKED = b"\x1f\x8b"
_LONGEST_TRACED_PX = 8192  # of a mask from which regions are traced
_TOLERATED_OVERHANG_PX = 1.0  # beyond the edge of the slide, cut without a note
_REMEDY = "Export it from QuPath again (File > Export objects as GeoJSON)"


@dataclass(frozen=True, kw_only=True)
class QuPathMask:
    """Mask of a file.

    Attributes:
        regions: Areas cut to the slide; they may overlap.
        notes: What was left out or cut, one sentence each.
    """

    regions: tuple[Region, ...]
    notes: tuple[str, ...] = ()


def read_qupath_mask(path: Path, size: tuple[int, int]) -> QuPathMask:
    """Read a GeoJSON file, packed or not, of polygons in pixels of level 0.

    Accepts a FeatureCollection, a list of features or geometries, or a single one, with Polygon, MultiPolygon and
    GeometryCollection. Areas of the class ``Ignore*`` are cut out of the others, their holes are not.

    Args:
        path: The file.
        size: ``(height, width)`` of the slide.

    Raises:
        InputError: The file cannot be read, is no GeoJSON, or belongs to another slide.
    """
    document = _load(path)
    if _is_object(document):
        _check_size(path, document.get("slide"), size)
    found = _ParsedAreas()
    for number, node in enumerate(_features(document), start=1):
        try:
            found.add(node)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise InputError(f"'{path}': object {number} is no area of GeoJSON ({error}). {_REMEDY}.") from error
    return _clip_to_slide(path, found, size)


@dataclass(kw_only=True)
class _ParsedAreas:
    areas: list[Region] = field(default_factory=list)
    ignored: list[Region] = field(default_factory=list)
    without_area: int = 0

    def add(self, node: Any) -> None:  # noqa: ANN401 (any JSON)
        if not _is_object(node):
            raise TypeError(f"found {_abbreviate(node)}, expected an object")
        is_feature = node.get("type") == "Feature"
        polygons = list(_polygon_coordinates(node.get("geometry") if is_feature else node))
        areas = [area for area in map(_parse_region, polygons) if area is not None]
        self.without_area += not areas
        if is_feature and _is_ignored(node):
            self.ignored += areas
        else:
            self.areas += areas


def _load(path: Path) -> Any:  # noqa: ANN401
    try:
        return parse_json(_read_unpacked(path), parse_constant=_refuse_constant)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"'{path}' is packed and breaks off or is damaged. {_REMEDY}.") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {(error.strerror or 'no reason given').lower()}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is no GeoJSON: {_first_line(error)}. {_REMEDY}.") from error


def _read_unpacked(path: Path) -> bytes:
    with path.open("rb") as file:
        is_packed = file.read(len(_PACKED)) == _PACKED
        file.seek(0)
        content = (gzip.GzipFile(fileobj=file) if is_packed else file).read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InputError(f"'{path}' has more than {_MAX_BYTES // 10**6} MB: no mask of tissue. {_REMEDY}.")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"found '{name}', expected a number")


def _check_size(path: Path, stated: Any, size: tuple[int, int]) -> None:  # noqa: ANN401
    if not isinstance(stated, dict):
        return
    found = (stated.get("height"), stated.get("width"))
    if found != tuple(size):
        raise InputError(
            f"'{path}' is the mask of a slide of {_abbreviate(found[1])} x {_abbreviate(found[0])} pixels, but this "
            f"one has {size[1]} x {size[0]}. Give the slide its own mask, or remove the file."
        )


def _features(document: Any) -> Sequence[Any]:  # noqa: ANN401
    if isinstance(document, list):
        return document
    if not (_is_object(document) and document.get("type") == "FeatureCollection"):
        return [document]
    features = document.get("features")
    return features if isinstance(features, list) else [features]


def _polygon_coordinates(geometry: Any) -> Iterator[Any]:  # noqa: ANN401
    """Iterate over the coordinates of the polygons of a geometry."""
    if geometry is None:
        return
    if not _is_object(geometry):
        raise TypeError(f"found {_abbreviate(geometry)}, expected a geometry")
    kind = geometry.get("type")
    if kind == "Polygon":
        yield geometry["coordinates"]
    elif kind == "MultiPolygon":
        yield from geometry["coordinates"]
    elif kind == "GeometryCollection":
        for each in geometry["geometries"]:
            yield from _polygon_coordinates(each)
    elif kind not in _WITHOUT_AREA:
        raise ValueError(f"found the type {_abbreviate(kind)}, expected Polygon or MultiPolygon")


def _parse_region(rings: Any) -> Region | None:  # noqa: ANN401
    if not isinstance(rings, list):
        raise TypeError(f"found {_abbreviate(rings)}, expected rings")
    outlines = [_parse_ring(ring) for ring in rings]
    if not outlines or outlines[0] is None:
        return None
    return Region(outline=outlines[0], holes=tuple(hole for hole in outlines[1:] if hole is not None))


def _parse_ring(points: Any) -> Points | None:  # noqa: ANN401
    """Parse a ring without its closing point; None without an area."""
    if not isinstance(points, list):
        raise TypeError(f"found {_abbreviate(points)}, expected a ring of points")
    ring = np.array([_parse_point(point) for point in points], np.float64).reshape(-1, 2)
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    return ring if _encloses_area(ring) else None


def _parse_point(point: Any) -> tuple[float, float]:  # noqa: ANN401
    if not (isinstance(point, list) and len(point) >= 2):
        raise TypeError(f"found {_abbreviate(point)}, expected a point [x, y]")
    x, y = point[:2]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in (x, y)):
        raise ValueError(f"found the point {_abbreviate(point)}, expected two finite numbers")
    return float(x), float(y)


def _encloses_area(ring: Points) -> bool:
    return len(np.unique(ring, axis=0)) >= 3


def _is_ignored(feature: Mapping[str, Any]) -> bool:
    properties = feature.get("properties")
    stated = properties.get("classification") if isinstance(properties, dict) else None
    named = (stated.get("name"), *_listed(stated.get("names"))) if isinstance(stated, dict) else (stated,)
    return any(isinstance(name, str) and name.strip("* ").casefold() == _IGNORED_CLASS for name in named)


def _listed(value: Any) -> Sequence[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else ()


def _clip_to_slide(path: Path, found: _ParsedAreas, size: tuple[int, int]) -> QuPathMask:
    """Cut the areas to the slide, and the ignored areas out of them."""
    _refuse_shares(path, found.areas)
    regions = [region for area in found.areas if (region := _clip_region(area, size)) is not None]
    if found.areas and not regions:
        raise InputError(
            f"'{path}': all {len(found.areas)} areas lie outside the slide of {size[1]} x {size[0]} pixels. Give the "
            "slide its own mask, in pixels of level 0, or remove the file."
        )
    notes = {
        "reached beyond the slide and was cut": sum(_exceeds_slide(area.outline, size) for area in found.areas),
        "has no area and was left out": found.without_area,
    }
    sentences = tuple(f"In the edited mask, {_objects(count)} {what}." for what, count in notes.items() if count)
    ignored = [region for area in found.ignored if (region := _clip_region(area, size)) is not None]
    return QuPathMask(regions=_without_ignored(regions, ignored, size), notes=sentences)


def _refuse_shares(path: Path, areas: Sequence[Region]) -> None:
    """Refuse areas that are all within the first pixel: shares of the slide's sides, not pixels."""
    largest = max((float(np.abs(area.outline).max()) for area in areas), default=math.inf)
    if largest <= 1:
        raise InputError(
            f"'{path}': its numbers lie within 0 and 1 (largest {largest:g}), so they look like shares of the slide. "
            "Write them in pixels of level 0."
        )


def _clip_region(area: Region, size: tuple[int, int]) -> Region | None:
    outline = _clip_ring(area.outline, size)
    if outline is None:
        return None
    holes = [_clip_ring(hole, size) for hole in area.holes]
    return Region(outline=outline, holes=tuple(hole for hole in holes if hole is not None))


def _without_ignored(regions: Sequence[Region], ignored: Sequence[Region], size: tuple[int, int]) -> tuple[Region, ...]:
    """Cut the ignored areas out: as holes, or where those have holes themselves by tracing what is left."""
    if not any(area.holes for area in ignored):
        cut = tuple(area.outline for area in ignored)
        return tuple(Region(outline=each.outline, holes=(*each.holes, *cut)) for each in regions)
    scale = min(1.0, _LONGEST_TRACED_PX / max(size))
    shape = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    pixel_size = (size[1] / shape[1], size[0] / shape[0])
    left = regions_to_mask(regions, shape, pixel_size) & ~regions_to_mask(ignored, shape, pixel_size)
    return mask_to_regions(join_diagonal_pixels(left), pixel_size)


def _objects(count: int) -> str:
    return "one object" if count == 1 else f"each of {count} objects"


def _exceeds_slide(ring: Points, size: tuple[int, int]) -> bool:
    return bool((ring < -_TOLERATED_OVERHANG_PX).any() or (ring > np.array(size[::-1]) + _TOLERATED_OVERHANG_PX).any())


def _clip_ring(ring: Points, size: tuple[int, int]) -> Points | None:
    """Clip a ring to the slide (Sutherland and Hodgman 1974), or None."""
    for axis, edge, sign in ((0, 0, 1), (0, size[1], -1), (1, 0, 1), (1, size[0], -1)):
        depth = sign * (ring[:, axis] - edge)  # negative outside
        if (depth >= 0).all():
            continue
        before, depth_before = np.roll(ring, 1, axis=0), np.roll(depth, 1)
        crosses = (depth >= 0) != (depth_before >= 0)
        share = depth_before / np.where(crosses, depth_before - depth, 1)
        crossing = before + share[:, None] * (ring - before)
        crossing[:, axis] = edge
        keep = np.stack([crosses, depth >= 0], axis=1)
        ring = np.stack([crossing, ring], axis=1)[keep]
        if not _encloses_area(ring):
            return None
    return ring


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _abbreviate(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["nested too deeply"])[0]
