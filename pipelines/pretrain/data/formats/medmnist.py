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
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.index import UNKNOWN, Images, Reading
from pipelines.pretrain.data_settings import PretrainData
from vision_core.errors import DataError, EnvironmentFault
from vision_core.files import atomic_path
from vision_core.randomness import key

_LOCAL_HEADER_BYTES = 30
_NAME_AT, _EXTRA_AT = 26, 28  # lengths of name and extra field in a local header
_MIB = 2**20
_SIXTEEN_BIT_STEP = 257
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


class _Header(NamedTuple):
    """What a member says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_column_major: bool
    data_at: int  # from the start of the member


@dataclass(frozen=True, kw_only=True)
class ArrayPixels:
    """Images that are rows of an array.

    Attributes:
        file: The ``.npz`` file.
        part: Name of the list, for messages.
        rows: ``(N,)`` which rows.
        array: ``(M, H, W)`` or ``(M, H, W, 3)``, uint8 or uint16.
    """

    is_whole: ClassVar[bool] = True

    file: Path
    part: str
    rows: NDArray[np.int64]
    array: NDArray[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """List and row."""
        return f"{self.part}/{self.rows[index]}"

    def path(self, index: int) -> Path:
        """The file of all of them."""
        return self.file

    def read(self, index: int) -> NDArray[np.uint8]:
        """``(H, W, 3)`` RGB; grey repeated, 16 bits scaled by 65535."""
        image = np.asarray(self.array[self.rows[index]])
        if image.dtype == np.uint16:
            image = (image.astype(np.uint32) + _SIXTEEN_BIT_STEP // 2) // _SIXTEEN_BIT_STEP
        image = image.astype(np.uint8)
        if image.ndim == 2:
            image = image[..., None]
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image

    def check_header(self, index: int) -> None:
        """Nothing: the array has been checked as a whole."""

    def keep(self, indices: NDArray[np.int64]) -> "ArrayPixels":
        """Those rows alone."""
        return replace(self, rows=self.rows[indices])

    def identity(self) -> bytes:
        """File, list, shape and rows."""
        return repr((self.file.name, self.part, self.array.shape)).encode() + self.rows.tobytes()


def read_medmnist(root: Path, split: str, data: PretrainData) -> Images:
    """One list of an ``.npz`` file.

    Args:
        root: The file, or a folder that holds one alone.
        split: ``train``, ``val`` or ``test``.
        data: Class names, limits of memory and cache.

    Raises:
        DataError: The file is damaged, lacks an array, or its arrays do not fit together.
    """
    file = find_npz(root)
    reading = Reading()
    try:
        with zipfile.ZipFile(file) as archive:
            labels = _labels(file, archive, split)
            array = _images(file, archive, split, data)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"'{file}' is no readable .npz file: {error}. Download it again.") from error
    if len(array) != len(labels):
        raise DataError(f"'{file}': '{split}' has {len(array)} images and {len(labels)} labels. Download it again.")
    classes = data.classes or _class_numbers(file, labels)
    _check_range(file, split, labels, classes)
    _compare_with_official(file, split, (len(classes), len(labels)), reading)
    return Images(
        name=f"{file.stem}:{split}",
        classes=classes,
        pixels=ArrayPixels(file=file, part=split, rows=np.arange(len(labels)), array=array),
        labels=labels,
        modalities=np.full(len(labels), "", np.str_),
        patients=np.full(len(labels), UNKNOWN, np.int64),
        notes=reading.notes(),
    )


def find_npz(root: Path) -> Path:
    """The ``.npz`` file that ``root`` is or holds.

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
    """``(N,)`` class numbers, or ``(N, classes)`` of 0 and 1."""
    info, _ = _checked(file, archive, f"{split}_labels")
    with archive.open(info) as member:
        labels = np.lib.format.read_array(member, allow_pickle=False)
    if labels.dtype.kind not in "iub" or labels.ndim not in {1, 2} or not labels.size:
        raise DataError(f"'{file}': labels of '{split}' are {_described(labels)}; whole numbers (N, 1) are expected.")
    labels = labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not np.isin(labels, (0, 1)).all():
            raise DataError(f"'{file}': '{split}' has several labels an image, which should be 0 or 1. Correct them.")
        return labels
    return labels.reshape(-1)


