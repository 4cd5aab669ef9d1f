"""A CSV that lists slides to be classified: where their files are, and how many microns a pixel covers where known."""

from collections.abc import Mapping
from pathlib import Path

from pipelines.wsi.cohort.csv_table import Row, SlideTable, read_table, refuse
from pipelines.wsi.cohort.labels import slide_name
from vision_core.errors import DataError
from vision_core.slides.reading.listing import list_slides
from vision_core.slides.settings import LARGEST_MPP, LEAST_MPP


def listed_slides(path: Path) -> list[Path]:
    """The files of a list, in its order.

    The column ``slide`` has paths, absolute or from the folder of the list, or names of slides in or below that folder.
    A file that is not there stays in the list, and fails when its turn comes.

    Raises:
        DataError: The list cannot be read, or a name fits several files.
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
    """Microns per pixel by name of the slide; none without a readable list."""
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
        told = ", ".join(f"'{each}'" for each in named[:5])
        problems.append(f"row {row.number}: slide '{text}' fits {len(named)} files: {told}. Give a path.")
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
        if LEAST_MPP <= mpp <= LARGEST_MPP:
            found[slide_name(Path(row.value("slide")).name)] = mpp
        else:
            problems.append(
                f"row {row.number}: mpp '{text}' is not between {LEAST_MPP} and {LARGEST_MPP:g} microns per pixel. "
                "Correct it, or leave it empty."
            )
    return found
