"""MedMNIST: one ``.npz`` file with the images and labels of three lists, never unpickled, read where it lies.

Arrays that are stored plainly are mapped from the file. Compressed ones are held in memory up to a limit and unpacked
into the cache beyond it, so that a set of 16 GB can be trained on.
"""

import math
import re
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.index import UNKNOWN, Images
from pipelines.pretrain.data_settings import PretrainData
from vision_core.errors import DataError, EnvironmentFault, Findings
from vision_core.files import atomic_path
from vision_core.randomness import key

_NAME_LENGTH_AT, _LOCAL_HEADER_BYTES = 26, 30  # of a member of a zip file; name and extra field follow
_MIB = 2**20
_USED_BITS = (8, 10, 12, 14, 16)
_SIZE_SUFFIX = re.compile(r"_(64|128|224)$")
# Classes and images of train, val and test as published; Yang et al., "MedMNIST v2", 2023.
_OFFICIAL = {
    "pathmnist": (9, 89_996, 10_004, 7_180),
    "chestmnist": (14, 78_468, 11_219, 22_433),
    "dermamnist": (7, 7_007, 1_003, 2_005),
    "octmnist": (4, 97_477, 10_832, 1_000),
    "pneumoniamnist": (2, 4_708, 524, 624),
    "retinamnist": (5, 1_080, 120, 400),
    "breastmnist": (2, 546, 78, 156),
    "bloodmnist": (8, 11_959, 1_712, 3_421),
    "tissuemnist": (8, 165_466, 23_640, 47_280),
    "organamnist": (11, 34_561, 6_491, 17_778),
    "organcmnist": (11, 12_975, 2_392, 8_216),
    "organsmnist": (11, 13_932, 2_452, 8_827),
}
_PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class ArrayPixels:
    """Pixels of images that are rows of an array.

    Attributes:
        file: The ``.npz`` file.
        part: Name of the list, for messages.
        rows: ``(N,)`` numbers of the rows.
        array: ``(M, H, W)`` or ``(M, H, W, 3)``, uint8 or uint16.
        bits: Bits in use of 16, the same for all lists of the file.
    """

    is_whole: ClassVar[bool] = True

    file: Path
    part: str
    rows: NDArray[np.int64]
    array: NDArray[Any]
    bits: int = 16

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Name an image by its list and row."""
        return f"{self.part}/{self.rows[index]}"

    def path(self, index: int) -> Path:
        """Return the ``.npz`` file."""
        return self.file

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read an image ``(H, W, 3)`` as RGB; grey is repeated, 16 bits are scaled by the bits in use."""
        image = np.asarray(self.array[self.rows[index]])
        if image.dtype == np.uint16:
            image = np.rint(image * (255 / (2**self.bits - 1)))
        image = image.astype(np.uint8)
        if image.ndim == 2:
            image = image[..., None]
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image

    def check_header(self, index: int) -> tuple[tuple[str, ...], bool]:
        """Return nothing: the array was checked as a whole."""
        return (), False

    def keep(self, indices: NDArray[np.int64]) -> "ArrayPixels":
        """Select rows."""
        return replace(self, rows=self.rows[indices])


