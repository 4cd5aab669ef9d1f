"""Reading of labelled images in all layouts: one index, checked classes, notes for the user."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.pretrain.data.checks.duplicates import listed, without
from pipelines.pretrain.data.checks.readable import OnItem, check_images
from pipelines.pretrain.data.formats.csv_lists import PARTS, labels_of_parts, note_missing, read_table
from pipelines.pretrain.data.formats.folders import classes_of_parts, read_folders
from pipelines.pretrain.data.formats.medmnist import read_medmnist
from pipelines.pretrain.data.formats.radimagenet import RADIMAGENET_CLASSES, radimagenet_classes, read_radimagenet
from pipelines.pretrain.data.index import (
    UNKNOWN,
    Entry,
    Images,
    index_files,
    patient_number,
)
from pipelines.pretrain.data_settings import PretrainData
from vision_core.console import Progress
from vision_core.dicom.reader import DicomFacts, inspect_dicom
from vision_core.errors import NUM_EXAMPLES, ConfigError, DataError, Findings, InputError, examples, first_problems
from vision_core.evaluation.class_names import clean_name, missing_value_problems, variant_problems, written_name
from vision_core.files import write_atomic
from vision_core.images.reading import is_image_name

__all__ = ["Images", "frozen_classes", "prepare_images", "read_classes", "read_images", "write_classes"]

_LARGE_IMBALANCE = 100
_LONG_CHECK = 2000  # images
_THREADS = 4


def prepare_images(data: PretrainData, split: str) -> Images:
    """Read one list and leave out unreadable images before the first step.

    So the order of a run follows from its seed alone, and a resumed run has the same bits.

    Raises:
        ConfigError: ``data.root`` is empty.
        DataError: As ``read_images``; or a file is corrupt and ``data.on_corrupt`` refuses it.
    """
    images = read_images(data, split)
    with _progress() as tell:
        checked = check_images(images, "decode" if data.on_corrupt == "skip" else "header", data.cache, tell)
    if checked.faults and data.on_corrupt == "refuse":
        more = [
            f"'{images.name}' has '{len(checked.faults)}' files that cannot be read. Set data.on_corrupt to 'skip'."
        ]
        raise DataError([*checked.faults[:NUM_EXAMPLES], *more])
    if not len(checked.sound):
        raise DataError(f"'{images.name}' has no image that can be read: {checked.faults[0]}")
    return _still_complete(images, checked.sound, data)


def read_images(data: PretrainData, split: str) -> Images:
    """Read the index of one list; no image is opened.

    Raises:
        ConfigError: ``data.root`` is empty.
        DataError: The layout is wrong, classes are missing or unknown, or files do not exist.
    """
    if data.root is None:
        raise ConfigError("data.root is empty. Give the folder of the data set.")
    frozen = frozen_classes(data)
    if data.format == "medmnist":
        images = read_medmnist(data.root, split, data.model_copy(update={"classes": frozen}))
        if absent := [images.classes[number] for number in np.flatnonzero(images.class_counts == 0)]:
            findings = Findings()
            _tell_absent(images.name, absent, len(images.classes), data, findings)
            _refuse(findings, images.name)
    else:
        images = _read_files(data, data.root, split, frozen)
    if data.leave_out:
        images = _still_complete(images, without(images, listed(data.leave_out)), data)
    return replace(images, notes=(*images.notes, *_imbalance(images)))


def frozen_classes(data: PretrainData) -> tuple[str, ...]:
    """Return the classes that the settings fix, if any.

    Raises:
        ConfigError: ``classes`` and ``class_list`` differ.
        DataError: As ``read_classes``.
    """
    listed = read_classes(data.class_list) if data.class_list else ()
    if listed and data.classes and listed != data.classes:
        raise ConfigError(f"data.classes and data.class_list '{data.class_list}' differ. Give one of them.")
    return listed or data.classes


def read_classes(path: Path) -> tuple[str, ...]:
    """Read the class names of a ``classes.json``, in the order of their numbers.

    Raises:
        DataError: The file does not exist or holds something else.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' is no class list that can be read. Give the classes.json of a run.") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"'{path}' should hold a list of class names. Give the classes.json of a run.")
    if len(set(names)) != len(names):
        raise DataError(f"'{path}' has a class twice. Give the classes.json of a run.")
    return tuple(names)


