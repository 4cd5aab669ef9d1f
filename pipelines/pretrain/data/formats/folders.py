"""The layout of folders: ``<split>/<class>/`` with images, or DICOM files at any depth."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.pretrain.data.formats.csv_lists import PARTS
from pipelines.pretrain.data.formats.listing import Presence
from pipelines.pretrain.data.index import MODALITIES, Entry, modality_of
from vision_core.dicom.reader import DICOM_SUFFIXES
from vision_core.errors import DataError, Findings, examples
from vision_core.images.reading import is_image_name

_SHOWN_KINDS = 4
_NO_FILES = "pipes, sockets or devices, not used"


def read_folders(root: Path, split: str, findings: Findings, *, at_any_depth: bool = False) -> list[Entry]:
    """List the images of ``<root>/<split>/<class>/``.

    Args:
        root: Folder of the data set.
        split: Name of the list.
        findings: Findings, which are added to.
        at_any_depth: Take files of any name at any depth below a class, as DICOM series are stored; else the images
            of the class folder itself.

    Raises:
        DataError: There is no such folder.
    """
    folder = root / split
    if not folder.is_dir():
        raise DataError(
            f"'{folder}' is not a folder; '{root}' holds {_inventory(root)}. Correct data.root or data.split."
        )
    presence = Presence(root, findings)
    found: list[Entry] = []
    for each in sorted(_entries(folder), key=lambda entry: entry.name):
        if not presence.is_inside(each):
            continue
        if not each.is_dir():
            findings.note("files beside the class folders, not used", f"{split}/{each.name}")
            continue
        files = (
            _files_below(Path(each.path), presence, findings) if at_any_depth else _images_in(each, presence, findings)
        )
        names = sorted(Path(os.path.relpath(file, root)).as_posix() for file in files)
        found += [Entry(name, each.name, modality_of(each.name)) for name in names]
    return found


def classes_of_parts(root: Path, split: str) -> dict[str, set[str]]:
    """List the class folders of every list that exists, by its name."""
    parts = [name for name in dict.fromkeys((split, *PARTS)) if (root / name).is_dir()]
    return {name: {entry.name for entry in _entries(root / name) if entry.is_dir()} for name in parts}


def _entries(folder: Path) -> "Iterator[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _images_in(folder: "os.DirEntry[str]", presence: Presence, findings: Findings) -> list[str]:
    names: list[str] = []
    others: list[str] = []
    below: list[str] = []
    for each in _entries(Path(folder.path)):
        if not presence.is_inside(each):
            continue
        if not (each.is_dir() or each.is_file()):
            findings.note(_NO_FILES, f"{folder.name}/{each.name}")
            continue
        kind = below if each.is_dir() else names if is_image_name(each.name) else others
        kind.append(each.path)
    for path in sorted(others):
        findings.note(f"files {Path(path).suffix.lower() or 'without suffix'}, no images, not used", Path(path).name)
    if below:
        findings.refuse(_nested(Path(folder.path), sorted(Path(path).name for path in below)))
    elif not names:
        findings.refuse(_empty(folder.name, {Path(path).suffix.lower() or "without suffix" for path in others}))
    return names


def _empty(label: str, kinds: set[str]) -> str:
    told = f" but files {', '.join(sorted(kinds))}" if kinds else ""
    remedy = "Use data.format=dicom." if kinds & DICOM_SUFFIXES else "Fill it, or remove it from every list."
    return f"class folder '{label}' holds no image{told}. {remedy}"


def _nested(folder: Path, below: list[str]) -> str:
    told = f"'{folder}' should hold the images of one class, but holds {len(below)} folders: {examples(below)}."
    if folder.name in MODALITIES:
        return f"{told} That is RadImageNet as it is handed out: use data.format=radimagenet."
    return f"{told} Give <list>/<class>/<file>."


def _files_below(folder: Path, presence: Presence, findings: Findings) -> list[str]:
    found: list[str] = []
    for each in _entries(folder):
        if not presence.is_inside(each):
            continue
        if each.is_dir():
            found += _files_below(Path(each.path), presence, findings)
        elif not each.is_file():
            findings.note(_NO_FILES, each.name)
        elif each.name.upper() != "DICOMDIR":
            found.append(each.path)
    return found


def _inventory(root: Path) -> str:
    if not root.is_dir():
        return "nothing: it is no folder itself"
    kinds = {f"'{each.name}/'" if each.is_dir() else Path(each.name).suffix or "files" for each in _entries(root)}
    return ", ".join(sorted(kinds)[:_SHOWN_KINDS]) or "nothing"