def read_medmnist(root: Path, split: str, data: PretrainData) -> Images:
    """Read one list of an ``.npz`` file.

    Args:
        root: The file, or a folder that holds no other.
        split: ``train``, ``val`` or ``test``.
        data: Class names, limits of memory and cache.

    Raises:
        DataError: The file is damaged, lacks an array, or its arrays do not fit together.
    """
    file = _find_npz(root)
    findings = Findings()
    try:
        with zipfile.ZipFile(file) as archive:
            labels = _labels(file, archive, split)
            array = _images(file, archive, split, data)
            bits = _bits_in_use(file, archive, data) if array.dtype == np.uint16 else _USED_BITS[-1]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"'{file}' is no readable .npz file: {error}. Download it again.") from error
    if len(array) != len(labels):
        raise DataError(f"'{file}': '{split}' has {len(array)} images and {len(labels)} labels. Download it again.")
    classes = data.classes or _class_numbers(file, labels)
    _check_range(file, split, labels, classes)
    _compare_with_official(file, split, (len(classes), len(labels)), findings)
    if bits < _USED_BITS[-1]:
        findings.note(f"its images use {bits} of 16 bits, and are read as such")
    return Images(
        name=f"{file.stem}:{split}",
        classes=classes,
        pixels=ArrayPixels(file=file, part=split, rows=np.arange(len(labels)), array=array, bits=bits),
        labels=labels,
        modalities=np.full(len(labels), "", np.str_),
        patients=np.full(len(labels), UNKNOWN, np.int64),
        notes=findings.notes,
    )


def _find_npz(root: Path) -> Path:
    """Find the ``.npz`` file that ``root`` is or holds.

    Raises:
        DataError: There is none, or several.
    """
    if root.is_file():
        return root
    found = sorted(root.glob("*.npz")) if root.is_dir() else []
    if len(found) != 1:
        told = ", ".join(path.name for path in found) or "none"
        raise DataError(f"'{root}' should be an .npz file or hold one; it holds '{told}'. Give the file as data.root.")
    return found[0]


def _labels(file: Path, archive: zipfile.ZipFile, split: str) -> NDArray[np.int64]:
    """Read ``(N,)`` class numbers, or ``(N, classes)`` of 0 and 1."""
    info, _, _ = _checked(file, archive, f"{split}_labels")
    with archive.open(info) as member:
        labels = np.lib.format.read_array(member, allow_pickle=False)
    if labels.dtype.kind not in "iub" or labels.ndim not in {1, 2} or not labels.size:
        raise DataError(
            f"'{file}': labels of '{split}' are {labels.dtype} of shape '{labels.shape}'; "
            "whole numbers (N, 1) are expected."
        )
    labels = labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not np.isin(labels, (0, 1)).all():
            raise DataError(f"'{file}': '{split}' has several labels an image, which should be 0 or 1. Correct them.")
        return labels
    return labels.reshape(-1)


def _images(file: Path, archive: zipfile.ZipFile, split: str, data: PretrainData) -> NDArray[Any]:
    """Map or read ``(N, H, W)`` or ``(N, H, W, 1 or 3)``, uint8 or uint16."""
    info, shape, dtype = _checked(file, archive, f"{split}_images")
    is_known = dtype in {np.dtype(np.uint8), np.dtype("<u2")}
    if not is_known or len(shape) not in {3, 4} or (len(shape) == 4 and shape[3] not in {1, 3}):
        raise DataError(
            f"'{file}': images of '{split}' are {dtype} of shape '{shape}'; "
            "uint8 or uint16 of (N, H, W) or (N, H, W, 3) are expected."
        )
    if info.compress_type == zipfile.ZIP_STORED:
        return _mapped(file, info)
    if info.file_size <= data.memory_mib * _MIB:
        with archive.open(info) as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
    return np.lib.format.open_memmap(_unpacked(file, archive, info, data.cache), mode="r")


def _bits_in_use(file: Path, archive: zipfile.ZipFile, data: PretrainData) -> int:
    """Find the least number of bits that holds the values of all lists: cameras write 12 bits into 16."""
    there = [part for part in _PARTS if f"{part}_images.npy" in archive.namelist()]
    arrays = [_images(file, archive, part, data) for part in there]
    largest = max((int(each.max(initial=0)) for each in arrays if each.dtype == np.uint16), default=0)
    return next(bits for bits in _USED_BITS if largest < 2**bits)


