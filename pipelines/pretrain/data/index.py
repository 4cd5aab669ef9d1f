"""Index of labelled images, the same for every layout on disk: a million of them in a few arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.reader import inspect_dicom, read_noted_dicom
from vision_core.images.folders import suffix_notes
from vision_core.images.reading import inspect_image, is_image_name, read_noted_image

MEGAPIXELS = "data.max_megapixels"
UNKNOWN = 0  # number of a patient without a name

MODALITIES = ("CT", "MR", "US")
JOINT = "__"  # between modality, anatomy and class in the name of a training folder


class Pixels(Protocol):
    """Source of the pixels of an index.

    Attributes:
        is_whole: Whether it is one array that was checked as a whole, so that no single image can be damaged.
    """

    is_whole: ClassVar[bool]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name an image by its file relative to the data set's folder, or by its place in an array."""
        ...

    def path(self, index: int) -> Path:
        """Return the file that holds an image."""
        ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read an image ``(H, W, 3)``, RGB."""
        ...

    def check_header(self, index: int) -> tuple[tuple[str, ...], bool]:
        """Read the header alone: notes, and whether only decoding tells if the image can be read.

        Raises:
            InputError: It shows that it cannot.
        """
        ...

    def keep(self, indices: NDArray[np.int64]) -> "Pixels":
        """Select images, in this order."""
        ...


class Entry(NamedTuple):
    """Image of a list or folder.

    Attributes:
        name: File relative to the data set's folder, with slashes.
        label: Name of its class.
        modality: Such as CT; may be empty.
        patient: Name or number in the list; may be empty, and is never stored.
    """

    name: str
    label: str
    modality: str = ""
    patient: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """Image of an index.

    Attributes:
        name: Name in messages.
        path: File that holds it.
        label: Number of its class; of several labels at once, a 0 or 1 for each class.
        modality: May be empty.
        patient: Equal for images of one patient; ``UNKNOWN`` where no number is known.
    """

    name: str
    path: Path
    label: int | tuple[int, ...]
    modality: str
    patient: int


@dataclass(frozen=True, kw_only=True)
class Images:
    """Index of the labelled images of one list.

    Attributes:
        name: Data set and list, for messages.
        classes: Names in the order of the labels.
        pixels: Source of their pixels.
        labels: ``(N,)`` int64 class numbers, or ``(N, classes)`` of 0 and 1 where an image may have several.
        modalities: ``(N,)`` text; may be empty.
        patients: ``(N,)`` int64 hashes.
        notes: Sentences for the user.
    """

    name: str
    classes: tuple[str, ...]
    pixels: Pixels
    labels: NDArray[np.int64]
    modalities: NDArray[np.str_]
    patients: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> ImageRecord:
        label = self.labels[index]
        return ImageRecord(
            name=self.pixels.name(index),
            path=self.pixels.path(index),
            label=tuple(label.tolist()) if self.is_multi_label else int(label),
            modality=str(self.modalities[index]),
            patient=int(self.patients[index]),
        )

    @property
    def is_multi_label(self) -> bool:
        """Tell whether an image may have several labels, or none."""
        return self.labels.ndim == 2

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Count the images of each class, ``(classes,)``."""
        if self.is_multi_label:
            return np.asarray(self.labels.sum(axis=0), np.int64)
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read an image ``(H, W, 3)``, RGB.

        Raises:
            InputError: It cannot be read; the message names it.
        """
        return self.pixels.read(index)

    def keep(self, indices: Sequence[int] | NDArray[np.int64], *notes: str) -> "Images":
        """Select images and add notes."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            pixels=self.pixels.keep(chosen),
            labels=self.labels[chosen],
            modalities=self.modalities[chosen],
            patients=self.patients[chosen],
            notes=(*self.notes, *notes),
        )


@dataclass(frozen=True, kw_only=True)
class Files:
    """Pixels of images that are files below a folder.

    Attributes:
        root: The folder.
        names: ``(N,)`` bytes; workers share them, while each would copy a list of paths.
        max_megapixels: Larger images are refused.
    """

    is_whole: ClassVar[bool] = False

    root: Path
    names: NDArray[np.bytes_]
    max_megapixels: float = 100.0

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Name an image by its file relative to the folder."""
        return bytes(self.names[index]).decode(errors="surrogateescape")

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        return self.root / self.name(index)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read an image ``(H, W, 3)``, RGB; a file without an image's suffix as DICOM, its first frame."""
        path = self.path(index)
        # Notes were told by the check before the run; an epoch repeats none.
        if is_image_name(path.name):
            return read_noted_image(path, self.max_megapixels, key=MEGAPIXELS)[0]
        return read_noted_dicom(path, 0, self.max_megapixels, key=MEGAPIXELS)[0]

    def check_header(self, index: int) -> tuple[tuple[str, ...], bool]:
        """Read the header alone: notes, and whether only decoding tells if the image can be read.

        Raises:
            InputError: It shows that it cannot.
        """
        path = self.path(index)
        if not is_image_name(path.name):
            return inspect_dicom(path, self.max_megapixels, key=MEGAPIXELS).notes, False
        notes, is_open = inspect_image(path, self.max_megapixels, key=MEGAPIXELS)
        return (*suffix_notes(path), *notes), is_open

    def keep(self, indices: NDArray[np.int64]) -> "Files":
        """Select files."""
        return replace(self, names=self.names[indices])


def index_files(
    entries: Sequence[Entry], classes: tuple[str, ...], root: Path, name: str, max_megapixels: float
) -> Images:
    """Build the index of files whose labels are all among ``classes``."""
    numbers = {label: number for number, label in enumerate(classes)}
    names = [entry.name.encode(errors="surrogateescape") for entry in entries]
    return Images(
        name=name,
        classes=classes,
        pixels=Files(root=root, names=np.array(names, np.bytes_), max_megapixels=max_megapixels),
        labels=np.array([numbers[entry.label] for entry in entries], np.int64),
        modalities=np.array([entry.modality for entry in entries], np.str_),
        patients=np.array([patient_number(entry.patient) for entry in entries], np.int64),
    )


def patient_number(patient: str) -> int:
    """Hash the name of a patient: equal for equal names, and no name can be read from it."""
    if not patient.strip():
        return UNKNOWN
    digest = blake2b(patient.strip().encode(errors="surrogateescape"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1) or 1


def modality_of(label: str) -> str:
    """Find the modality that a training folder's name begins with; empty where there is none."""
    first, joint, _ = label.partition(JOINT)
    return first if joint and first in MODALITIES else ""
