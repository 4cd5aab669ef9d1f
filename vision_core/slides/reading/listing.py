"""Search for slides in folders; whatever else lies there is named and counted."""

import logging
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vision_core.batch.folder import JOB
from vision_core.errors import InputError
from vision_core.slides.identity import SLIDE_SUFFIXES as SLIDE_SUFFIXES  # for users of listings
from vision_core.slides.identity import group_dicom, may_be_dicom

_LOG = logging.getLogger("domainsight")

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_ALONE = frozenset({".qptiff", ".btf", ".ptif", ".ptiff", ".tf2", ".tf8"})  # slides if they are a TIFF inside
_PARTS = {".vms": (".jpg", ".opt", ".xml"), ".vmu": (".jpg", ".opt", ".xml")}  # that lie beside, named alike
_SIDE_FILES = frozenset(
    {".csv", ".tsv", ".txt", ".md", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".geojson", ".gz", ".log", ".html",
     ".ini", ".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz", ".md5", ".sha256", ".parquet", ".xlsx", ".pdf"}
)  # fmt: skip
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class SlideListing:
    """The slides below a folder.

    Attributes:
        folder: The folder.
        slides: Their files, sorted; a DICOM slide has the file that represents its series.
        instances: Files of each DICOM slide by that file.
        series: That file by SeriesInstanceUID.
        left_out: Files that are no slides, by kind.
    """

    folder: Path
    slides: tuple[Path, ...]
    instances: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)
    series: Mapping[str, Path] = field(default_factory=dict)
    left_out: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    def notes(self, *, side_files: bool = True) -> list[str]:
        """Name and count what is left out, in one sentence; no sentence if there is nothing.

        Args:
            side_files: Also tables, features and texts, which lie beside slides.
        """
        told = self.others(side_files=side_files)
        return [f"Left out of '{self.folder}': {told}."] if told else []

    def others(self, *, side_files: bool = True) -> str:
        """Name and count what is left out by kind; empty if there is nothing."""
        kinds = [kind for kind in sorted(self.left_out) if side_files or kind not in _SIDE_FILES]
        return "; ".join(f"{len(self.left_out[kind])} {kind} ({self._some(kind)})" for kind in kinds)

    def without(self, used: Iterable[Path]) -> "SlideListing":
        """Return the listing without files that are used otherwise among those that are left out."""
        known = set(used)
        left_out = {kind: tuple(path for path in files if path not in known) for kind, files in self.left_out.items()}
        return replace(self, left_out={kind: files for kind, files in left_out.items() if files})

    def representative(self, path: Path) -> Path:
        """Return the file that represents the slide of a file; the file itself where it is no part of another."""
        whole = {part: first for first, parts in self.instances.items() for part in parts}
        return whole.get(path, path)

    def _some(self, kind: str) -> str:
        files = self.left_out[kind]
        names = ", ".join(f"'{path.relative_to(self.folder)}'" for path in files[:_SHOWN])
        return names + (", …" if len(files) > _SHOWN else "")


def list_slides(folder: Path) -> list[Path]:
    """List the slides of a folder and all folders below, as ``find_slides`` does."""
    return list(find_slides(folder).slides)


def find_slides(folder: Path) -> SlideListing:
    """Find the slides of a folder and of all folders below.

    Hidden files and folders and the outputs of a batch are skipped. All else that is no slide is left out and named:
    files of other kinds, DICOM objects that are no slides, links that lead out of the folder or in a circle, pipes. The
    instances of a DICOM series are one slide.

    Raises:
        InputError: There is no such folder.
        MissingDependencyError: There are DICOM files, and pydicom is not installed.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder. Give a folder of slides.")
    left_out: dict[str, list[Path]] = defaultdict(list)
    slides: list[Path] = []
    dicom: list[Path] = []
    for path in sorted(_walk(folder, left_out)):
        kind = _kind(path, folder)
        if kind:
            left_out[kind].append(path)
        else:
            (dicom if may_be_dicom(path) else slides).append(path)
    grouped = group_dicom(dicom)
    for kind, files in grouped.others.items():
        left_out[kind] += files
    return SlideListing(
        folder=folder,
        slides=tuple(sorted([*slides, *grouped.instances])),
        instances=grouped.instances,
        series=grouped.series,
        left_out={kind: tuple(files) for kind, files in left_out.items()},
    )


def _walk(folder: Path, left_out: dict[str, list[Path]]) -> Iterator[Path]:
    """Iterate over visible files but those that are parts of a slide beside them."""

    def warn(error: OSError) -> None:
        _LOG.warning("'%s' is left out: %s.", error.filename, (error.strerror or "cannot be read").lower())

    for place, below, names in os.walk(folder, onerror=warn):
        if JOB in names:  # the output folder of a batch
            below.clear()
            continue
        stems = {name.lower().rpartition(".")[0] for name in names if name.lower().endswith((".mrxs", ".vsi"))}
        below[:] = sorted(name for name in below if not name.startswith(".") and name.lower().strip("_") not in stems)
        zarrs = [name for name in below if name.lower().endswith(".zarr")]  # an image in a folder
        below[:] = [name for name in below if name not in zarrs]
        left_out[".zarr"] += [Path(place) / name for name in zarrs]
        wholes = [(stem, _PARTS[ending]) for stem, ending in map(_split, names) if ending in _PARTS]
        for name in names:
            stem, ending = _split(name)
            is_part = any(ending in endings and stem.startswith(of) for of, endings in wholes)
            if not (name.startswith(".") or is_part):
                yield Path(place) / name
    if not left_out[".zarr"]:
        del left_out[".zarr"]


def _split(name: str) -> tuple[str, str]:
    stem, _, ending = name.lower().rpartition(".")
    return stem, f".{ending}"


def _kind(path: Path, folder: Path) -> str:
    """Name the kind of a file that is no slide; empty for slides."""
    suffix = path.suffix.lower()
    if suffix not in SLIDE_SUFFIXES and not may_be_dicom(path):
        return suffix or "without suffix"
    if path.is_symlink() or not path.is_file():
        return _strange_kind(path, folder)
    if suffix in _TIFF_ALONE and not _is_tiff(path):
        return f"{suffix} that is no TIFF"
    return ""


def _strange_kind(path: Path, folder: Path) -> str:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        _LOG.warning("'%s' is left out: a link in a circle or to nothing.", path)
        return "link in a circle or to nothing"
    if not target.is_relative_to(folder.resolve()):
        _LOG.warning("'%s' is left out: a link that leads out of its folder, to '%s'.", path, target)
        return "link out of the folder"
    mode = target.stat().st_mode
    return "" if stat.S_ISREG(mode) else "pipe, socket or device"


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _TIFF_SIGNATURES
    except OSError:  # whoever opens it tells
        return True