def _checked(file: Path, archive: zipfile.ZipFile, name: str) -> tuple[zipfile.ZipInfo, tuple[int, ...], np.dtype[Any]]:
    """Find a member with its shape and type; its size must fit, so that no header makes us allocate more."""
    if f"{name}.npy" not in archive.namelist():
        told = ", ".join(each.removesuffix(".npy") for each in archive.namelist()[:8]) or "nothing"
        raise DataError(f"'{file}' lacks the array '{name}'; it holds '{told}'. Correct data.split or data.root.")
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        shape, _, dtype = _header(member)
        header_bytes = member.tell()
    if dtype.hasobject:
        raise DataError(f"'{file}': '{name}' holds pickled objects, which are not opened. Save it as numbers.")
    num_bytes = math.prod(shape) * dtype.itemsize
    if info.file_size != header_bytes + num_bytes:
        raise DataError(f"'{file}': '{name}' should take '{num_bytes}' bytes, but does not. Download it again.")
    return info, shape, dtype


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: shape, whether it is column-major, type; the data follow."""
    is_first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, is_column_major, dtype = read(file)
    return tuple(shape), is_column_major, dtype


def _mapped(file: Path, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Map the array of a member that is stored without compression; numpy maps files of one array alone."""
    with file.open("rb") as raw:
        raw.seek(info.header_offset + _NAME_LENGTH_AT)
        name_length, extra_length = (int.from_bytes(raw.read(2), "little") for _ in range(2))
        raw.seek(info.header_offset + _LOCAL_HEADER_BYTES + name_length + extra_length)
        shape, is_column_major, dtype = _header(raw)
        return np.memmap(raw, dtype, "r", raw.tell(), shape, "F" if is_column_major else "C")


def _unpacked(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, cache: Path | None) -> Path:
    """Unpack a member once into the cache; returns its file."""
    if cache is None:
        raise DataError(
            f"'{file}': '{info.filename}' takes {info.file_size / _MIB:.0f} MiB unpacked. Name a folder for it as "
            "data.cache, or raise data.memory_mib."
        )
    status = file.stat()
    folder = cache / f"{file.stem}-{key(str(file.resolve()), status.st_size, status.st_mtime_ns):016x}"
    path = folder / info.filename
    if path.is_file() and path.stat().st_size == info.file_size:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < info.file_size:
        raise EnvironmentFault(
            f"'{folder}' has {free / _MIB:.0f} MiB free; '{info.file_size / _MIB:.0f}' are needed to unpack the "
            "images. Free some space, or set data.cache to another disk."
        )
    with atomic_path(path) as partial, archive.open(info) as member, partial.open("wb") as out:
        shutil.copyfileobj(member, out, _MIB)
    return path


def _class_numbers(file: Path, labels: NDArray[np.int64]) -> tuple[str, ...]:
    if labels.ndim == 2:
        return tuple(str(number) for number in range(labels.shape[1]))
    official = _OFFICIAL.get(_set_name(file), (0,))[0]
    return tuple(str(number) for number in range(max(official, int(labels.max()) + 1)))


def _check_range(file: Path, split: str, labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    if labels.ndim == 2 and labels.shape[1] != len(classes):
        raise DataError(
            f"'{file}' has '{labels.shape[1]}' labels an image, data.classes has {len(classes)}. Correct them."
        )
    if labels.ndim == 1 and not 0 <= labels.min() <= labels.max() < len(classes):
        raise DataError(
            f"'{file}': labels of '{split}' run from '{labels.min()}' to '{labels.max()}'; "
            f"{len(classes)} classes are numbered from 0. Correct data.classes."
        )


def _compare_with_official(file: Path, split: str, found: tuple[int, int], findings: Findings) -> None:
    official = _OFFICIAL.get(_set_name(file))
    if official is None or split not in _PARTS:
        return
    expected = official[0], official[1 + _PARTS.index(split)]
    if found != expected:
        findings.note(
            f"'{split}' has {found[0]} classes and {found[1]} images; the published {_set_name(file)} has "
            f"{expected[0]} and {expected[1]}"
        )


def _set_name(file: Path) -> str:
    return _SIZE_SUFFIX.sub("", file.stem.lower())
