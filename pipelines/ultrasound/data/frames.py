"""A frame with its observers' masks, as every layout gives it, and the checks that all layouts share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import DataError, InputError
from vision_core.randomness import key

Mask = NDArray[np.bool_]
Grey = NDArray[Any]

MAX_MEGAPIXELS = 100.0
MOST_REPEATS = 15  # 60 frames a second of a machine that makes 4
_WHITE_OF = {"u1": 255.0, "u2": 65535.0}
_FOREGROUND = (1.0, 255.0, 65535.0)
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_SHOWN = 4
_LEAST_USED = 1 / 16  # of 16 bits: 12 in use of 16, or 8 of 12
_COLOURED = 60  # difference of channels: more than the usual tints of grey
_LEAST_FLOW, _LEAST_GREY, _DENSE_FLOW, _AROUND = 0.005, 0.2, 0.5, 40  # shares; the longer side over the surroundings


@dataclass(frozen=True, kw_only=True)
class FrameName:
    """Name of a frame.

    Attributes:
        subject: Whose frame it is; None where the layout does not say.
        number: Number of the frame: of the subject, or of the file where there are no subjects.
        text: How the file calls it.
        file: Where it lies among frames that follow each other; empty where frames are single.
        machine: Manufacturer and model of the machine; empty where it is not known.
        patient: Hash of the patient's number; empty where the file has none.
    """

    subject: str | None
    number: int
    text: str
    file: str = ""
    machine: str = ""
    patient: str = ""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame and the masks of its observers.

    Attributes:
        name: Its name.
        image: ``(H, W)`` grey, in the type that was stored.
        white: Value of white: 255, or 65535 for 16 bits.
        masks: ``(k, H, W)``; ``k`` may differ between frames, and is 0 without labels.
        observers: Numbers of the observers, ``k`` of them.
        has_flow: Whether colours lay over its grey.
    """

    name: FrameName
    image: Grey
    white: float
    masks: Mask
    observers: tuple[int, ...]
    has_flow: bool = False


class Frames(Protocol):
    """Frames of a file or folder, read one at a time."""

    @property
    def names(self) -> tuple[FrameName, ...]:
        """Return the names, by subject and number."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return remarks for the user, among them what is left out."""

    def read(self, index: int) -> Frame:
        """Read one frame.

        Raises:
            InputError: It cannot be read, or its masks do not fit.
        """


def frames_of(frames: Frames, subjects: frozenset[str]) -> list[int]:
    """List the indices of the frames of some subjects."""
    return [index for index, name in enumerate(frames.names) if name.subject in subjects]


def one_a_subject(frames: Frames, indices: Sequence[int], seed: int, epoch: int) -> list[int]:
    """Draw one frame of each subject among ``indices`` for an epoch, as published training does.

    Frames without a subject are subjects of their own. Never for validation or test, which would become random.
    """
    by_subject: dict[str, list[int]] = {}
    for index in indices:
        by_subject.setdefault(frames.names[index].subject or f"frame {index}", []).append(index)
    return [
        own[int(np.random.default_rng(key("frame", seed, epoch, subject)).integers(len(own)))]
        for subject, own in by_subject.items()
    ]


def grey_of(rgb: Grey) -> Grey:
    """Take the grey ``(H, W)`` of an RGB image ``(H, W, 3)`` of 8 bits: its luminance where it has colours.

    What is grey already is returned as it is.
    """
    if rgb.ndim == 2:
        return rgb
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        return np.asarray(rgb[..., 0])
    return np.asarray(np.rint(rgb @ _LUMINANCE), np.uint8)


def grey_and_flow(rgb: Grey) -> tuple[Grey, bool]:
    """Take the grey of an image as ``grey_of``, and whether colours lie over it as ``has_flow``."""
    grey = grey_of(rgb)
    is_grey = grey is rgb or grey.base is not None  # one channel of equal ones: most frames, and no time is lost
    return grey, not is_grey and has_flow(rgb)


