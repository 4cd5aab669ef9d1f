"""Edited masks of tissue: which file of a folder is of which slide.

A mask belongs to the slide at whose path its own path ends: ``x.geojson`` to ``a/x.tif``, and where another slide is
called so too, ``a/x.geojson`` to one and ``b/x.geojson`` to the other. Names count without case, and without the
suffix of the slide.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from vision_core.errors import DataError, InputError
from vision_core.slides.identity import identity, is_end_of, may_be_dicom, read_instance, slide_name

MASK_SUFFIX = ".tissue.geojson"

_ENDINGS = re.compile(r"(\.tissue)?\.(geojson|json)(\.gz)?$", re.IGNORECASE)
_OF_RESULTS = re.compile(r"\.tiles\.geojson(\.gz)?$", re.IGNORECASE)  # that predict writes beside its masks
_GEOJSON = re.compile(rb'"type"\s*:\s*"(Feature|FeatureCollection|Polygon|MultiPolygon|GeometryCollection)"')
_HEAD_BYTES = 65_536
_SHOWN = 3


def list_masks(folder: Path) -> list[Path]:
    """List the masks in a folder and below, sorted: GeoJSON by its suffix, packed or not, or ``.json`` that is one."""
    found = (path for path in folder.rglob("*") if _ENDINGS.search(path.name) and not _OF_RESULTS.search(path.name))
    return sorted(path for path in found if path.is_file() and not path.name.startswith(".") and _is_mask(path))


def find_mask(folder: Path, slide: Path, masks: Sequence[Path] | None = None) -> Path | None:
    """Find the mask of a slide, None if it has none.

    Args:
        folder: Folder of the masks.
        slide: The slide.
        masks: ``list_masks`` of the folder, where it is known.

    Raises:
        InputError: Two masks fit it equally well.
    """
    return _choose(slide, _by_name(folder, list_masks(folder) if masks is None else masks))


def check_masks(folder: Path, slides: Iterable[Path]) -> list[str]:
    """Match masks with slides before any is opened; name those that are of no slide.

    Raises:
        DataError: A mask fits several slides, or a slide has several masks; the error lists all of them.
    """
    masks = list_masks(folder)
    by_name = _by_name(folder, masks)
    taken: dict[Path, list[Path]] = defaultdict(list)
    problems: list[str] = []
    for slide in slides:
        try:
            mask = _choose(slide, by_name)
        except InputError as error:
            problems += error.problems
            continue
        if mask is not None:
            taken[mask].append(slide)
    for mask, own in taken.items():
        if len({identity(slide) for slide in own}) > 1:
            named = " and ".join(f"'{slide}'" for slide in own[:_SHOWN])
            wanted = PurePosixPath(own[0].parent.name, mask.name)
            problems.append(
                f"'{mask}' fits {len(own)} slides, {named}. Put it into a folder named like that of its slide, as in "
                f"'{wanted}'."
            )
    if problems:
        raise DataError(problems)
    spare = [str(mask.relative_to(folder)) for mask in masks if mask not in taken]
    used = f"{len(taken)} edited masks of '{folder}' are used."
    if not spare:
        return [used]
    names = ", ".join(f"'{name}'" for name in spare[:_SHOWN]) + (", …" if len(spare) > _SHOWN else "")
    return [f"{used} {len(spare)} are of none of the slides: {names}. A mask is called '<slide>{MASK_SUFFIX}'."]


def _by_name(folder: Path, masks: Sequence[Path]) -> Mapping[str, Sequence[tuple[tuple[str, ...], Path]]]:
    """Index masks by the last part of the path that they are named after; each with all of its parts."""
    found: dict[str, list[tuple[tuple[str, ...], Path]]] = defaultdict(list)
    for mask in masks:
        parts = _folded(_ENDINGS.sub("", str(PurePosixPath(mask.relative_to(folder)))))
        found[parts[-1]].append((parts, mask))
    return found


def _choose(slide: Path, by_name: Mapping[str, Sequence[tuple[tuple[str, ...], Path]]]) -> Path | None:
    parts = _folded(str(PurePosixPath(slide.absolute())))
    fitting = [(len(own), mask) for own, mask in by_name.get(parts[-1], ()) if is_end_of(own, parts)]
    if not fitting and may_be_dicom(slide):
        instance = read_instance(slide)
        fitting = [(len(own), mask) for own, mask in by_name.get(instance.series if instance else "", ())]
    most = max((depth for depth, _ in fitting), default=0)
    masks = [mask for depth, mask in fitting if depth == most]
    if len(masks) > 1:
        named = " and ".join(f"'{mask}'" for mask in masks[:_SHOWN])
        raise InputError(f"'{slide}' has {len(masks)} edited masks: {named}. Keep the one that is meant.")
    return masks[0] if masks else None


def _folded(path: str) -> tuple[str, ...]:
    """Split a path into parts that compare without case, suffix of the slide, and ``.ome``."""
    name = unicodedata.normalize("NFC", slide_name(path)).casefold()
    return PurePosixPath(name.removesuffix(".ome")).parts


def _is_mask(path: Path) -> bool:
    return ".geojson" in path.name.lower() or _holds_geojson(path)


@lru_cache(maxsize=4096)
def _holds_geojson(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _GEOJSON.search(file.read(_HEAD_BYTES)) is not None
    except OSError:
        return False
