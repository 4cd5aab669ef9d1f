"""Labelled images for pretraining, whatever their layout on disk: the entry to the readers."""

import json
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
    NUM_EXAMPLES,
    UNKNOWN,
    Entry,
    Images,
    Reading,
    examples,
    index_files,
    patient_number,
)
from pipelines.pretrain.data_settings import PretrainData
from vision_core.console import Progress
from vision_core.dicom.reader import DicomFacts, inspect_dicom
from vision_core.errors import ConfigError, DataError, InputError
from vision_core.files import write_atomic
from vision_core.images.reading import is_image_name

__all__ = ["Images", "frozen_classes", "prepare_images", "read_classes", "read_images", "write_classes"]

_LARGE_IMBALANCE = 100
_LONG_CHECK = 2000  # images

_THREADS = 4


def prepare_images(data: PretrainData, split: str) -> Images:
    """One list as training may rely on it: which images are left out is settled before the first step.

    That way the order of a run follows from its seed alone, and a resumed run has the same bits.

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
    """The index of one list; no image is opened.

    Raises:
        ConfigError: ``data.root`` is empty.
        DataError: The layout is wrong, classes are missing or strange, or files are not there.
    """
    if data.root is None:
        raise ConfigError("data.root is empty. Give the folder of the data set.")
    frozen = frozen_classes(data)
    if data.format == "medmnist":
        images = read_medmnist(data.root, split, data.model_copy(update={"classes": frozen}))
        reading = Reading()
        _refuse_absent_classes(images, data, reading)
        _refuse(reading, images.name)
    else:
        images = _read_files(data, data.root, split, frozen)
    if data.leave_out:
        images = _still_complete(images, without(images, listed(data.leave_out)), data)
    return images.keep(np.arange(len(images)), *imbalance(images))


def frozen_classes(data: PretrainData) -> tuple[str, ...]:
    """The class list that is given, if one is.

    Raises:
        ConfigError: Two are given that differ.
        DataError: As ``read_classes``.
    """
    listed = read_classes(data.class_list) if data.class_list else ()
    if listed and data.classes and listed != data.classes:
        raise ConfigError(f"data.classes and data.class_list '{data.class_list}' differ. Give one of them.")
    return listed or data.classes


def read_classes(path: Path) -> tuple[str, ...]:
    """The class names of a ``classes.json``, in the order of their numbers.

    Raises:
        DataError: The file is not there or holds something else.
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
    """Freeze a class list: the number of a class is its place."""
    write_atomic(path, json.dumps(list(classes), indent=1, ensure_ascii=False) + "\n")


def imbalance(images: Images) -> tuple[str, ...]:
    """A warning where classes differ a hundredfold in size, with what their images weigh."""
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
    """A bar for checks that take a while; the first run on a million images does."""
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
    reading = Reading()
    name = f"{root.resolve().name}:{split}"
    entries, parts = _entries(data, root, split, reading)
    _refuse(reading, name)
    if not entries:
        raise DataError(f"'{name}' has no image. Correct data.root, data.split or data.format.")
    entries = [entry._replace(label=_name(entry.label, frozen)) for entry in entries] if frozen else entries
    parts = {part: {_name(label, frozen) for label in labels} for part, labels in parts.items()}
    every = set().union(*parts.values(), (entry.label for entry in entries))
    # Folders are numbered by their sorted names, as the released code does; a list may hold numbers.
    classes = frozen or tuple(sorted(every, key=_order if _is_list(data) else str))
    _compare(parts, entries, (classes, split), data, reading)
    _refuse(reading, name)
    if data.format == "radimagenet" and len(classes) != RADIMAGENET_CLASSES:
        reading.remarks.append(f"{len(classes)} classes; the whole RadImageNet has {RADIMAGENET_CLASSES}")
    images = index_files(entries, classes, root, name, data.max_megapixels)
    images = with_header_facts(images) if data.format == "dicom" else images
    return images.keep(np.arange(len(images)), *reading.notes())


def _entries(
    data: PretrainData, root: Path, split: str, reading: Reading
) -> tuple[list[Entry], Mapping[str, set[str]]]:
    """The images of a list, and the classes of all lists."""
    if data.format == "radimagenet":
        entries = read_radimagenet(root, split, reading, skip_missing=data.on_missing == "skip")
        return entries, radimagenet_classes(root, split)
    if _is_list(data):
        entries, missing = read_table(root, split, data.labels, reading)
        note_missing(missing, len(entries) + len(missing), reading, skip=data.on_missing == "skip")
        return entries, labels_of_parts(root, split, data.labels, PARTS)
    entries = read_folders(root, split, reading, at_any_depth=data.format == "dicom")
    return entries, classes_of_parts(root, split)