def has_flow(rgb: Grey) -> bool:
    """Tell whether colours lie over the grey of an RGB image ``(H, W, 3)`` of 8 bits, as those of Doppler do.

    A tint of the whole picture does not count, nor do letters, traces and small marks.
    """
    if rgb.ndim == 2:
        return False
    highest = rgb.max(axis=2)
    spread = highest - rgb.min(axis=2)
    coloured, bright = spread > _COLOURED, highest > _COLOURED
    if coloured.mean() < _LEAST_FLOW or (bright & ~coloured).sum() < _LEAST_GREY * bright.sum():
        return False
    side = max(max(coloured.shape) // _AROUND, 3)
    return bool((cv2.blur(coloured.astype(np.float32), (side, side)) >= _DENSE_FLOW).mean() >= _LEAST_FLOW)


def repeats(images: Sequence[Grey], before: Grey | None = None, count: int = 0) -> NDArray[np.int64]:
    """Count for each frame how often in a row it repeats the one before, pixel by pixel; 0 where it differs.

    A few times are those of a video that was brought to another rate; above ``MOST_REPEATS`` a cine is frozen.

    Args:
        images: ``(H, W)`` each, in the order of the cine.
        before: The frame before the first; None at the start.
        count: That of the frame before.

    Returns:
        ``(F,)``.
    """
    found = []
    for image in images:
        count = count + 1 if before is not None and np.array_equal(before, image) else 0
        found.append(count)
        before = image
    return np.array(found, np.int64)


class Ranges:
    """Ranges of files whose frames have 16 bits: their largest value, which is near white unless bits are unused."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, int, float]] = {}

    def add(self, file: str, text: str, image: Grey) -> None:
        """Add a frame ``(H, W)`` of a file; one of 8 bits, or of a single value, tells nothing."""
        if image.dtype.str[1:] == "u2" and image.min() < image.max():
            first, count, largest = self._of.get(file, (text, 0, 0.0))
            self._of[file] = first, count + 1, max(largest, float(image.max()) / _WHITE_OF["u2"])

    def dark(self, source: str) -> list[str]:
        """List the files that are as good as black for a network that knows frames from black to white."""
        return [
            f"'{source}': {count} frames of 16 bits, from '{first}' on, reach '{largest:.1%}' of white at most: black "
            "for a screen. Save them with 8 bits, or over all 16 (in DICOM, state the bits in use as BitsStored)."
            for first, count, largest in self._of.values()
            if largest < _LEAST_USED
        ]


def white_of(image: Grey, where: str) -> float:
    """Return the value of white of an image's type, after checking the image.

    Raises:
        InputError: It is not a grey image of one frame, of another type, empty, or not finite.
    """
    if image.ndim != 2 or not image.size:
        raise InputError(f"{where} has shape '{image.shape}'; expected (height, width). Store one grey frame a key.")
    if image.dtype.str[1:] in _WHITE_OF:
        return _WHITE_OF[image.dtype.str[1:]]
    if image.dtype.kind not in "iufb":
        raise InputError(f"{where} has the type '{image.dtype}'; expected 8 or 16 bits. Store it as uint8.")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255):  # NaN fails both
        raise InputError(f"{where} holds values from '{low:g}' to '{high:g}'; expected 0 to 255. Store it as uint8.")
    if image.dtype.kind == "f" and high <= 1 and (image % 1).any():  # black, for a network that knows 0 to 255
        raise InputError(f"{where} holds fractions from '{low:g}' to '{high:g}'; expected 0 to 255. Store it as uint8.")
    return 255.0


def to_mask(values: Grey, size: tuple[int, ...], where: str) -> tuple[Mask, bool]:
    """Take an observer's mask from stored values, and whether its foreground was not stored as 1.

    Raises:
        InputError: Its size is not that of the image, or it holds other values than 0 and one of 1, 255 and 65535.
    """
    if values.shape != size:
        raise InputError(
            f"{where} has shape '{values.shape}', its image {size}. Store the mask in the pixels of the image."
        )
    if values.dtype == bool:
        return values, False
    found = np.unique(values) if values.dtype.kind in "iuf" else np.array([np.nan])
    foreground = [float(each) for each in found if each != 0]
    if len(foreground) > 1 or not set(foreground) <= set(_FOREGROUND):
        listed = ", ".join(f"{each:g}" for each in found[:_SHOWN].astype(float)) + (
            ", …" if len(found) > _SHOWN else ""
        )
        raise InputError(f"{where} holds the values '{listed}'; expected 0 and 1, or 0 and 255. Store a binary mask.")
    return np.asarray(values > 0), foreground not in ([], [1.0])


def refuse(source: str, problems: list[str]) -> None:
    """Refuse a file or folder, naming the first problems and counting the others.

    Raises:
        DataError: There are problems.
    """
    if problems:
        more = [f"'{source}': {len(problems) - _SHOWN} more of this kind."] if len(problems) > _SHOWN else []
        raise DataError([*problems[:_SHOWN], *more])
