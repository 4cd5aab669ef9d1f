"""Survey of a list: every frame is read once, before training and by ``validate``."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.config import FrameLabel
from pipelines.ultrasound.data.frames import Frame, FrameName, Ranges, refuse
from pipelines.ultrasound.data.lists import FrameList
from pipelines.ultrasound.data.observers import has_empty_consensus, is_present
from pipelines.ultrasound.data.subjects import hash_keys
from vision_core.errors import InputError, first_problems

_CONSTANT = b""  # frames of one value are alike for everybody


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found in the frames of a list that were read.

    Attributes:
        names: Their names.
        present: ``(n,)`` whether the organ is there.
        sizes: Height and width of each.
        pixels: A hash of the pixels of each; empty for a frame of one value.
        manifest: Hash of names, pixels and masks.
        notes: Remarks for the user.
        faults: A line for each frame that cannot be used.
        dark: A line for each file of 16 bits that is as good as black for a screen; a segmenter sees no difference.
    """

    names: tuple[FrameName, ...]
    present: NDArray[np.bool_]
    sizes: tuple[tuple[int, int], ...]
    pixels: tuple[bytes, ...]
    manifest: str
    notes: tuple[str, ...]
    faults: tuple[str, ...]
    dark: tuple[str, ...] = ()

    def refuse_faults(self, source: str) -> None:
        """Refuse a list with frames that cannot be used.

        Raises:
            InputError: There are some.
        """
        if self.faults:
            raise InputError(first_problems(self.faults, source))


def survey(
    frames: FrameList,
    rule: FrameLabel = "observer_majority",
    sample: int | None = None,
    on_item: Callable[[], None] = lambda: None,
) -> Survey:
    """Read every frame of a list once, or ``sample`` evenly spaced ones.

    Args:
        frames: The list.
        rule: What makes the organ present.
        sample: Number of frames to read; None: all.
        on_item: Called after each frame.
    """
    count = len(frames)
    places = range(count) if sample is None else sorted({each * count // sample for each in range(sample)})
    read: list[tuple[FrameName, bool, tuple[int, int], bytes, str]] = []
    faults: list[str] = []
    without_consensus, observers, ranges = 0, Counter[int](), Ranges()
    for place in places:
        try:
            frame = frames.read(place)
        except InputError as error:
            faults += error.problems
        else:
            height, width = frame.image.shape
            read.append((frame.name, is_present(frame.masks, rule), (height, width), *_hashes(frame)))
            without_consensus += has_empty_consensus(frame.masks)
            observers[len(frame.masks)] += 1
            ranges.add(frame.name.file, frame.name.text, frame.image)
        on_item()
    present = np.array([each[1] for each in read], bool)
    numbers = ", ".join(f"{number} on {each}" for number, each in sorted(observers.items()))
    notes = [f"{frames.name}: {int(present.sum())} of {len(read)} frames show the organ; observers: {numbers} frames."]
    if without_consensus:
        notes.append(
            f"{frames.name}: on {without_consensus} frames most observers see the organ and agree on no pixel of it."
        )
    dark = tuple(ranges.dark(frames.name))
    return Survey(
        names=tuple(each[0] for each in read),
        present=present,
        sizes=tuple(each[2] for each in read),
        pixels=tuple(each[3] for each in read),
        manifest=hash_keys(f"{name.text} {content}" for name, _, _, _, content in read),
        notes=(*frames.notes, *notes, *dark),
        faults=tuple(faults),
        dark=dark,
    )


def refuse_dark(surveys: Mapping[str, Survey], source: str) -> None:
    """Refuse lists with files of 16 bits that are as good as black, for a screen.

    Raises:
        DataError: There are some.
    """
    refuse(source, [line for each in surveys.values() for line in each.dark])


def refuse_shared_frames(surveys: Mapping[str, Survey], source: str) -> None:
    """Refuse the same picture in two lists, whatever its subject is called; frames of one value are left out.

    Raises:
        DataError: There is one; its score would be too good.
    """
    first: dict[bytes, tuple[str, str]] = {}
    problems = []
    for list_name, found in surveys.items():
        for name, digest in zip(found.names, found.pixels, strict=True):
            if digest == _CONSTANT:
                continue
            other, text = first.setdefault(digest, (list_name, name.text))
            if other != list_name:
                problems.append(
                    f"'{source}': '{name.text}' of '{list_name}' has the pixels of '{text}' of '{other}'. "
                    "Put all frames of a subject into one list."
                )
    refuse(source, problems)


def common_size(surveys: Sequence[Survey]) -> tuple[int, int] | None:
    """Return the height and width of all frames; None where they differ."""
    sizes = {size for each in surveys for size in each.sizes}
    return next(iter(sizes)) if len(sizes) == 1 else None


def _hashes(frame: Frame) -> tuple[bytes, str]:
    """Hash the pixels of a frame, and pixels with masks."""
    pixels = blake2b(repr(frame.image.shape).encode() + frame.image.tobytes(), digest_size=16).digest()
    masks = np.packbits(frame.masks).tobytes()
    content = blake2b(pixels + repr(frame.observers).encode() + masks, digest_size=16).hexdigest()
    return (_CONSTANT if frame.image.min() == frame.image.max() else pixels), content
