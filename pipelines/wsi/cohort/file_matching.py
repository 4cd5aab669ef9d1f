"""Files of labelled slides, matched by exact names or ends of paths, never by parts of names."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pipelines.wsi.cohort.csv_table import refuse
from pipelines.wsi.cohort.labels import LabelledSlide, Labels, tcga_case
from pipelines.wsi.cohort.slide_list import find_named
from vision_core.errors import DataError
from vision_core.slides.features.adopted import ADOPTED_SUFFIX
from vision_core.slides.features.files import FEATURE_SUFFIXES
from vision_core.slides.identity import is_end_of, slide_name
from vision_core.slides.reading.listing import SlideListing

NUM_EXAMPLES = 5
_WITHOUT_FILE = ". Remove the row, or set data.on_missing=drop."
_MOST_HINTS = 50  # a search through all files for each; more rows are not shown either


@dataclass(frozen=True, kw_only=True)
class SlideRecord:
    """One labelled slide with its file; a bag.

    Attributes:
        slide: Name of the slide, taken from its file; with the folders that the CSV states.
        patient: Identifier of the patient.
        label: Index into the classes.
        path: File of the slide or of its features.
        mpp: Microns per pixel at level 0 as the CSV states, or None.
        place: Index of its row in the CSV; the slides of a TCGA case share it.
    """

    slide: str
    patient: str
    label: int
    path: Path
    mpp: float | None
    place: int


@dataclass(frozen=True, kw_only=True)
class MatchedSlides:
    """Records in the order of the CSV, and notes on slides and files left out."""

    records: tuple[SlideRecord, ...]
    notes: tuple[str, ...]


def list_features(folder: Path) -> list[Path]:
    """List the feature files below a folder, sorted.

    These are ``.h5``, ``.pt`` and ``.npy`` files, and those that ``adopt`` wrote.

    Raises:
        DataError: There is none, or no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"'{folder}' is no folder. Set data.features to the folder of feature files.")
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    found = sorted(
        path for path in files if path.suffix.lower() in FEATURE_SUFFIXES or path.name.endswith(ADOPTED_SUFFIX)
    )
    if not found:
        suffixes = ", ".join(sorted({path.suffix or path.name for path in files})[:NUM_EXAMPLES]) or "nothing"
        raise DataError(
            f"'{folder}' holds no feature files (.h5, .pt, .npy); it holds {suffixes}. Correct data.features, or make "
            "them: python -m pipelines.wsi features."
        )
    return found


def match_files(
    labels: Labels, files: Iterable[Path] | SlideListing, on_missing: Literal["refuse", "drop"]
) -> MatchedSlides:
    """Match every labelled slide with its file.

    A row matches the file of its full name, or at whose path it stands where it gives the end of one; in a listing with
    DICOM slides, any file of a slide, its folder or its series. A TCGA case (12 characters) matches all files of the
    case, and the name of a TCGA slide may end before its first dot.

    Args:
        labels: The rows of the CSV.
        files: Files of slides or of features.
        on_missing: ``refuse`` rows without a file and files without a row, or ``drop`` them with a note.

    Raises:
        DataError: Rows without files, files without rows, or ambiguous names; the error names all of them.
    """
    matched, problems = match_all(labels, files, on_missing)
    refuse(labels.path, problems)
    return matched


def match_all(
    labels: Labels, files: Iterable[Path] | SlideListing, on_missing: Literal["refuse", "drop"]
) -> tuple[MatchedSlides, list[str]]:
    """Match as ``match_files`` does; return what could be matched, and the problems."""
    known = _FilesBySlide(files)
    problems: list[str] = []
    records: list[SlideRecord] = []
    missing: list[LabelledSlide] = []
    for place, slide in enumerate(labels.slides):
        found = known.files_of(slide, problems)
        if not found:
            missing.append(slide)
        records += [_record(slide, place, path, known) for path in found]
    _refuse_shared(records, labels, problems)
    taken = {record.path for record in records}
    unlabelled = sorted(known.name(path) for path in known.paths if path not in taken)
    if not records and not problems:
        problem = (
            f"none of its '{len(labels.slides)}' slides ({_examples(labels.slides)}) has a file; there are "
            f"'{len(known.paths)}' files, of '{_examples(unlabelled)}'. Correct data.labels, data.root or "
            "data.features."
        )
        return MatchedSlides(records=(), notes=()), [problem]
    notes = []
    if on_missing == "drop":
        dropped: Mapping[str, Sequence[LabelledSlide | str]] = {
            "labelled slides without a file, left out": missing,
            "files without a label, left out": unlabelled,
        }
        notes = [f"{what}: {len(names)} ({_examples(names)})" for what, names in dropped.items() if names]
    else:
        problems += [
            f"row {slide.row}: slide '{slide.slide}' has no file"
            + (known.hint(slide.slide) if place < _MOST_HINTS else _WITHOUT_FILE)
            for place, slide in enumerate(missing)
        ]
        if unlabelled:
            problems.append(
                f"'{len(unlabelled)}' files have no row: {_examples(unlabelled)}. Add rows for them, or set "
                "data.on_missing=drop to leave them out."
            )
    return MatchedSlides(records=tuple(records), notes=tuple(notes)), problems


