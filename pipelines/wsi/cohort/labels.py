"""The reader of labelled slide lists.

Our CSVs have ``slide,label`` and where known ``patient``, ``split``, ``fold``, ``mpp``; those of the two published code
versions have ``id,label`` without header, or ``ID,Label[,Split]``.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.wsi.cohort.csv_table import Row, SlideTable, read_table, refuse
from vision_core.errors import ConfigError
from vision_core.evaluation.class_names import (
    find_joined,
    find_variants,
    is_number,
    joined_words,
    label_name,
    near_name,
)
from vision_core.slides.identity import slide_name
from vision_core.slides.settings import MAX_MPP, MIN_MPP

_FIRST_CLASSES = ("normal", "idc")  # class 0 in published work, against the alphabet
_TCGA_CASE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Za-z0-9])")


@dataclass(frozen=True, kw_only=True)
class LabelledSlide:
    """Row of the CSV: a slide, or a TCGA case with all its slides.

    Attributes:
        row: Row number in the file.
        slide: Name without suffix; with the folders that the list states, where it gives the end of a path.
        patient: Identifier of the patient: the column, else the TCGA case, else the slide itself.
        label: Index into the classes.
        split: Cell of the column ``split`` in lower case, or empty.
        fold: Number of the fold from 0, or None.
        mpp: Microns per pixel at level 0, or None.
        file: Name of the file, where the list states one with its suffix.
    """

    row: int
    slide: str
    patient: str
    label: int
    split: str = ""
    fold: int | None = None
    mpp: float | None = None
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Checked rows of a CSV of labelled slides.

    Attributes:
        path: The CSV.
        slides: Its rows, in order.
        classes: Names in the order of the model's outputs.
        columns: Our names of its columns.
        notes: Notes to the user on how it was read.
    """

    path: Path
    slides: tuple[LabelledSlide, ...]
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...]


def read_labels(path: Path, classes: Sequence[str] = (), *, others: bool = False) -> Labels:
    """Read and check a CSV of labelled slides.

    Args:
        path: CSV with comma, semicolon or tab.
        classes: Names in the order of the model's outputs; labels may also be their indices. Empty: the labels of the
            CSV, in alphabetical or numerical order, ``normal`` first.
        others: Ignore unknown columns, as CSVs of other programs have them.

    Raises:
        DataError: It cannot be read or has problems; the error lists all of them with their row numbers.
        ConfigError: ``classes`` are fewer than two, or one is named twice.
    """
    labels, problems = examine_labels(path, classes, others=others)
    refuse(path, problems)
    return labels


def examine_labels(path: Path, classes: Sequence[str] = (), *, others: bool = False) -> tuple[Labels, list[str]]:
    """Read as ``read_labels`` does; return all rows, and the problems. A row without a sound label has the label -1.

    Raises:
        DataError: It cannot be read, or has no columns ``slide`` and ``label``.
        ConfigError: As ``read_labels``.
    """
    _check_classes(classes)
    table = read_table(path, others=others)
    problems = list(table.problems)
    if "slide" in table.columns and "label" not in table.columns:
        problems.append(f"row 1: no column 'label'; there is '{', '.join(table.columns)}'. Add it.")
    if problems and not {"slide", "label"} <= set(table.columns):
        refuse(path, problems)
    coding = _coding(table, classes, problems)
    slides = [_slide(row, table, coding, problems) for row in table.rows]
    _refuse_repeated(slides, problems)
    counts = Counter(slide.label for slide in slides)
    sizes = ", ".join(f"{index} is '{name}' ({counts[index]})" for index, name in enumerate(coding.classes))
    class_note = f"classes and their numbers of slides: {sizes}"
    labels = Labels(
        path=path,
        slides=tuple(slides),
        classes=coding.classes,
        columns=table.columns,
        notes=(*coding.notes, class_note, *_patient_notes(slides, table)),
    )
    return labels, problems


def tcga_case(name: str) -> str | None:
    """Return the case of a TCGA barcode (its first 12 characters), else None."""
    match = _TCGA_CASE.match(name)
    return match.group() if match else None


@dataclass(frozen=True, kw_only=True)
class _ClassCoding:
    """Class names, and the class index of each label text."""

    classes: tuple[str, ...]
    indices: dict[str, int]
    notes: tuple[str, ...] = ()


def _check_classes(classes: Sequence[str]) -> None:
    if len(classes) == 1:
        raise ConfigError(f"data.classes has '{classes[0]}' alone. Name two classes or more, or leave it empty.")
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    if repeated:
        raise ConfigError(f"data.classes names '{repeated[0]}' more than once. Give each class once.")


def _coding(table: SlideTable, classes: Sequence[str], problems: list[str]) -> _ClassCoding:
    texts = list(dict.fromkeys(_label(row, classes) for row in table.rows if _label(row, classes)))
    if not classes:
        return _coding_from_labels(table, texts, problems)
    indices = {name: index for index, name in enumerate(classes)}
    numbers = {str(index): index for index in range(len(classes))}
    if texts and set(texts) <= set(numbers) and not set(texts) & set(indices):
        listing = ", ".join(f"{text} is '{classes[numbers[text]]}'" for text in sorted(texts))
        return _ClassCoding(
            classes=tuple(classes), indices=numbers, notes=(f"labels and the classes they name: {listing}",)
        )
    return _ClassCoding(classes=tuple(classes), indices=indices)


