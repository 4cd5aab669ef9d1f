"""Identity of a slide: the path of its file, or for DICOM the series that its instances share; never a bare name."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from vision_core.dicom.reader import is_dicom, silence_pydicom
from vision_core.errors import InputError
from vision_core.files import Stamp, stamp
from vision_core.optional import require

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".dicom", ".czi",
     ".qptiff", ".btf", ".ptif", ".ptiff", ".tf2", ".tf8"}
)  # fmt: skip
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})

_ENDINGS = (*sorted(SLIDE_SUFFIXES), ".h5", ".hdf5", ".pt", ".pth", ".npy")
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_WITHOUT_TISSUE = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")
_TAGS = (0x00080008, 0x00080016, 0x00080060, 0x0020000E, 0x00480006, 0x00480007)  # those of ``DicomInstance``
_LAST_TAG = max(_TAGS)  # behind it stand colour profiles and positions, of megabytes
_SAMPLES, _SAMPLE_BYTES = 64, 65_536


@dataclass(frozen=True, kw_only=True)
class DicomInstance:
    """What the header of a DICOM file says about a slide.

    Attributes:
        series: Its SeriesInstanceUID.
        kind: ``VOLUME``; ``LABEL``, ``OVERVIEW`` or ``THUMBNAIL`` of a slide; else the modality, such as CT.
        pixels: Of the whole image.
    """

    series: str
    kind: str
    pixels: int = 0

    @property
    def is_slide(self) -> bool:
        """Tell whether it is an instance of a slide, of whatever kind."""
        return self.kind == "VOLUME" or self.kind in _WITHOUT_TISSUE


def slide_name(text: str) -> str:
    """Normalise a slide's name or relative path: slashes, composed Unicode, no suffix of a slide or feature file."""
    name = unicodedata.normalize("NFC", text.replace("\\", "/"))
    last = name.rpartition("/")[2]
    ending = next((end for end in _ENDINGS if last.lower().endswith(end) and len(last) > len(end)), "")
    return name.removesuffix(name[len(name) - len(ending) :]) if ending else name


def identity(path: Path) -> str:
    """Return what tells a slide from all others: its DICOM series, else its path, absolute and without links."""
    if may_be_dicom(path):
        instance = read_instance(path)
        if instance is not None and instance.is_slide:
            return f"dicom:{instance.series}"
    return os.path.realpath(path)


def may_be_dicom(path: Path) -> bool:
    """Tell DICOM by its suffix; a name without one, or that is a number as UIDs end, by the mark in the file."""
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES or (suffix and not suffix[1:].isdecimal()):
        return suffix in DICOM_SUFFIXES
    try:
        return path.is_file() and is_dicom(path)
    except OSError:
        return False


def stands_for(stated: str, path: Path) -> bool:
    """Tell whether a name or relative path, without suffix, is the end of a slide's path; case counts."""
    whole = path.absolute()
    return is_end_of(PurePosixPath(stated).parts, (*whole.parent.parts, slide_name(path.name)))


def is_end_of(parts: Sequence[str], of: Sequence[str]) -> bool:
    """Tell whether parts of a path are the last ones of another."""
    return bool(parts) and tuple(of[-len(parts) :]) == tuple(parts)


def read_instance(path: Path) -> DicomInstance | None:
    """Read the elements of a DICOM header that identify a slide, up to the image's size; None if there are none.

    Raises:
        MissingDependencyError: pydicom is not installed.
    """
    pydicom = require("pydicom", why="it reads which series a DICOM file belongs to")
    silence_pydicom(pydicom)
    from pydicom.filereader import read_partial

    try:
        with path.open("rb") as file:
            header = read_partial(file, stop_when=lambda tag, *_: tag > _LAST_TAG, specific_tags=list(_TAGS))
        return _instance(header)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        if error.errno is None:  # of pydicom, not of the disk
            return None
        raise
    except Exception:  # decoders meet a damaged file with any exception; whoever opens it tells what is wrong
        return None


