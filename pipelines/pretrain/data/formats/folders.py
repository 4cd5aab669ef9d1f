"""Images in folders: one folder per class, and RadImageNet as it is handed out."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.pretrain.data.formats.csv_lists import PARTS, add_once, read_rows, spelled
from pipelines.pretrain.data.formats.listing import Presence
from pipelines.pretrain.data.index import Entry, Reading, examples, is_image_name
from vision_core.dicom.reader import DICOM_SUFFIXES
from vision_core.errors import DataError

RADIMAGENET_CLASSES = 165

_MODALITIES = ("CT", "MR", "US")
_JOINT = "__"  # between modality, anatomy and class in the name of a training folder
_SHOWN_KINDS = 4


def read_folders(root: Path, split: str, reading: Reading, *, at_any_depth: bool = False) -> list[Entry]:
    """The images of ``<root>/<split>/<class>/``.

    Args:
        root: Folder of the data set.
        split: Name of the list.
        reading: What is met on the way.
        at_any_depth: Files of any name at any depth below a class, as DICOM series lie; else images right in it.

    Raises:
        DataError: There is no such list.
    """
    folder = root / split
    if not folder.is_dir():
        raise DataError(
            f"'{folder}' is not a folder; '{root}' holds {_inventory(root)}. Correct data.root or data.split."
        )
    presence = Presence(root, reading)
    found: list[Entry] = []
    for each in sorted(_entries(folder), key=lambda entry: entry.name):
        if not presence.is_inside(each):
            continue
        if not each.is_dir():
            reading.note("files beside the class folders, not used", f"{split}/{each.name}")
            continue
        files = _files_below(Path(each.path), presence) if at_any_depth else _images_in(each, presence, reading)
        names = sorted(Path(os.path.relpath(file, root)).as_posix() for file in files)
        found += [Entry(name, each.name, modality_of(each.name)) for name in names]
    return found


def classes_of_parts(root: Path, split: str) -> dict[str, set[str]]:
    """The class folders of every list that is there, by its name."""
    parts = [name for name in dict.fromkeys((split, *PARTS)) if (root / name).is_dir()]
    return {name: {entry.name for entry in _entries(root / name) if entry.is_dir()} for name in parts}


def read_radimagenet(root: Path, split: str, reading: Reading, *, skip_missing: bool) -> list[Entry]:
    """The images that ``RadiologyAI_<split>.csv`` lists, classes named as in the training layout.

    A path is ``.../CT|MR/<anatomy>/<class>/<file>`` or ``.../US/<class>/<file>``, with slashes of any kind.

    Raises:
        DataError: The list is not there.
    """
    presence = Presence(root, reading)
    within = "" if any((root / name).is_dir() for name in _MODALITIES) else None
    found: dict[str, Entry] = {}
    missing: list[str] = []
    for text in _listed(root, split):
        entry = _radimagenet_entry(text, within)
        if entry is None:
            reading.problems.append(
                f"'{text}' is no path of RadImageNet (CT/<anatomy>/<class>/<file>). Correct the list."
            )
        elif presence.has(entry.name):
            add_once(found, entry, reading)
        else:
            missing.append(entry.name)
    note_missing(missing, len(found) + len(missing), reading, skip=skip_missing)
    return list(found.values())


def radimagenet_classes(root: Path, split: str) -> dict[str, set[str]]:
    """The classes of every list that is there, by its name."""
    parts = [name for name in dict.fromkeys((split, *PARTS)) if _list_path(root, name)]
    found = {name: (_radimagenet_entry(text, "") for text in _listed(root, name)) for name in parts}
    return {name: {entry.label for entry in entries if entry} for name, entries in found.items()}


def note_missing(missing: list[str], total: int, reading: Reading, *, skip: bool) -> None:
    """Listed files that are not there: counted, and a problem unless they are to be skipped."""
    if missing and skip:
        reading.facts["listed files that are not there, left out"] = missing
    elif missing:
        reading.problems.append(
            f"'{len(missing)}' of {total} listed files are not there: {examples(missing)}. "
            "Correct data.root, or set data.on_missing to 'skip'."
        )


def modality_of(label: str) -> str:
    """The modality that the name of a training folder begins with; empty where it names none."""
    first, joint, _ = label.partition(_JOINT)
    return first if joint and first in _MODALITIES else ""


def _entries(folder: Path) -> "Iterator[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _images_in(folder: "os.DirEntry[str]", presence: Presence, reading: Reading) -> list[str]:
    names: list[str] = []
    others: list[str] = []
    below: list[str] = []
    for each in _entries(Path(folder.path)):
        if not presence.is_inside(each):
            continue
        kind = below if each.is_dir() else names if is_image_name(each.name) else others
        kind.append(each.path)
    for path in sorted(others):
        reading.note("files that are no images, not used", Path(path).name)
    if below:
        reading.problems.append(_nested(Path(folder.path), sorted(Path(path).name for path in below)))
    elif not names:
        reading.problems.append(_empty(folder.name, {Path(path).suffix.lower() or "without suffix" for path in others}))
    return names


def _empty(label: str, kinds: set[str]) -> str:
    told = f" but files {', '.join(sorted(kinds))}" if kinds else ""
    remedy = "Use data.format=dicom." if kinds & DICOM_SUFFIXES else "Fill it, or remove it from every list."
    return f"class folder '{label}' holds no image{told}. {remedy}"


def _nested(folder: Path, below: list[str]) -> str:
    told = f"'{folder}' should hold the images of one class, but holds {len(below)} folders: {examples(below)}."
    if folder.name in _MODALITIES:
        return f"{told} That is RadImageNet as it is handed out: use data.format=radimagenet."
    return f"{told} Give <list>/<class>/<file>."


def _files_below(folder: Path, presence: Presence) -> list[str]:
    found: list[str] = []
    for each in _entries(folder):
        if not presence.is_inside(each):
            continue
        if each.is_dir():
            found += _files_below(Path(each.path), presence)
        elif each.name.upper() != "DICOMDIR":
            found.append(each.path)
    return found


def _inventory(root: Path) -> str:
    if not root.is_dir():
        return "nothing: it is no folder itself"
    kinds = {f"'{each.name}/'" if each.is_dir() else Path(each.name).suffix or "files" for each in _entries(root)}
    return ", ".join(sorted(kinds)[:_SHOWN_KINDS]) or "nothing"


def _list_path(root: Path, split: str) -> Path | None:
    name = f"RadiologyAI_{split}.csv"
    return next((path for path in (root / name, root.parent / name) if path.is_file()), None)


def _listed(root: Path, split: str) -> Iterator[str]:
    path = _list_path(root, split)
    if path is None:
        there = sorted(each.name for each in root.glob("*.csv")) if root.is_dir() else []
        raise DataError(
            f"'{root / f'RadiologyAI_{split}.csv'}' does not exist; there is '{', '.join(there) or 'no CSV'}'. "
            "Put the lists of RadImageNet beside its folders, or correct data.split."
        )
    return (spelled(row["filename"]) for row in read_rows(path, ("filename",)))


def _radimagenet_entry(text: str, within: str | None) -> Entry | None:
    """The entry of a listed path; ``within`` is None where the folder it begins with is part of the path on disk."""
    parts = text.split("/")
    fitting = [
        number
        for number, part in enumerate(parts)
        if part.upper() in _MODALITIES and len(parts) - number - 2 == (1 if part.upper() == "US" else 2)
    ]
    if not fitting or ".." in parts:
        return None
    at = fitting[-1]  # a folder above the data may have the name of a modality too
    modality, inner = parts[at].upper(), parts[at + 1 : -1]
    name = "/".join(parts[at if within is not None else max(0, at - 1) :])
    return Entry(name, _JOINT.join((modality, *inner)), modality)
