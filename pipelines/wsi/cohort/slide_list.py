"""A CSV of slides to classify: their files, and their microns per pixel where stated."""

from collections.abc import Mapping
from pathlib import Path

from pipelines.wsi.cohort.csv_table import Row, SlideTable, read_table, refuse
from pipelines.wsi.cohort.labels import slide_name
from vision_core.errors import DataError
from vision_core.slides.reading.listing import list_slides
from vision_core.slides.settings import MAX_MPP, MIN_MPP


def listed_slides(path: Path) -> list[Path]:
    """Return the slide files that a CSV lists, in its order.

    The column ``slide`` has paths, absolute or relative to the folder of the CSV, or names of slides in or below that
    folder. A missing file stays in the list and fails when it is opened.

    Raises:
        DataError: The CSV cannot be read, or a name fits several files.
    """
    table = read_table(path, others=True)
    problems = list(table.problems)
    known: dict[str, list[Path]] = {}
    for each in list_slides(path.parent):
        known.setdefault(slide_name(each.name), []).append(each)
    found = [_file(row, path.parent, known, problems) for row in table.rows]
    _mpps(table, problems)
    refuse(path, problems)
    return list(dict.fromkeys(found))


def stated_mpps(path: Path | None) -> Mapping[str, float]:
    """Read microns per pixel by slide name; empty without a readable CSV."""
    if path is None or not path.is_file():
        return {}
    try:
        return _mpps(read_table(path, others=True), [])
    except DataError:
        return {}


def _file(row: Row, folder: Path, known: Mapping[str, list[Path]], problems: list[str]) -> Path:
    text = row.value("slide")
    if not text:
        problems.append(f"row {row.number} names no slide. Complete or remove it.")
    file = folder / text
    if file.is_file():
        return file
    named = known.get(slide_name(file.name), []) if text == file.name else []
    if len(named) > 1:
        listing = ", ".join(f"'{each}'" for each in named[:5])
        problems.append(f"row {row.number}: slide '{text}' fits {len(named)} files: {listing}. Give a path.")
    return named[0] if named else file


def _mpps(table: SlideTable, problems: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in table.rows:
        text = row.value("mpp")
        if not text:
            continue
        try:
            mpp = float(text if table.separator == "," else text.replace(",", "."))
        except ValueError:
            mpp = float("nan")
        if MIN_MPP <= mpp <= MAX_MPP:
            found[slide_name(Path(row.value("slide")).name)] = mpp
        else:
            problems.append(
                f"row {row.number}: mpp '{text}' is not between {MIN_MPP} and {MAX_MPP:g} microns per pixel. "
                "Correct it, or leave it empty."
            )
    return found