def _images(file: Path, archive: zipfile.ZipFile, split: str, data: PretrainData) -> NDArray[Any]:
    info, header = _checked(file, archive, f"{split}_images")
    is_known = header.dtype in {np.dtype(np.uint8), np.dtype("<u2")}
    if not is_known or len(header.shape) not in {3, 4} or (len(header.shape) == 4 and header.shape[3] not in {1, 3}):
        raise DataError(
            f"'{file}': images of '{split}' are {header.dtype} of shape '{header.shape}'; "
            "uint8 or uint16 of (N, H, W) or (N, H, W, 3) are expected."
        )
    if info.compress_type == zipfile.ZIP_STORED:
        return _mapped(file, _start_of_member(file, info) + header.data_at, header)
    if info.file_size <= data.memory_mib * _MIB:
        with archive.open(info) as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
    return _mapped(_unpacked(file, archive, info, data.cache), header.data_at, header)


def _checked(file: Path, archive: zipfile.ZipFile, name: str) -> tuple[zipfile.ZipInfo, _Header]:
    """A member whose size is that of its array, so that nothing is allocated on the word of a header."""
    info = archive.getinfo(_member(file, archive, name))
    header = _read_header(archive, info)
    if header.dtype.hasobject:
        raise DataError(f"'{file}': '{name}' holds pickled objects, which are not opened. Save it as numbers.")
    num_bytes = math.prod(header.shape) * header.dtype.itemsize
    if info.file_size != header.data_at + num_bytes:
        raise DataError(f"'{file}': '{name}' should take '{num_bytes}' bytes, but does not. Download it again.")
    return info, header


def _member(file: Path, archive: zipfile.ZipFile, name: str) -> str:
    names = archive.namelist()
    if f"{name}.npy" not in names:
        told = ", ".join(each.removesuffix(".npy") for each in names[:8]) or "nothing"
        raise DataError(f"'{file}' lacks the array '{name}'; it holds '{told}'. Correct data.split or data.root.")
    return f"{name}.npy"


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_column_major, dtype = read(member)
        return _Header(tuple(shape), dtype, is_column_major, member.tell())


def _start_of_member(file: Path, info: zipfile.ZipInfo) -> int:
    with file.open("rb") as raw:
        raw.seek(info.header_offset)
        local = raw.read(_LOCAL_HEADER_BYTES)
    lengths = (int.from_bytes(local[at : at + 2], "little") for at in (_NAME_AT, _EXTRA_AT))
    return info.header_offset + _LOCAL_HEADER_BYTES + sum(lengths)


def _mapped(path: Path, at: int, header: _Header) -> NDArray[Any]:
    if not all(header.shape):
        return np.empty(header.shape, header.dtype)
    order = "F" if header.is_column_major else "C"
    return np.memmap(path, header.dtype, "r", at, header.shape, order)  # type: ignore[call-overload,no-any-return]


def _unpacked(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, cache: Path | None) -> Path:
    """The member as a file of its own, made once."""
    if cache is None:
        raise DataError(
            f"'{file}': '{info.filename}' takes {info.file_size / _MIB:.0f} MiB unpacked. Name a folder for it as "
            "data.cache, or raise data.memory_mib."
        )
    status = file.stat()
    folder = cache / f"{file.stem}-{key(str(file.resolve()), status.st_size, status.st_mtime_ns):016x}"
    path = folder / info.filename
    if not (path.is_file() and path.stat().st_size == info.file_size):
        folder.mkdir(parents=True, exist_ok=True)
        _check_disk(folder, info.file_size)
        with atomic_path(path) as partial, archive.open(info) as member, partial.open("wb") as out:
            shutil.copyfileobj(member, out, _MIB)
    return path


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentFault(
            f"'{folder}' has {free / _MIB:.0f} MiB free; '{needed / _MIB:.0f}' are needed to unpack the images. "
            "Free some space, or set data.cache to another disk."
        )


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


def _compare_with_official(file: Path, split: str, found: tuple[int, int], reading: Reading) -> None:
    official = _OFFICIAL.get(_set_name(file))
    if official is None or split not in _PARTS:
        return
    expected = official[0], official[1 + _PARTS.index(split)]
    if found != expected:
        reading.remarks.append(
            f"'{split}' has {found[0]} classes and {found[1]} images; the published {_set_name(file)} has "
            f"{expected[0]} and {expected[1]}"
        )


def _set_name(file: Path) -> str:
    return _SIZE_SUFFIX.sub("", file.stem.lower())


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape '{array.shape}'"
