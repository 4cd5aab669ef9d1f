"""The layout of RadImageNet as distributed: CSV lists of paths, whose folders are the labels."""

from collections.abc import Iterator
from pathlib import Path

from pipelines.pretrain.data.formats.csv_lists import PARTS, add_once, note_missing, read_rows, spelled
from pipelines.pretrain.data.formats.listing import Presence
from pipelines.pretrain.data.index import JOINT, MODALITIES, Entry
from vision_core.errors import DataError, Findings

RADIMAGENET_CLASSES = 165


def read_radimagenet(root: Path, split: str, findings: Findings, *, skip_missing: bool) -> list[Entry]:
    """Read the images of ``RadiologyAI_<split>.csv``, classes named as in training folders.

    A path is ``.../CT|MR/<anatomy>/<class>/<file>`` or ``.../US/<class>/<file>``, with slashes of any kind.

    Raises:
        DataError: There is no such list.
    """
    presence = Presence(root, findings)
    within = "" if any((root / name).is_dir() for name in MODALITIES) else None
    found: dict[str, Entry] = {}
    missing: list[str] = []
    for text in _listed(root, split):
        entry = _radimagenet_entry(text, within)
        if entry is None:
            findings.refuse(f"'{text}' is no path of RadImageNet (CT/<anatomy>/<class>/<file>). Correct the list.")
        elif presence.has(entry.name):
            add_once(found, entry, findings)
        else:
            missing.append(entry.name)
    note_missing(missing, len(found) + len(missing), findings, skip=skip_missing)
    return list(found.values())


def radimagenet_classes(root: Path, split: str) -> dict[str, set[str]]:
    """Collect the classes of every list that exists, by its name."""
    parts = [name for name in dict.fromkeys((split, *PARTS)) if _list_path(root, name)]
    found = {name: (_radimagenet_entry(text, "") for text in _listed(root, name)) for name in parts}
    return {name: {entry.label for entry in entries if entry} for name, entries in found.items()}


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
    """Parse a listed path; ``within`` is None where the folder above the modality is part of the path on disk."""
    parts = text.split("/")
    fitting = [
        number
        for number, part in enumerate(parts)
        if part.upper() in MODALITIES and len(parts) - number - 2 == (1 if part.upper() == "US" else 2)
    ]
    if not fitting or ".." in parts:
        return None
    at = fitting[-1]  # a folder above the data may have the name of a modality too
    modality, inner = parts[at].upper(), parts[at + 1 : -1]
    name = "/".join(parts[at if within is not None else max(0, at - 1) :])
    return Entry(name, JOINT.join((modality, *inner)), modality)