def write_classes(path: Path, classes: Sequence[str]) -> None:
    """Write a class list; the number of a class is its place."""
    write_atomic(path, json.dumps(list(classes), indent=1, ensure_ascii=False) + "\n")


def _imbalance(images: Images) -> tuple[str, ...]:
    """Warn where classes differ a hundredfold in size, with the weights that would balance them."""
    counts = images.class_counts
    present = counts[counts > 0]
    if len(present) < 2 or present.max() < _LARGE_IMBALANCE * present.min():
        return ()
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    total = int(counts.sum())
    heavy, light = (total / (len(present) * counts[number]) for number in (most, least))
    return (
        f"class '{images.classes[most]}' has {counts[most]} images, '{images.classes[least]}' has {counts[least]}: "
        f"they make {counts[most] / total:.4%} and {counts[least] / total:.4%} of the loss; equal classes would need "
        f"weights of {heavy:.3g} and {light:.3g} an image",
    )


@contextmanager
def _progress() -> Iterator[OnItem]:
    """Show a bar during long checks, as the first one of a million images."""
    bar: Progress | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if total < _LONG_CHECK:
            return
        bar = bar or Progress(total, "check images", "image", done - 1)
        bar.advance()

    try:
        yield tell
    finally:
        if bar:
            bar.close()


def _read_files(data: PretrainData, root: Path, split: str, frozen: tuple[str, ...]) -> Images:
    findings = Findings()
    name = f"{root.resolve().name}:{split}"
    entries, parts = _entries(data, root, split, findings)
    _refuse(findings, name)
    if not entries:
        raise DataError(f"'{name}' has no image. Correct data.root, data.split or data.format.")
    counts = Counter(entry.label for entry in entries)
    findings.refuse_all(missing_value_problems(counts, frozen, "images"))
    meant = {label: _name(label, frozen, is_cell=_is_list(data)) for label in counts}
    entries = [entry._replace(label=meant[entry.label]) for entry in entries]
    parts = {part: {_name(each, frozen, is_cell=_is_list(data)) for each in labels} for part, labels in parts.items()}
    every = set().union(*parts.values(), (entry.label for entry in entries))
    # Folders are numbered by their sorted names, as the released code does; a list may hold numbers.
    classes = frozen or tuple(sorted(every, key=_order if _is_list(data) else str))
    if not frozen and data.format != "radimagenet":  # whose own names are as they are
        findings.refuse_all(variant_problems(classes, "the lists" if _is_list(data) else "the folders"))
    _compare(parts, entries, (classes, split), data, findings)
    _refuse(findings, name)
    if data.format == "radimagenet" and len(classes) != RADIMAGENET_CLASSES:
        findings.note(f"{len(classes)} classes; the whole RadImageNet has {RADIMAGENET_CLASSES}")
    images = index_files(entries, classes, root, name, data.max_megapixels)
    images = _with_header_facts(images) if data.format == "dicom" else images
    return replace(images, notes=(*images.notes, *findings.notes))


def _entries(
    data: PretrainData, root: Path, split: str, findings: Findings
) -> tuple[list[Entry], Mapping[str, set[str]]]:
    """Read the images of a list, and the classes of all lists."""
    if data.format == "radimagenet":
        entries = read_radimagenet(root, split, findings, skip_missing=data.on_missing == "skip")
        return entries, radimagenet_classes(root, split)
    if _is_list(data):
        entries, missing = read_table(root, split, data.labels, findings)
        note_missing(missing, len(entries) + len(missing), findings, skip=data.on_missing == "skip")
        return entries, labels_of_parts(root, split, data.labels, PARTS)
    entries = read_folders(root, split, findings, at_any_depth=data.format == "dicom")
    return entries, classes_of_parts(root, split)