def _coding_from_labels(table: SlideTable, texts: Sequence[str], problems: list[str]) -> _ClassCoding:
    """Derive the classes from the labels themselves."""
    numbers = [text for text in texts if is_number(text)]
    words = [text for text in texts if text not in numbers]
    if numbers and words:
        rare = min((numbers, words), key=lambda kind: sum(_label(row) in kind for row in table.rows))
        other = words[0] if rare is numbers else numbers[0]
        problems += [
            f"row {row.number}: label '{_label(row)}' among labels such as '{other}': numbers and words. Use one kind."
            for row in table.rows
            if _label(row) in rare
        ]
    for number in numbers:
        if not float(number).is_integer():
            row = next(row.number for row in table.rows if _label(row) == number)
            problems.append(f"row {row}: label '{number}' is no class. Give a name or a whole number.")
    for before, word in find_variants(words):
        row = next(row.number for row in table.rows if _label(row) == word)
        problems.append(
            f"row {row}: label '{word}' differs from '{before}' in case, blanks or hyphens alone. Write them alike, or "
            "name both in data.classes."
        )
    for word, parts in find_joined(texts):
        row = next(row.number for row in table.rows if _label(row) == word)
        problems.append(f"row {row}: label '{word}', {joined_words(parts)}")
    if len(texts) == 1:
        problems.append(f"every label is '{texts[0]}'. Two classes are needed; or name them in data.classes.")
    ordered = [
        *sorted(numbers, key=float),
        *sorted(words, key=lambda name: (name.casefold() not in _FIRST_CLASSES, name)),
    ]
    return _ClassCoding(classes=tuple(ordered), indices={name: index for index, name in enumerate(ordered)})


def _label(row: Row, classes: Sequence[str] = ()) -> str:
    """Read the name of a label; ``1.0`` and ``01`` become ``1``."""
    return label_name(row.cells.get("label", ""), classes)


def _slide(row: Row, table: SlideTable, coding: _ClassCoding, problems: list[str]) -> LabelledSlide:
    name = slide_name(row.value("slide"))
    if not name:
        problems.append(f"row {row.number} names no slide. Complete or remove it.")
    patient = row.value("patient")
    if "patient" in table.columns and not patient:
        problems.append(f"row {row.number}: slide '{name}' has no patient. Complete it: patients must not be divided.")
    return LabelledSlide(
        row=row.number,
        slide=name,
        patient=patient or tcga_case(PurePosixPath(name).name) or name,
        label=_label_index(row, name, coding, problems),
        split=row.value("split").casefold(),
        fold=_fold(row, table, problems),
        mpp=_mpp(row, table.separator, problems),
        file=PurePosixPath(row.value("slide").replace("\\", "/")).name,
    )


def _label_index(row: Row, name: str, coding: _ClassCoding, problems: list[str]) -> int:
    text = _label(row, coding.classes)
    if not text:
        found = row.cells.get("label", "")
        problems.append(f"row {row.number}: slide '{name}' has no label (found '{found}'). Complete or remove it.")
    elif text not in coding.indices:
        known, hint = ", ".join(coding.classes), near_name(text, coding.classes)
        hint = f" {hint}" if hint.startswith("Did") else ""
        problems.append(
            f"row {row.number}: label '{text}' is none of the classes '{known}'.{hint} Correct data.classes."
        )
    return coding.indices.get(text, -1)


def _fold(row: Row, table: SlideTable, problems: list[str]) -> int | None:
    if "fold" not in table.columns:
        return None
    text = re.sub(r"\.0*$", "", row.value("fold"))
    if text.isascii() and text.isdigit():
        return int(text)
    problems.append(f"row {row.number}: fold '{row.cells['fold']}' is not a number from 0 on. Correct it.")
    return None


def _mpp(row: Row, separator: str, problems: list[str]) -> float | None:
    text = row.value("mpp")
    if not text:
        return None
    text = text if separator == "," else text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if MIN_MPP <= value <= MAX_MPP:
        return value
    problems.append(
        f"row {row.number}: mpp '{row.cells['mpp']}' is not between {MIN_MPP} and {MAX_MPP:g} microns per pixel. "
        "Correct it, or leave it empty."
    )
    return None


def _refuse_repeated(slides: Sequence[LabelledSlide], problems: list[str]) -> None:
    first: dict[str, int] = {}
    for slide in slides:
        if slide.slide and (row := first.setdefault(slide.slide, slide.row)) != slide.row:
            problems.append(f"row {slide.row}: slide '{slide.slide}' stands in row {row} already. Keep one of them.")


def _patient_notes(slides: Sequence[LabelledSlide], table: SlideTable) -> list[str]:
    if "patient" in table.columns:
        return []
    if all(tcga_case(PurePosixPath(slide.slide).name) for slide in slides):
        return ["no column 'patient': the TCGA case of each slide is its patient"]
    return ["no column 'patient': every slide is taken for a patient of its own"]
