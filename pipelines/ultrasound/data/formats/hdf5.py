"""HDF5 files of frames, in both published layouts, which the keys tell apart.

Nested: ``frame_SSSS_FFF`` and ``label_SSSS_FFF_OO`` of subject, frame and observer. Flat: ``frame_NNNNN`` and
``label_NNNNN_OO``, where a file ``subjects.csv`` (``index,subject``) beside it may name the subjects.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.ultrasound.data.frames import MAX_MEGAPIXELS, Frame, FrameName, Grey, Mask, refuse, to_mask, white_of
from pipelines.ultrasound.data.subjects import SUBJECTS, read_subjects
from vision_core.errors import DataError, InputError
from vision_core.optional import require

Layout = Literal["nested", "flat"]

_KEY = re.compile(r"(?P<kind>frame|label)(?P<numbers>(_\d{1,9})+)", re.ASCII)
_LIKE_A_KEY = re.compile(r"(?P<kind>frame|label)s?(?P<numbers>([\W_]*\d+)+)[\W_]*", re.ASCII)
_NUMBER = re.compile(r"\d+", re.ASCII)
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # h5py meets it with any of them
_NUMBERS_OF: Mapping[Layout, int] = {"nested": 2, "flat": 1}  # of a frame's key; a label's has one more
_EXAMPLES: Mapping[Layout, str] = {"nested": "frame_0000_000", "flat": "frame_00000"}

_Numbers = tuple[int, ...]


class H5Frames:
    """Frames of an HDF5 file; every process opens the file for itself, when it first reads.

    Args:
        path: The file.
        allow_unlabelled: Whether frames may lack labels; else they are refused.

    Attributes:
        layout: Which of both layouts the keys follow.
        names: Names of the frames, by subject and number.
        notes: What is left out.

    Raises:
        DataError: The file is no HDF5, or its keys are of neither layout, of both, doubled, or lack a frame or a label.
    """

    def __init__(self, path: Path, *, allow_unlabelled: bool = False) -> None:
        self.path = path
        self._open: tuple[int, Any] | None = None
        with _opened(path) as file:
            keys, links = list(file), _links(file)
        advice = "Store each frame as a dataset of this file."
        refuse(str(path), [f"'{path}': key '{key}' is {kind}. {advice}" for key, kind in links])
        frames, labels, other = _sorted(path, keys)
        self.layout = _layout(path, frames)
        self._labels = _by_frame(path, labels, frames, allow_unlabelled=allow_unlabelled)
        self._frames = [key for _, key in sorted(frames.items())]
        self.names = self._named(sorted(frames))
        shown = ", ".join(f"'{key}'" for key in other[:3]) + (", …" if len(other) > 3 else "")
        told = f"'{path}': {len(other)} keys are neither frame nor label and left out ({shown})."
        self.notes: tuple[str, ...] = (told,) if other else ()
        self.has_other_foreground = False

    def read(self, index: int) -> Frame:
        """Read one frame and its masks.

        Raises:
            InputError: It cannot be read, or a mask does not fit.
        """
        image, white = self.image(index)
        key = self._frames[index]
        labels = self._labels.get(key, {})
        masks = [self._mask(each, image.shape) for each in labels.values()]
        stacked = np.stack(masks) if masks else np.zeros((0, *image.shape), bool)
        return Frame(name=self.names[index], image=image, white=white, masks=stacked, observers=tuple(labels))

    def image(self, index: int) -> tuple[Grey, float]:
        """Read the grey of a frame and its value of white, without its masks; raises as ``read``."""
        key = self._frames[index]
        image = self._values(key)
        return image, white_of(image, f"'{self.path}': '{key}'")

    def close(self) -> None:
        """Close the file in this process."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def _named(self, numbers: list[_Numbers]) -> tuple[FrameName, ...]:
        if self.layout == "nested":
            subjects = {each: f"{each[0]:04d}" for each in numbers}
        else:
            subjects = read_subjects(self.path.parent / SUBJECTS, [each[0] for each in numbers])
        return tuple(
            FrameName(subject=subjects.get(each), number=each[-1], text=key, file=subjects.get(each, ""))
            for each, key in zip(numbers, self._frames, strict=True)
        )

    def _mask(self, key: str, size: tuple[int, ...]) -> Mask:
        mask, is_other = to_mask(self._values(key, is_label=True), size, f"'{self.path}': '{key}'")
        if is_other and not self.has_other_foreground:
            self.has_other_foreground = True
            self.notes += (f"'{self.path}': masks hold another value than 1 for the organ; all above 0 is taken.",)
        return mask

    def _values(self, key: str, *, is_label: bool = False) -> Grey:
        try:
            stored = self._file()[key]
            if np.prod(stored.shape, dtype=float) > MAX_MEGAPIXELS * 1e6:
                raise InputError(
                    f"'{self.path}': '{key}' has shape '{stored.shape}', more than {MAX_MEGAPIXELS:g} million."
                )
            if is_label and stored.size and not stored.id.get_storage_size():  # it reads as a mask without the organ
                raise InputError(
                    f"'{self.path}': '{key}' was made and never written. Write the mask, zeros if nothing is marked, "
                    "or remove the key."
                )
            values: Grey = np.asarray(stored)
        except _DAMAGE as error:
            raise InputError(f"'{self.path}': '{key}' cannot be read ({error}). Copy the file again.") from error
        return values

    def _file(self) -> Any:  # noqa: ANN401 (h5py carries no types)
        """Return the open file of this process: HDF5's handles do not survive a fork."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), _open(self.path))
        return self._open[1]


def _open(path: Path) -> Any:  # noqa: ANN401
    h5py = require("h5py", "frames in HDF5 are read by it")
    if not path.is_file():
        raise DataError(f"'{path}' is not a file. Give an HDF5 file of frames.")
    try:
        return h5py.File(path, "r", locking=False)
    except (OSError, RuntimeError) as error:
        raise DataError(f"'{path}' cannot be opened as HDF5 ({error}). Copy or make it again.") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    file = _open(path)
    try:
        yield file
    except _DAMAGE as error:
        raise DataError(f"'{path}' is a damaged HDF5 file ({error}). Copy or make it again.") from error
    finally:
        with suppress(OSError, RuntimeError):
            file.close()


def _links(file: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    """List keys that are no datasets of this file: groups, and links and values that may lead to another file."""
    h5py = require("h5py", "frames in HDF5 are read by it")
    found = []
    for key in file:
        if not isinstance(file.get(key, getlink=True), h5py.HardLink):
            found.append((key, "a link"))
        elif file.get(key, getclass=True) is not h5py.Dataset:
            found.append((key, "a group"))
        elif file[key].is_virtual or file[key].external:
            found.append((key, "a dataset whose values are taken from other files"))
    return found


def _sorted(path: Path, keys: list[str]) -> tuple[dict[_Numbers, str], dict[_Numbers, str], list[str]]:
    """Divide the keys into frames and labels by their numbers, and others."""
    frames: dict[_Numbers, str] = {}
    labels: dict[_Numbers, str] = {}
    other, problems = [], []
    for key in keys:
        found = _KEY.fullmatch(key)
        if found is None:
            if key.lower().startswith(("frame", "label")):
                problems.append(f"'{path}': key '{key}' {_why_no_key(key)}")
            other.append(key)
            continue
        numbers = tuple(map(int, found["numbers"][1:].split("_")))
        kind = frames if found["kind"] == "frame" else labels
        if numbers in kind:
            problems.append(f"'{path}': keys '{kind[numbers]}' and '{key}' have the same numbers. Keep one of them.")
        kind[numbers] = key
    refuse(str(path), problems)
    return frames, labels, other


def _why_no_key(key: str) -> str:
    """Tell what keeps a key that begins as those of frames and labels from being one; the rest of a sentence."""
    alike = _LIKE_A_KEY.fullmatch(key.lower())
    if alike is None:
        return (
            "has no number where one is expected. Name it as frame_0000_000 and label_0000_000_00, or frame_00000 and "
            "label_00000_00."
        )
    nearest = "_".join([alike["kind"], *_NUMBER.findall(alike["numbers"])])
    if _KEY.fullmatch(nearest) is None:
        return "has a number of more than 9 digits. Number subjects and frames from 0."
    return f"is not written as keys are, in small letters and with one '_' before each number. Name it '{nearest}'."


def _layout(path: Path, frames: Mapping[_Numbers, str]) -> Layout:
    lengths = {len(numbers): key for numbers, key in frames.items()}
    for layout, length in _NUMBERS_OF.items():
        if set(lengths) == {length}:
            return layout
    if not lengths:
        raise DataError(f"'{path}' has '0' keys of frames. Name them {' or '.join(_EXAMPLES.values())}.")
    shown = " and ".join(f"'{key}'" for key in lengths.values())
    raise DataError(
        f"'{path}' has keys such as {shown}: neither layout. Name all as {' or as '.join(_EXAMPLES.values())}."
    )


def _by_frame(
    path: Path, labels: Mapping[_Numbers, str], frames: Mapping[_Numbers, str], *, allow_unlabelled: bool
) -> dict[str, dict[int, str]]:
    """List the labels of each frame's key by observer."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    problems = []
    for numbers, key in sorted(labels.items()):
        if numbers[:-1] in frames:
            found[frames[numbers[:-1]]][numbers[-1]] = key
        else:
            problems.append(
                f"'{path}': key '{key}' is the label of no frame of this file. Add the frame, or remove it."
            )
    if not allow_unlabelled:
        problems += [
            f"'{path}': key '{key}' has no label. Add 'label{key[5:]}_00', or remove the frame."
            for _, key in sorted(frames.items())
            if key not in found
        ]
    refuse(str(path), problems)
    return dict(found)