def _is_list(data: PretrainData) -> bool:
    return data.format == "csv" or (data.format == "dicom" and bool(data.labels))


def _name(label: str, classes: tuple[str, ...], *, is_cell: bool) -> str:
    """Read the name of a class; one that is the number of a class is replaced by its name."""
    if label not in classes:
        label = written_name(label) if is_cell else clean_name(label)
    is_number = label not in classes and label.isdecimal() and int(label) < len(classes)
    return classes[int(label)] if is_number else label


def _compare(
    parts: Mapping[str, set[str]],
    entries: Sequence[Entry],
    wanted: tuple[tuple[str, ...], str],
    data: PretrainData,
    findings: Findings,
) -> None:
    """Compare the classes of all lists with each other, and with those that are given."""
    classes, split = wanted
    here = {entry.label for entry in entries}
    strange = sorted(here - set(classes), key=_order)
    if strange:
        findings.refuse(
            f"'{split}' has '{len(strange)}' classes that are not among the {len(classes)} given: {examples(strange)}. "
            "Correct data.classes or data.class_list."
        )
    for part, names in {**parts, split: here}.items():
        absent = [name for name in classes if name not in names]
        if absent and not (part != split and strange):
            _tell_absent(part, absent, len(classes), data, findings)


def _tell_absent(part: str, absent: Sequence[str], total: int, data: PretrainData, findings: Findings) -> None:
    told = f"'{part}' lacks '{len(absent)}' of {total} classes: {examples(absent)}"
    if data.on_missing_class == "note":
        findings.note(told)
    else:
        findings.refuse(f"{told}. Complete it, or set data.on_missing_class to 'note'.")


def _still_complete(before: Images, after: Images, data: PretrainData) -> Images:
    """Refuse or note classes whose images were all left out; returns ``after``."""
    emptied = np.flatnonzero((before.class_counts > 0) & (after.class_counts == 0))
    if not len(emptied):
        return after
    findings, names = Findings(), [after.classes[number] for number in emptied]
    _tell_absent(after.name, names, len(after.classes), data, findings)
    _refuse(findings, after.name)
    return replace(after, notes=(*after.notes, *findings.notes))


def _refuse(findings: Findings, name: str) -> None:
    if findings.problems:
        raise DataError(first_problems(findings.problems, name))


def _order(label: str) -> tuple[bool, int, str]:
    """Sort numbers by value, before names."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label


def _with_header_facts(images: Images) -> Images:
    """Complete modality and patient from DICOM headers where no list gives them."""
    with ThreadPoolExecutor(_THREADS) as threads:
        facts = list(threads.map(lambda index: _facts(images, index), range(len(images))))
    modalities, patients, cines = images.modalities.tolist(), images.patients.tolist(), []
    for index, fact in enumerate(facts):
        if fact is None:
            continue
        modalities[index] = modalities[index] or fact.modality
        patients[index] = patients[index] if patients[index] != UNKNOWN else patient_number(fact.patient)
        if fact.num_frames > 1:
            cines.append(images.pixels.name(index))
    told = [f"files with several frames, of which the first is used: {len(cines)} ({examples(cines)})"] if cines else []
    return replace(
        images,
        notes=(*images.notes, *told),
        modalities=np.array(modalities, np.str_),
        patients=np.array(patients, np.int64),
    )


def _facts(images: Images, index: int) -> DicomFacts | None:
    path = images.pixels.path(index)
    if is_image_name(path.name):
        return None
    try:
        return inspect_dicom(path, float("inf"))
    except InputError:
        return None  # the check of all files reports it
