"""Lists of frames: what lies in ``data.root``, and which of its subjects are in which list."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.formats.cines import HDF5_SUFFIXES, CineFrames, is_cine
from pipelines.ultrasound.data.formats.folders import FolderFrames
from pipelines.ultrasound.data.formats.hdf5 import H5Frames
from pipelines.ultrasound.data.frames import Frame, FrameName, Frames, Grey, frames_of
from pipelines.ultrasound.data.sector.find import Sector
from pipelines.ultrasound.data.sector.training import MaskedFrames
from pipelines.ultrasound.data.subjects import Splits, read_splits, refuse_shared, split_subjects
from vision_core.errors import ConfigError, DataError
from vision_core.images.reading import is_image_name

SPLITS_FILE = "splits.json"
_DEPTH = 2  # of SUBJECT/FILE


@dataclass(frozen=True, kw_only=True)
class FrameList:
    """Frames of one list, themselves ``Frames``.

    Attributes:
        name: Name of the list.
        frames: All frames of the file or folder.
        indices: Those of this list.
        has_subjects: Whether the layout nests frames in subjects.
    """

    name: str
    frames: Frames
    indices: tuple[int, ...]
    has_subjects: bool

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def names(self) -> tuple[FrameName, ...]:
        """Names of its frames."""
        return tuple(self.frames.names[index] for index in self.indices)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the file or folder."""
        return self.frames.notes

    @property
    def subjects(self) -> tuple[str, ...] | None:
        """Subject of each frame; None where they are not known."""
        subjects = tuple(name.subject for name in self.names)
        return tuple(str(each) for each in subjects) if None not in subjects else None

    def sectors(self) -> dict[Sector, Grey]:
        """List the sectors outside which the file or folder is masked, each with a frame of it; raises as ``read``."""
        found = self.frames.found if isinstance(self.frames, MaskedFrames) else None
        return (
            {each: self.frames.read(found.examples[place]).image for place, each in found.sectors.items()}
            if found
            else {}
        )

    def read(self, index: int) -> Frame:
        """Read one frame of the list; raises as ``Frames.read``."""
        return self.frames.read(self.indices[index])


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Lists of the data that a verb asks for.

    Attributes:
        by_name: The lists.
        splits: Subjects of all lists, for the record; None where files or folders are the lists.
    """

    by_name: Mapping[str, FrameList]
    splits: Splits | None

    def __getitem__(self, name: str) -> FrameList:
        return self.by_name[name]

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the files and folders, among them what is masked, and on what lies between the lists."""
        own = dict.fromkeys(note for each in self.by_name.values() for note in each.notes)
        return (*own, *_shared_patients(self.by_name))


def read_lists(data: UltrasoundData, wanted: Iterable[str]) -> Lists:
    """Open the data and find the frames of some lists; no frame is read.

    Raises:
        ConfigError: ``data.root`` is empty, or a list is not there or empty.
        DataError: A file or folder cannot be used, or a subject is in two lists.
    """
    if data.root is None:
        raise ConfigError("data.root is empty: name the file or folder of frames.")
    names = list(dict.fromkeys(wanted))
    kind = _kind_of(data)
    apart = {name: path for name in names if (path := _path_of_list(data.root, name, kind))}
    if apart:
        return Lists(by_name=_apart(data, apart, names, kind), splits=None)
    frames = _open(_single(data.root, kind), kind, data)
    splits = _splits(data, frames)
    missing = [name for name in names if not splits.lists.get(name)]
    if missing:
        known = ", ".join(f"{name} ({len(own)})" for name, own in splits.lists.items())
        raise ConfigError(
            f"The list '{missing[0]}' has '0' subjects. Lists by number of subjects: {known}. Name one of them, or "
            "record more; data.eval_split=null reports on none."
        )
    lists = {
        name: FrameList(
            name=name,
            frames=frames,
            indices=tuple(frames_of(frames, frozenset(splits.lists[name]))),
            has_subjects=_has_subjects(frames),
        )
        for name in names
    }
    return Lists(by_name=lists, splits=splits)


def _apart(data: UltrasoundData, paths: Mapping[str, Path], names: Sequence[str], kind: str) -> dict[str, FrameList]:
    """Open lists that are files or folders of their own."""
    root = data.root
    if missing := [name for name in names if name not in paths]:
        found = ", ".join(path.name for path in paths.values())
        raise ConfigError(f"'{root}' holds {found}, and nothing for the list '{missing[0]}'. Add it, or name another.")
    opened: dict[str, Frames] = {}
    for name, path in paths.items():  # one sector a machine: that of the first list, where it fits the others
        known = [each.found.sectors for each in opened.values() if isinstance(each, MaskedFrames)]
        opened[name] = _open(path, kind, data, [sector for each in known for sector in each.values()])
    subjects = {
        name: sorted({each.subject for each in frames.names if each.subject is not None})
        for name, frames in opened.items()
    }
    refuse_shared(subjects, str(root))
    return {
        name: FrameList(
            name=name, frames=frames, indices=tuple(range(len(frames.names))), has_subjects=_has_subjects(frames)
        )
        for name, frames in opened.items()
    }