class _FilesBySlide:
    """Files by the name of their slide, its TCGA case and its TCGA barcode."""

    def __init__(self, files: Iterable[Path] | SlideListing) -> None:
        self._listing = files if isinstance(files, SlideListing) else None
        self.paths = list(files.slides if isinstance(files, SlideListing) else files)
        self.by_name: dict[str, list[Path]] = {}
        self._of_case: dict[str, list[Path]] = {}
        self._of_barcode: dict[str, list[Path]] = {}
        for path in self.paths:
            name = self.name(path)
            self.by_name.setdefault(name, []).append(path)
            if case := tcga_case(name):
                self._of_case.setdefault(case, []).append(path)
                self._of_barcode.setdefault(name.partition(".")[0], []).append(path)

    def name(self, path: Path) -> str:
        """Return the name of the slide of a file; features of ``x.svs`` may be called ``x.svs.h5``."""
        name = slide_name(path.name.removesuffix(ADOPTED_SUFFIX))
        return name if self._listing else slide_name(name)

    def files_of(self, slide: LabelledSlide, problems: list[str]) -> list[Path]:
        """Return the files that a row matches."""
        *folders, name = PurePosixPath(slide.slide or ".").parts or ("",)
        found = self.by_name.get(name, [])
        found = [path for path in found if is_end_of(folders, path.absolute().parent.parts)] if folders else found
        if not found and self._listing:
            found = find_named(slide.slide, self._listing)
        if len(found) > 1:
            found = [path for path in found if self._is_called(path, slide.file)] or found
        if len(found) > 1:
            problems.append(_ambiguity(slide, slide.slide, found))
            return found[:1]
        return found or self._of_tcga(slide, problems)

    def hint(self, name: str) -> str:
        """Suggest a remedy for a name without a file."""
        bare = name.lstrip("0").casefold()
        near = [known for known in self.by_name if known.lstrip("0").casefold() == bare]
        near = near or difflib.get_close_matches(name, self.by_name, n=1, cutoff=0.85)
        if not near:
            return _WITHOUT_FILE
        why = " (spreadsheets drop leading zeros)" if near[0].endswith(name) and near[0] != name else ""
        return f"; did you mean '{near[0]}'{why}? Correct it, or set data.on_missing=drop."

    def _is_called(self, path: Path, file: str) -> bool:
        return file in {path.name, slide_name(path.name)}

    def _of_tcga(self, slide: LabelledSlide, problems: list[str]) -> list[Path]:
        case = tcga_case(slide.slide)
        if case == slide.slide:
            names = Counter(map(self.name, self._of_case.get(case, [])))
            problems += [
                _ambiguity(slide, name, self.by_name[name]) for name, count in sorted(names.items()) if count > 1
            ]
            return [self.by_name[name][0] for name in sorted(names)]
        found = sorted(self._of_barcode.get(slide.slide, []), key=self.name) if case else []
        if len(found) > 1:
            listing = ", ".join(self.name(path) for path in found[:NUM_EXAMPLES])
            problems.append(
                f"row {slide.row}: slide '{slide.slide}' fits '{len(found)}' files: {listing}. Give full names."
            )
        return found


def _ambiguity(slide: LabelledSlide, name: str, paths: Sequence[Path]) -> str:
    listing = ", ".join(f"'{path}'" for path in paths[:NUM_EXAMPLES])
    return (
        f"row {slide.row}: slide '{name}' is there more than once: {listing}. Keep one, or give the end of its path in "
        "the list, with its folder."
    )


def _record(slide: LabelledSlide, place: int, path: Path, files: _FilesBySlide) -> SlideRecord:
    name = files.name(path)
    stated = PurePosixPath(slide.slide)
    is_path = len(stated.parts) > 1 and stated.name == name
    return SlideRecord(
        slide=slide.slide if is_path or len(files.by_name[name]) > 1 else name,
        patient=slide.patient,
        label=slide.label,
        path=path,
        mpp=slide.mpp,
        place=place,
    )


def _refuse_shared(records: Sequence[SlideRecord], labels: Labels, problems: list[str]) -> None:
    first: dict[Path, int] = {}
    for record in records:
        if (place := first.setdefault(record.path, record.place)) != record.place:
            rows = labels.slides[place].row, labels.slides[record.place].row
            problems.append(
                f"rows {rows[0]} and {rows[1]} both stand for the file of '{record.slide}'. Keep one of them."
            )


def _examples(slides: Sequence[LabelledSlide | str]) -> str:
    names = [slide if isinstance(slide, str) else slide.slide for slide in slides[:NUM_EXAMPLES]]
    return ", ".join(names) + (", ..." if len(slides) > NUM_EXAMPLES else "")
