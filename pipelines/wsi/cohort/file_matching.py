"""Files of labelled slides, matched by exact names, never by parts of names."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.wsi.cohort.csv_table import refuse
from pipelines.wsi.cohort.labels import LabelledSlide, Labels, slide_name, tcga_case
from vision_core.errors import DataError
from vision_core.slides.features.adopted import ADOPTED_SUFFIX
from vision_core.slides.features.files import FEATURE_SUFFIXES

NUM_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class SlideRecord:
    """One labelled slide with its file; a bag.

    Attributes:
        slide: Name of the slide, taken from its file.
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


def match_files(labels: Labels, paths: Iterable[Path], on_missing: Literal["refuse", "drop"]) -> MatchedSlides:
    """Match every labelled slide with its file.

    A row matches the file of its full name. A TCGA case (12 characters) matches all files of the case, and the name of
    a TCGA slide may end before its first dot.

    Args:
        labels: The rows of the CSV.
        paths: Files of slides or of features.
        on_missing: ``refuse`` rows without a file and files without a row, or ``drop`` them with a note.

    Raises:
        DataError: Rows without files, files without rows, or ambiguous names; the error names all of them.
    """
    files = _FilesBySlide(paths)
    problems: list[str] = []
    records: list[SlideRecord] = []
    missing: list[LabelledSlide] = []
    for place, slide in enumerate(labels.slides):
        names = files.names_of(slide, problems)
        if not names:
            missing.append(slide)
        records += [_record(slide, place, name, files, problems) for name in names]
    _refuse_shared(records, labels, problems)
    unlabelled = sorted(set(files.by_name) - {record.slide for record in records})
    if not records and not problems:
        raise DataError(
            f"'{labels.path}': none of its '{len(labels.slides)}' slides ({_examples(labels.slides)}) has a file; "
            f"there are '{len(files.by_name)}' files, of '{_examples(sorted(files.by_name))}'. Correct data.labels, "
            "data.root or data.features."
        )
    notes = []
    if on_missing == "drop":
        dropped: Mapping[str, Sequence[LabelledSlide | str]] = {
            "labelled slides without a file, left out": missing,
            "files without a label, left out": unlabelled,
        }
        notes = [f"{what}: {len(names)} ({_examples(names)})" for what, names in dropped.items() if names]
    else:
        problems += [
            f"row {slide.row}: slide '{slide.slide}' has no file{files.hint(slide.slide)}" for slide in missing
        ]
        if unlabelled:
            problems.append(
                f"'{len(unlabelled)}' files have no row: {_examples(unlabelled)}. Add rows for them, or set "
                "data.on_missing=drop to leave them out."
            )
    refuse(labels.path, problems)
    return MatchedSlides(records=tuple(records), notes=tuple(notes))


class _FilesBySlide:
    """Files by the name of their slide, its TCGA case and its TCGA barcode."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.by_name: dict[str, list[Path]] = {}
        self._of_case: dict[str, list[str]] = {}
        self._of_barcode: dict[str, list[str]] = {}
        for path in paths:
            self.by_name.setdefault(slide_name(path.name.removesuffix(ADOPTED_SUFFIX)), []).append(path)
        for name in self.by_name:
            if case := tcga_case(name):
                self._of_case.setdefault(case, []).append(name)
                self._of_barcode.setdefault(name.partition(".")[0], []).append(name)

    def names_of(self, slide: LabelledSlide, problems: list[str]) -> list[str]:
        """Return the full names of the files that a row matches."""
        if slide.slide in self.by_name:
            return [slide.slide]
        case = tcga_case(slide.slide)
        if case == slide.slide:
            return sorted(self._of_case.get(case, []))
        names = sorted(self._of_barcode.get(slide.slide, [])) if case else []
        if len(names) > 1:
            listing = ", ".join(names[:NUM_EXAMPLES])
            problems.append(
                f"row {slide.row}: slide '{slide.slide}' fits '{len(names)}' files: {listing}. Give full names."
            )
        return names

    def hint(self, name: str) -> str:
        """Suggest a remedy for a name without a file."""
        bare = name.lstrip("0").casefold()
        near = [known for known in self.by_name if known.lstrip("0").casefold() == bare]
        near = near or difflib.get_close_matches(name, self.by_name, n=1, cutoff=0.85)
        if not near:
            return ". Remove the row, or set data.on_missing=drop."
        why = " (spreadsheets drop leading zeros)" if near[0].endswith(name) and near[0] != name else ""
        return f"; did you mean '{near[0]}'{why}? Correct it, or set data.on_missing=drop."


def _record(slide: LabelledSlide, place: int, name: str, files: _FilesBySlide, problems: list[str]) -> SlideRecord:
    paths = files.by_name[name]
    if len(paths) > 1:
        listing = ", ".join(f"'{path}'" for path in paths[:NUM_EXAMPLES])
        problems.append(
            f"row {slide.row}: slide '{name}' is there more than once: {listing}. Keep one, or name one folder in "
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


def _examples(slides: Sequence[LabelledSlide | str]) -> str:
    names = [slide if isinstance(slide, str) else slide.slide for slide in slides[:NUM_EXAMPLES]]
    return ", ".join(names) + (", ..." if len(slides) > NUM_EXAMPLES else "")
