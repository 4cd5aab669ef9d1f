"""A CSV of slides to classify: their files, and their microns per pixel where stated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from pipelines.wsi.cohort.csv_table import Row, SlideTable, read_table, refuse
from vision_core.errors import DataError
from vision_core.slides.identity import identity, is_end_of, same_files, slide_name, stands_for
from vision_core.slides.reading.listing import SlideListing, find_slides
from vision_core.slides.settings import MAX_MPP, MIN_MPP

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class SlideList:
    """The slides of a CSV.

    Attributes:
        slides: Their files in the order of the CSV, each once.
        mpps: Microns per pixel at level 0 by ``identity``, where stated.
    """

    slides: tuple[Path, ...]
    mpps: Mapping[str, float]


def read_slide_list(path: Path) -> SlideList:
    """Read the slide files that a CSV lists.

    The column ``slide`` has paths, absolute or relative to the folder of the CSV, or names of slides in or below that
    folder, or ends of their paths. Any instance of a DICOM slide stands for the slide. A missing file stays in the list
    and fails when it is opened.

    Raises:
        DataError: The CSV cannot be read, a name fits several files, or microns per pixel are wrong or contradict each
            other; the error lists all problems.
    """
    status = path.stat() if path.is_file() else None
    return _read(path, status and (status.st_mtime_ns, status.st_size))


def stated_mpps(path: Path | None) -> Mapping[str, float]:
    """Read microns per pixel by the slide's ``identity``; empty without a readable CSV."""
    if path is None or not path.is_file():
        return {}
    try:
        return read_slide_list(path).mpps
    except DataError:
        return {}


@lru_cache(maxsize=4)
def _read(path: Path, _state: object) -> SlideList:
    table = read_table(path, others=True)
    problems = list(table.problems)
    listing = find_slides(path.parent)
    rows = [(row, _file(row, listing, problems)) for row in table.rows]
    mpps = _mpps(table, rows, problems)
    refuse(path, problems)
    files = tuple(dict.fromkeys(file for _, file in rows))
    return SlideList(slides=files, mpps=mpps)


def _file(row: Row, listing: SlideListing, problems: list[str]) -> Path:
    text = row.value("slide")
    if not text:
        problems.append(f"row {row.number} names no slide. Complete or remove it.")
    file = listing.folder / text
    if file.is_file():
        return listing.representative(file)
    named = find_named(text, listing)
    if len(named) > 1:
        shown = ", ".join(f"'{each}'" for each in named[:_SHOWN])
        problems.append(f"row {row.number}: slide '{text}' fits {len(named)} files: {shown}. Give a path.")
    return named[0] if named else file


def find_named(text: str, listing: SlideListing) -> list[Path]:
    """Find the slides at whose path a name or the end of a path stands, with or without suffix.

    A DICOM slide is also known by any of its files, by its folder, and by its series.
    """
    name = slide_name(text)
    exact = [path for path in listing.slides if path.name == text]
    found = exact or [path for path in listing.slides if name and stands_for(name, path)]
    if found or not name:
        return found
    if name in listing.series:
        return [listing.series[name]]
    return [
        first
        for first, parts in listing.instances.items()
        if any(stands_for(name, part) for part in parts)
        or (first.parent != listing.folder and is_end_of(PurePosixPath(name).parts, first.parent.parts))
    ]


def _mpps(table: SlideTable, rows: list[tuple[Row, Path]], problems: list[str]) -> dict[str, float]:
    found: dict[str, tuple[float, int]] = {}
    for row, file in rows:
        text = row.value("mpp")
        if not text:
            continue
        try:
            mpp = float(text if table.separator == "," else text.replace(",", "."))
        except ValueError:
            mpp = float("nan")
        if not MIN_MPP <= mpp <= MAX_MPP:
            problems.append(
                f"row {row.number}: mpp '{text}' is not between {MIN_MPP} and {MAX_MPP:g} microns per pixel. "
                "Correct it, or leave it empty."
            )
            continue
        before, first = found.setdefault(identity(file), (mpp, row.number))
        if before != mpp:
            problems.append(
                f"rows {first} and {row.number} state '{before:g}' and '{mpp:g}' microns per pixel for '{file}'. "
                "Correct one of them."
            )
    return {known: mpp for known, (mpp, _) in found.items()}


def same_file_notes(files: Sequence[Path]) -> list[str]:
    """Name files that are there under several names, each of which counts as a slide of its own."""
    groups = [", ".join(f"'{path}'" for path in group[:_SHOWN]) for group in same_files(files)]
    return [f"THE SAME FILE under several names: {'; '.join(groups[:_SHOWN])}."] if groups else []
