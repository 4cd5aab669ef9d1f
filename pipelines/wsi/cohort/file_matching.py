"""Which file belongs to which labelled slide: by exact names, never by parts of them."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.wsi.cohort.csv_table import refuse
from pipelines.wsi.cohort.labels import LabelledSlide, Labels, slide_name, tcga_case
from vision_core.errors import DataError
from vision_core.slides.features.adopted import ADOPTED
from vision_core.slides.features.files import FEATURE_SUFFIXES

NUM_EXAMPLES = 5

_MOST_HINTS = 50  # a search through all files each


@dataclass(frozen=True, kw_only=True)
class SlideRecord:
    """One labelled slide with its file; a bag.

    Attributes:
        slide: Name of the slide: that of its file.
        patient: Whose it is.
        label: Index into the classes.
        path: Its file, of the slide or of its features.
        mpp: Microns per pixel at level 0 by the list, or None.
        place: Index of its row in the list; the slides of a case share it.
    """

    slide: str
    patient: str
    label: int
    path: Path
    mpp: float | None
    place: int


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Records in the order of the list, and what was left out."""

    records: tuple[SlideRecord, ...]
    notes: tuple[str, ...]


def list_features(folder: Path) -> list[Path]:
    """The feature files below ``folder``, sorted: ``.h5``, ``.pt``, ``.npy``, and what ``adopt`` has written.

    Raises:
        DataError: There is none, or no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"'{folder}' is no folder. Set data.features to the folder of feature files.")
    files = [path for path in folder.rglob("*") if not _is_hidden(path.relative_to(folder)) and path.is_file()]
    found = sorted(path for path in files if path.suffix.lower() in FEATURE_SUFFIXES or path.name.endswith(ADOPTED))
    if not found:
        suffixes = ", ".join(sorted({path.suffix or path.name for path in files})[:NUM_EXAMPLES]) or "nothing"
        raise DataError(
            f"'{folder}' holds no feature files (.h5, .pt, .npy); it holds {suffixes}. Correct data.features, or make "
            "them: python -m pipelines.wsi features."
        )
    return found


def match_files(labels: Labels, paths: Iterable[Path], on_missing: Literal["refuse", "drop"]) -> Matched:
    """The file of every labelled slide.

    A row matches the file of its full name, or, where it is a TCGA case (12 characters), all files of that case; a
    TCGA slide may also leave out what follows the first dot.

    Args:
        labels: The list.
        paths: Files of slides or of features.
        on_missing: What to do about a row without a file and a file without a row: refuse, or leave them out and say
            so.

    Raises:
        DataError: Rows or files are alone, or a name fits more than one: all of it, rows with their numbers.
    """
    files = _Files(paths)
    problems: list[str] = []
    records: list[SlideRecord] = []
    missing: list[LabelledSlide] = []
    for place, slide in enumerate(labels.slides):
        names = files.names_of(slide, problems)
        if not names:
            missing.append(slide)
        records += [_record(slide, place, name, files, problems) for name in names]
    _refuse_shared(records, labels, problems)
    alone = sorted(set(files.by_name) - {record.slide for record in records})
    if not records and not problems:
        raise DataError(_nothing_fits(labels, sorted(files.by_name)))
    notes = _told(missing, alone)
    if on_missing == "refuse":
        problems += [
            f"row {slide.row}: slide '{slide.slide}' has no file{files.hint(slide.slide)}" for slide in missing
        ]
        problems += _alone_problems(alone)
        notes = []
    refuse(labels.path, problems)
    return Matched(records=tuple(records), notes=tuple(notes))


class _Files:
    """Files by the name of their slide."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.by_name: dict[str, list[Path]] = {}
        self._of_case: dict[str, list[str]] = {}
        self._of_barcode: dict[str, list[str]] = {}
        for path in paths:
            self.by_name.setdefault(_file_slide(path), []).append(path)
        for name in self.by_name:
            if case := tcga_case(name):
                self._of_case.setdefault(case, []).append(name)
                self._of_barcode.setdefault(name.partition(".")[0], []).append(name)

    def names_of(self, slide: LabelledSlide, problems: list[str]) -> list[str]:
        """Full names of the files that a row stands for."""
        if slide.slide in self.by_name:
            return [slide.slide]
        case = tcga_case(slide.slide)
        if case == slide.slide:
            return sorted(self._of_case.get(case, []))
        names = sorted(self._of_barcode.get(slide.slide, [])) if case else []
        if len(names) > 1:
            told = ", ".join(names[:NUM_EXAMPLES])
            problems.append(
                f"row {slide.row}: slide '{slide.slide}' fits '{len(names)}' files: {told}. Give full names."
            )
        return names

    def hint(self, name: str) -> str:
        """What may have been meant by a name without a file."""
        bare = name.lstrip("0").casefold()
        near = [known for known in self.by_name if known.lstrip("0").casefold() == bare]
        near = near or difflib.get_close_matches(name, self.by_name, n=1, cutoff=0.85)
        if not near:
            return ". Remove the row, or set data.on_missing=drop."
        why = " (spreadsheets drop leading zeros)" if near[0].endswith(name) and near[0] != name else ""
        return f"; did you mean '{near[0]}'{why}? Correct it, or set data.on_missing=drop."


def _file_slide(path: Path) -> str:
    return slide_name(path.name.removesuffix(ADOPTED))


def _record(slide: LabelledSlide, place: int, name: str, files: _Files, problems: list[str]) -> SlideRecord:
    paths = files.by_name[name]
    if len(paths) > 1:
        told = ", ".join(f"'{path}'" for path in paths[:NUM_EXAMPLES])
        problems.append(
            f"row {slide.row}: slide '{name}' is there more than once: {told}. Keep one, or name one folder in "
            "data.features or data.root."
        )
    return SlideRecord(slide=name, patient=slide.patient, label=slide.label, path=paths[0], mpp=slide.mpp, place=place)


def _refuse_shared(records: Sequence[SlideRecord], labels: Labels, problems: list[str]) -> None:
    first: dict[str, int] = {}
    for record in records:
        if (place := first.setdefault(record.slide, record.place)) != record.place:
            rows = labels.slides[place].row, labels.slides[record.place].row
            problems.append(
                f"rows {rows[0]} and {rows[1]} both stand for the file of '{record.slide}'. Keep one of them."
            )


def _told(missing: Sequence[LabelledSlide], alone: Sequence[str]) -> list[str]:
    counted: Mapping[str, Sequence[str]] = {
        "labelled slides without a file, left out": [slide.slide for slide in missing],
        "files without a label, left out": alone,
    }
    return [f"{what}: {len(names)} ({_some(names)})" for what, names in counted.items() if names]


def _alone_problems(alone: Sequence[str]) -> list[str]:
    if not alone:
        return []
    return [
        f"'{len(alone)}' files have no row: {_some(alone)}. Add rows for them, or set data.on_missing=drop to leave "
        "them out."
    ]


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NUM_EXAMPLES else ""
    return ", ".join(names[:NUM_EXAMPLES]) + more


def _nothing_fits(labels: Labels, names: Sequence[str]) -> str:
    listed = _some([slide.slide for slide in labels.slides])
    return (
        f"'{labels.path}': none of its '{len(labels.slides)}' slides ({listed}) has a file; there are "
        f"'{len(names)}' files, of '{_some(names)}'. Correct data.labels, data.root or data.features."
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