def _splits(data: UltrasoundData, frames: Frames) -> Splits:
    assert data.root is not None
    if any(name.subject is None for name in frames.names):
        raise DataError(
            f"'{data.root}' names no subjects, and frames of a subject are alike: it cannot be split. Add "
            "subjects.csv, or give a file for each list, such as train.h5 and val.h5."
        )
    subjects = {str(name.subject) for name in frames.names}
    folder = data.root if data.root.is_dir() else data.root.parent
    path = data.splits or folder / SPLITS_FILE
    if data.splits or path.exists():
        return read_splits(path, subjects)
    keys = [name.text for name in frames.names]
    return split_subjects(subjects, data.shares.model_dump(), data.split_seed, keys)


def _kind_of(data: UltrasoundData) -> str:
    root = data.root
    assert root is not None
    if not root.exists():
        raise DataError(f"data.root '{root}' does not exist. Give a file or folder of frames.")
    if root.is_file() and (is_image_name(root.name) or is_cine(root)):
        raise DataError(f"data.root '{root}' is a file of frames, whose masks lie beside. Give the folder of subjects.")
    if data.format != "auto":
        return "cines" if data.format == "dicom" else data.format
    if root.is_file() or any(path.suffix.lower() in HDF5_SUFFIXES for path in root.iterdir()):
        return "hdf5"
    return "cines" if _holds_cines(root) else "folders"


def _holds_cines(root: Path) -> bool:
    return any(is_cine(Path(folder, name)) for folder, _, names in os.walk(root) for name in names)


def _path_of_list(root: Path, name: str, kind: str) -> Path | None:
    """Find the file or folder that a list is by itself; None where there is none."""
    if root.is_file():
        return None
    if kind != "hdf5":
        return root / name if (root / name).is_dir() else None
    return next((path for suffix in HDF5_SUFFIXES if (path := root / f"{name}{suffix}").is_file()), None)


def _single(root: Path, kind: str) -> Path:
    if kind != "hdf5" or root.is_file():
        return root
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in HDF5_SUFFIXES)
    if len(files) != 1:
        listed = ", ".join(path.name for path in files[:4]) or "none"
        raise DataError(f"'{root}' holds '{len(files)}' HDF5 files ({listed}). Give one, or one named for each list.")
    return files[0]


def _open(path: Path, kind: str, data: UltrasoundData, known: Sequence[Sector] = ()) -> Frames:
    frames: Frames
    if kind == "hdf5":
        frames = H5Frames(path)
    else:
        found: CineFrames | FolderFrames
        found = CineFrames(path, data.finding) if kind == "cines" else FolderFrames(path)
        found.notes += _too_deep(path, kind)
        frames = found
    is_masked = data.outside == "mask" or (data.outside is None and kind == "cines")
    return MaskedFrames(frames, path, known) if is_masked else frames


def _too_deep(root: Path, kind: str) -> tuple[str, ...]:
    """Tell of files below the folders of the subjects, which are not looked for."""

    def is_wanted(path: Path) -> bool:
        return is_cine(path) if kind == "cines" else is_image_name(path.name)

    paths = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    deep = (path for path in paths if len(path.relative_to(root).parts) > _DEPTH)
    found = sorted(path.relative_to(root) for path in filter(is_wanted, deep))
    told = f"'{root}': {len(found)} files lie below the folders of the subjects and are left out"
    return (f"{told}, such as '{found[0]}'.",) if found else ()


def _shared_patients(lists: Mapping[str, FrameList]) -> list[str]:
    """Tell of patients in two lists, by the numbers in DICOM files; one number of all files is a placeholder."""
    subjects = {
        name: {each.patient: each.subject for each in found.names if each.patient} for name, found in lists.items()
    }
    if len({patient for own in subjects.values() for patient in own}) < 2:
        return []
    told = []
    for (one, first), (other, second) in combinations(subjects.items(), 2):
        if shared := sorted(first.keys() & second.keys()):
            told.append(
                f"{len(shared)} patients are in '{one}' and in '{other}' by their PatientID, such as '"
                f"{first[shared[0]]}' and '{second[shared[0]]}': the score is too good. Put all files of a patient "
                "under one subject."
            )
    return told


def _has_subjects(frames: Frames) -> bool:
    frames = frames.inner if isinstance(frames, MaskedFrames) else frames
    is_flat = isinstance(frames, H5Frames) and frames.layout == "flat"
    return not is_flat and all(name.subject is not None for name in frames.names)
