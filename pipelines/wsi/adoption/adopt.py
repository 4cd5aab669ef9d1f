"""Adoption of features from CLAM or TRIDENT as a data set of ours; the originals stay untouched."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.wsi.adoption.foreign_folders import ForeignFolder
from pipelines.wsi.adoption.split_lists import read_clam_splits, write_lists
from pipelines.wsi.cohort.labels import Labels, read_labels
from vision_core.console import track
from vision_core.errors import DataError, InputError
from vision_core.slides.features.adopted import read_any_features, read_patch_grid, write_adopted
from vision_core.slides.features.files import Features, stored_corners
from vision_core.slides.features.hdf5 import H5Rows

FEATURES = "features"

_NOMINAL_UM = 10.0  # microns per pixel times magnification, as TRIDENT names scales
_TOLERANCE = 0.1
_MAX_PROBLEMS = 50
_NUM_CHECKED = 5


@dataclass(frozen=True, kw_only=True)
class AdoptionSettings:
    """Settings that the user states; None where not stated.

    Attributes:
        encoder: Name of the encoder.
        tile_mpp: Microns per pixel of a tile.
        slide_mpp: Microns per pixel at level 0 of all slides of which the list does not state it.
        slide_mpps: Microns per pixel at level 0 by slide name, as the slides in ``data.root`` state it; the list wins.
        tile_px: Side of a tile in pixels as it was encoded.
        classes: Names of the classes in order; empty: those of the CSV.
    """

    encoder: str | None
    tile_mpp: float | None
    slide_mpp: float | None
    slide_mpps: Mapping[str, float]
    tile_px: int | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """Features of one slide and their origin.

    Attributes:
        slide: Name of the slide.
        path: The original feature file.
        corners: File of the tile coordinates, if they are not in the original, or not in pixels of level 0.
        dim: Features of a tile.
        tile_px: Side of a tile in pixels as it was encoded.
        side: Side of a tile in pixels of level 0.
        mpp: Microns per pixel of a tile.
        mpp_source: Source of ``mpp``.
        problem: Reason why it cannot be adopted, or empty.
        notes: What was inferred, or cannot be used.
        content: Sum of the original.
    """

    slide: str
    path: Path
    corners: Path | None = None
    dim: int = 0
    tile_px: int | None = None
    side: int | None = None
    mpp: float | None = None
    mpp_source: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    content: str = ""


@dataclass(frozen=True, kw_only=True)
class ReencodingCheck:
    """Result of encoding some tiles again.

    Attributes:
        cosine: Lowest cosine between old and new features.
        encoder: Identity of the encoder.
    """

    cosine: float
    encoder: Mapping[str, Any]


Check = Callable[[Adoption], ReencodingCheck | None]


def adopt(
    found: ForeignFolder, labels_path: Path | None, settings: AdoptionSettings, out: Path, check: Check
) -> list[str]:
    """Adopt features of another program into a data set of ours.

    Writes ``labels.csv`` and ``features/<slide>.adopted.json`` below ``out``, which then serves as ``data.root``.

    Args:
        found: Files of the other program.
        labels_path: CSV of slides and labels; None: the one that was found.
        settings: Settings that the user states.
        out: Folder to write to.
        check: Encodes tiles of a slide again and raises where they differ; returns None where it cannot.

    Returns:
        Summary, one sentence each.

    Raises:
        DataError: Something is missing or does not fit; the error lists all problems, and nothing is written.
    """
    labels = _labels(found, labels_path, settings.classes)
    listed = {slide.slide: slide.mpp for slide in labels.slides if slide.mpp} if labels else {}
    names = sorted(found.features)
    adoptions = [_examine(name, found, settings, listed) for name in track(names, len(names), "adopt", "file")]
    lists = read_clam_splits(found.splits, labels) if labels else ()
    encoder = settings.encoder or found.encoder
    _refuse([*_missing_settings(found, encoder, adoptions), *(each.problem for each in adoptions if each.problem)])
    checked = _check_sample(adoptions, check)
    for each in adoptions:
        identity = checked[0].encoder if checked else {"name": encoder, "dim": each.dim}
        attributes = _attributes(found, each, identity)
        write_adopted(out / FEATURES, each.slide, each.path, each.corners, attributes, each.content)
    written = write_lists(out, labels, lists) if labels else [_NO_LABELS]
    dims = ", ".join(map(str, sorted({each.dim for each in adoptions})))
    summary = f"{len(adoptions)} feature files of {found.program}, {dims} features a tile, encoder {encoder}."
    return [summary, *_sources(adoptions), *_inferred(adoptions), _check_summary(checked), *written]


_NO_LABELS = "No CSV with columns slide and label was found: name it as data.labels, here or in training."


def _labels(found: ForeignFolder, path: Path | None, classes: tuple[str, ...]) -> Labels | None:
    if path is None and len(found.tables) > 1:
        listing = ", ".join(f"'{each}'" for each in found.tables)
        raise DataError(f"'{len(found.tables)}' CSVs have slides and labels: {listing}. Name one as data.labels.")
    path = path or next(iter(found.tables), None)
    return read_labels(path, classes, others=True) if path else None


def _examine(name: str, found: ForeignFolder, settings: AdoptionSettings, listed: Mapping[str, float]) -> Adoption:
    path = found.features[name]
    try:
        features = read_any_features(path)
        corners, facts, notes = _corners(features, found.patches.get(name))
    except InputError as error:
        return Adoption(slide=name, path=path, problem=" ".join(error.problems))
    if isinstance(features.features, H5Rows):
        features.features.close()
    tile_px, side = settings.tile_px or facts.get("tile_px"), facts.get("tile_side")
    mpp, source, problem = _tile_mpp(name, (tile_px, side), facts, settings, listed)
    return Adoption(
        slide=name, path=path, corners=corners, dim=features.dim, tile_px=tile_px, side=side, mpp=mpp,
        mpp_source=source, problem=problem, notes=notes, content=features.content,
    )  # fmt: skip


def _corners(features: Features, patches: Path | None) -> tuple[Path | None, Mapping[str, Any], tuple[str, ...]]:
    """Find the tile coordinates and attributes, with notes: in the features, else in a patches file."""
    if patches is None or "tile_px" in features.attributes:
        return None, features.attributes, features.notes
    grid = read_patch_grid(patches)
    stored = grid.stored
    if stored is not None and len(stored) != len(features):
        raise InputError(
            f"'{patches}' has '{len(stored)}' tiles, the features of that slide '{len(features)}'. "
            "Give folders of one run."
        )
    own = stored_corners(features)
    if stored is not None and own is not None and not bool((own == stored).all()):
        raise InputError(
            f"'{patches}' has its tiles elsewhere than the features of that slide. Give folders of one run."
        )
    is_other = features.coords is None or grid.corners is None or not bool((features.coords == grid.corners).all())
    return (patches if is_other else None), grid.attributes, grid.notes


def _tile_mpp(
    name: str,
    sides: tuple[int | None, int | None],
    facts: Mapping[str, Any],
    settings: AdoptionSettings,
    listed: Mapping[str, float],
) -> tuple[float | None, str, str]:
    """Determine microns per pixel of a tile, their source, and a contradiction."""
    tile_px, side = sides
    scale = side / tile_px if side and tile_px else None
    known = [  # what a person says of a slide wins, as where slides are read
        ("the list", listed.get(name)),
        ("the slide", settings.slide_mpps.get(name)),
        ("read.mpp", settings.slide_mpp),
    ]
    of_slide = [(value * scale, source) for source, value in known if value and scale]
    magnification = facts.get("target_magnification")
    nominal = _NOMINAL_UM / magnification if isinstance(magnification, int | float) and magnification > 0 else None
    if settings.tile_mpp:
        if of_slide and not math.isclose(settings.tile_mpp, of_slide[0][0], rel_tol=_TOLERANCE):
            return settings.tile_mpp, "", (
                f"slide '{name}': tiles.mpp is '{settings.tile_mpp:g}', but by {of_slide[0][1]} its tiles of {tile_px} "
                f"px have {of_slide[0][0]:.3g} microns per pixel. Leave tiles.mpp out, or correct it"
                f"{_reduction_hint(of_slide[0][0], settings.tile_mpp, tile_px)}."
            )  # fmt: skip
        return settings.tile_mpp, "tiles.mpp", ""
    if facts.get("mpp"):
        found = float(facts["mpp"])
        if of_slide and not math.isclose(found, of_slide[0][0], rel_tol=_TOLERANCE):
            return (
                found,
                "",
                (
                    f"slide '{name}': its features say {found:g} microns per pixel of a tile, by {of_slide[0][1]} its "
                    f"tiles of {tile_px} px have {of_slide[0][0]:.3g}. Correct which is wrong, or state tiles.mpp."
                ),
            )
        return found, "the file", ""
    if of_slide:
        return round(of_slide[0][0], 6), of_slide[0][1], ""
    return nominal, f"the magnification, {magnification:g}x" if nominal else "", ""


def _reduction_hint(found: float, stated: float, tile_px: int | None) -> str:
    """Suggest that tiles were reduced before they were encoded, which CLAM does not write down."""
    times = round(stated / found)
    if tile_px is None or times < 2 or not math.isclose(stated, times * found, rel_tol=_TOLERANCE):
        return ""
    return f"; if CLAM reduced them {times}-fold (custom_downsample), add tiles.tile_px={tile_px // times}"


def _inferred(adoptions: Sequence[Adoption]) -> list[str]:
    """Tell what was inferred from grids, once for all slides that share it."""
    counts = Counter(note for each in adoptions for note in each.notes)
    return [f"Of {count} slides: {note}" for note, count in counts.most_common(_NUM_CHECKED)]


def _missing_settings(found: ForeignFolder, encoder: str | None, adoptions: Sequence[Adoption]) -> list[str]:
    """List settings that neither files nor user state."""
    unknown = [each for each in adoptions if each.mpp is None and not each.problem]
    without_side = any(each.side is None for each in unknown)
    asked = [] if encoder else ["the encoder (encoder.name=resnet50, uni, conch, plip, or any name)"]
    if unknown:
        other = "" if without_side else ", or at level 0 (read.mpp=0.25), or the slides (data.root=FOLDER)"
        asked.append(f"the microns per pixel of a tile (tiles.mpp=0.5){other}")
    if not asked:
        return []
    return [f"{found.program} does not write down {' nor '.join(asked)}. Add it to the command."]


def _check_sample(adoptions: Sequence[Adoption], check: Check) -> list[ReencodingCheck]:
    """Check a few evenly spaced slides by encoding tiles again."""
    full = [each for each in adoptions if each.side and each.tile_px]
    step = max(1, len(full) // _NUM_CHECKED)
    found = (check(each) for each in full[::step][:_NUM_CHECKED])
    return [each for each in found if each]


def _attributes(found: ForeignFolder, each: Adoption, encoder: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {
        "origin": found.program,
        "encoder": dict(encoder),
        "mpp": each.mpp,
        "mpp_source": each.mpp_source,
        "tile_px": each.tile_px,
        "tile_side": each.side,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _sources(adoptions: Sequence[Adoption]) -> list[str]:
    sources: dict[str, list[float]] = {}
    for each in adoptions:
        sources.setdefault(each.mpp_source, []).append(each.mpp or 0.0)
    lines = []
    for source, values in sources.items():
        low, high = min(values), max(values)
        span = f"{low:.3g}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.3g} to {high:.3g}"
        lines.append(f"Microns per pixel of {len(values)} slides' tiles by {source}: {span}.")
    return lines


def _check_summary(checked: Sequence[ReencodingCheck]) -> str:
    if not checked:
        return "Not checked by encoding tiles again: that takes the slides (data.root) and the encoder (encoder.name)."
    lowest = min(each.cosine for each in checked)
    return f"Tiles of {len(checked)} slides encoded again are alike: lowest cosine {lowest:.4f}."


def _refuse(problems: Sequence[str]) -> None:
    if len(problems) > _MAX_PROBLEMS:
        problems = [*problems[:_MAX_PROBLEMS], f"'{len(problems)}' problems in all."]
    if problems:
        raise DataError(problems)