def _is_list(data: PretrainData) -> bool:
    return data.format == "csv" or (data.format == "dicom" and bool(data.labels))


def _name(label: str, classes: tuple[str, ...]) -> str:
    """A label that is the number of a class becomes its name."""
    is_number = label not in classes and label.isdecimal() and int(label) < len(classes)
    return classes[int(label)] if is_number else label


def _compare(
    parts: Mapping[str, set[str]],
    entries: Sequence[Entry],
    wanted: tuple[tuple[str, ...], str],
    data: PretrainData,
    reading: Reading,
) -> None:
    """The class lists of all parts with each other, and with the one that is frozen."""
    classes, split = wanted
    here = {entry.label for entry in entries}
    strange = sorted(here - set(classes), key=_order)
    if strange:
        reading.problems.append(
            f"'{split}' has '{len(strange)}' classes that are not among the {len(classes)} given: {examples(strange)}. "
            "Correct data.classes or data.class_list."
        )
    for part, names in {**parts, split: here}.items():
        absent = [name for name in classes if name not in names]
        if absent and not (part != split and strange):
            _tell_absent(part, absent, len(classes), data, reading)


def _tell_absent(part: str, absent: Sequence[str], total: int, data: PretrainData, reading: Reading) -> None:
    told = f"'{part}' lacks '{len(absent)}' of {total} classes: {examples(absent)}"
    if data.on_missing_class == "note":
        reading.remarks.append(told)
    else:
        reading.problems.append(f"{told}. Complete it, or set data.on_missing_class to 'note'.")


def _still_complete(before: Images, after: Images, data: PretrainData) -> Images:
    """``after``, unless all images of a class were left out of ``before``: refused, or told."""
    emptied = np.flatnonzero((before.class_counts > 0) & (after.class_counts == 0))
    if not len(emptied):
        return after
    reading, names = Reading(), [after.classes[number] for number in emptied]
    _tell_absent(after.name, names, len(after.classes), data, reading)
    _refuse(reading, after.name)
    return after.keep(np.arange(len(after)), *reading.notes())


def _refuse_absent_classes(images: Images, data: PretrainData, reading: Reading) -> None:
    absent = [images.classes[number] for number in np.flatnonzero(images.class_counts == 0)]
    if absent:
        _tell_absent(images.name, absent, len(images.classes), data, reading)


def _refuse(reading: Reading, name: str) -> None:
    problems = reading.problems
    if len(problems) > NUM_EXAMPLES:
        problems = [*problems[:NUM_EXAMPLES], f"'{name}' has '{len(problems)}' problems in all. Correct them."]
    if problems:
        raise DataError(problems)


def _order(label: str) -> tuple[bool, int, str]:
    """Numbers by their value, before names."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label


def with_header_facts(images: Images) -> Images:
    """The index with what headers tell where no list has told it; files that cannot be read are left as they are."""
    with ThreadPoolExecutor(_THREADS) as threads:
        facts = list(threads.map(lambda index: _facts(images, index), range(len(images))))
    known = [(str(images.modalities[index]), int(images.patients[index])) for index in range(len(images))]
    merged = [
        (modality or fact.modality, patient if patient != UNKNOWN else patient_number(fact.patient)) if fact else before
        for before, fact in zip(known, facts, strict=True)
        for modality, patient in [before]
    ]
    cines = [images.pixels.name(index) for index, fact in enumerate(facts) if fact and fact.num_frames > 1]
    told = [f"files with several frames, of which the first is used: {len(cines)} ({examples(cines)})"] if cines else []
    return replace(
        images,
        notes=(*images.notes, *told),
        modalities=np.array([modality for modality, _ in merged], np.str_),
        patients=np.array([patient for _, patient in merged], np.int64),
    )


def _facts(images: Images, index: int) -> DicomFacts | None:
    path = images.pixels.path(index)
    if is_image_name(path.name):
        return None
    try:
        return inspect_dicom(path, float("inf"))
    except InputError:
        return None  # told by the check of all files, which decides what becomes of it