def _instance(header: Any) -> DicomInstance | None:  # noqa: ANN401 (a data set of pydicom)
    series = str(header.get("SeriesInstanceUID", "") or "").strip()
    stored, modality = str(header.get("SOPClassUID", "") or ""), str(header.get("Modality", "") or "")
    is_slide = stored == _WHOLE_SLIDE or (modality == "SM" and "TotalPixelMatrixRows" in header)
    if not is_slide:
        return DicomInstance(series=series, kind=modality or "another kind") if stored or modality else None
    if not series:
        return None
    said = header.get("ImageType") or ()
    words = [str(word).upper() for word in ([said] if isinstance(said, str) else said)]
    kind = next((word for word in words if word in _WITHOUT_TISSUE), "VOLUME")
    size = (header.get("TotalPixelMatrixColumns") or 0, header.get("TotalPixelMatrixRows") or 0)
    return DicomInstance(series=series, kind=kind, pixels=int(size[0]) * int(size[1]))


def other_instances(path: Path) -> dict[str, Stamp]:
    """Stamp the other files of a DICOM slide that lie beside it, by name; none for a slide of another format.

    Raises:
        MissingDependencyError: pydicom is not installed.
    """
    own = read_instance(path) if may_be_dicom(path) else None
    if own is None or not own.is_slide:
        return {}
    beside = [each for each in sorted(path.parent.iterdir()) if each != path and each.is_file() and may_be_dicom(each)]
    found = {each: read_instance(each) for each in beside}
    return {each.name: stamp(each) for each, instance in found.items() if instance and instance.series == own.series}


@dataclass(frozen=True, kw_only=True)
class DicomSlides:
    """DICOM files sorted by series.

    Attributes:
        instances: Files of each slide by the one that represents it: the largest image of the series, first by name.
        series: Those files by SeriesInstanceUID.
        others: Names of kinds of files that are no slides, with the files.
    """

    instances: Mapping[Path, tuple[Path, ...]]
    series: Mapping[str, Path]
    others: Mapping[str, tuple[Path, ...]]


def group_dicom(paths: Iterable[Path]) -> DicomSlides:
    """Sort DICOM files: those of one series are one slide, labels and overviews are none.

    A file whose header cannot be read stands for itself, so that whoever opens it tells why.

    Raises:
        MissingDependencyError: pydicom is not installed.
    """
    series: dict[str, list[tuple[Path, DicomInstance]]] = defaultdict(list)
    others: dict[str, list[Path]] = defaultdict(list)
    found: dict[Path, tuple[Path, ...]] = {}
    named: dict[str, Path] = {}
    for path in paths:
        instance = read_instance(path)
        if instance is None:
            found[path] = (path,)
        elif instance.is_slide:
            series[instance.series].append((path, instance))
        else:
            others[f"DICOM of {instance.kind}, no slide"].append(path)
    for uid, members in series.items():
        volumes = [(path, each) for path, each in members if each.kind == "VOLUME"]
        if not volumes:
            others["DICOM label or overview without its slide"] += [path for path, _ in members]
            continue
        first = max(sorted(volumes, key=lambda member: member[0]), key=lambda member: member[1].pixels)[0]
        found[first], named[uid] = tuple(path for path, _ in members), first
        strayed = [path for path, _ in volumes if path.parent != first.parent]
        others["DICOM of a series that is read from another folder"] += strayed
    return DicomSlides(
        instances=found, series=named, others={kind: tuple(files) for kind, files in others.items() if files}
    )


def same_files(paths: Iterable[Path]) -> Iterator[tuple[Path, ...]]:
    """Find files that are there under several names: links, and copies.

    Files of one size are compared at both ends and at 64 places between; all else is never opened.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        try:
            by_size[path.stat().st_size].append(path)
        except OSError:  # whoever opens it tells
            continue
    for size, alike in by_size.items():
        groups: dict[str, list[Path]] = defaultdict(list)
        for path in alike if len(alike) > 1 and size else ():
            try:
                groups[_content(path, size)].append(path)
            except (OSError, InputError):
                continue
        yield from (tuple(group) for group in groups.values() if len(group) > 1)


def _content(path: Path, size: int) -> str:
    digest = blake2b(stamp(path).ends.encode(), digest_size=16)
    with path.open("rb") as file:
        for place in range(_SAMPLES):
            file.seek(place * size // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
