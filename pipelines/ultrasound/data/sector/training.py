"""Frames of training lists, black outside the sector of their machine and size."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.frames import Frame, FrameName, Frames
from pipelines.ultrasound.data.sector.find import UNKNOWN, Motion, Sector, decide, misfit, motion_of, sampled, told
from vision_core.config.loading import fingerprint
from vision_core.errors import InputError

_FRAMES, _FILES = 6, 32  # of a cine; single frames that are compared with each other where no cine has several
_MOST_HIDDEN = 0.01  # of an observer's mask

_Size = tuple[int, int]
_Place = tuple[str, _Size]  # machine and size


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Some frames of one cine: what they show as packed bits, and the first frame's index."""

    bits: tuple[NDArray[np.uint8], ...]
    has_several: bool
    first: int

    def motion(self, size: _Size) -> Motion:
        count = size[0] * size[1]
        moving, bright, rough = (np.unpackbits(each, count=count).view(bool).reshape(size) for each in self.bits)
        return Motion(moving=moving, bright=bright, rough=rough, has_several=self.has_several)


class MaskedFrames:
    """Frames whose pixels outside the sector are black.

    Some frames of each cine are read to find the sectors; a cine that does not fit that of its machine stays as it is.

    Args:
        frames: The frames.
        source: Their file or folder.
        known: Sectors of other lists of the same data.

    Attributes:
        inner: The frames as they are.
        names: Their names.
        found: Their sectors.
    """

    def __init__(self, frames: Frames, source: Path, known: Sequence[Sector] = ()) -> None:
        self.inner, self.names = frames, frames.names
        at = _stamp(frames, source, known)
        if at not in _FOUND:
            _FOUND[at] = _find(frames, {(each.machine, each.size): each for each in known})
        self.found = _FOUND[at]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return remarks, those of the frames included."""
        return (*self.inner.notes, *self.found.notes)

    def read(self, index: int) -> Frame:
        """Read one frame.

        Raises:
            InputError: It cannot be read, or an observer has marked what would be masked.
        """
        frame = self.inner.read(index)
        size = (frame.image.shape[0], frame.image.shape[1])
        sector = self.found.sectors.get((frame.name.machine, size))
        if sector is None or (_file_of(frame.name), size) in self.found.left:
            return frame
        hidden, marked = int((frame.masks & ~sector.inside).sum()), int(frame.masks.sum())
        if hidden > _MOST_HIDDEN * marked:
            raise InputError(
                f"'{frame.name.text}': '{hidden / marked:.0%}' of what observers marked lie outside the sector that "
                "was found. Set data.outside=keep."
            )
        return replace(frame, image=sector.shown(frame.image))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Sectors of some frames.

    Attributes:
        sectors: By machine and size.
        examples: Index of a frame of each.
        left: Cines with their size that are left as they are.
        notes: What is masked or not.
    """

    sectors: Mapping[_Place, Sector]
    examples: Mapping[_Place, int]
    left: frozenset[tuple[str, _Size]]
    notes: tuple[str, ...]


_FOUND: dict[str, Found] = {}  # the verbs of a run open the same lists several times


def _stamp(frames: Frames, source: Path, known: Sequence[Sector]) -> str:
    """Tell frames from others by names, and by size and time of their files."""
    files = {source, *(Path(name.file) for name in frames.names), *(source / name.text for name in frames.names)}
    stamps = [
        (str(path), at.st_size, at.st_mtime_ns) for path in sorted(files) if path.is_file() and (at := path.stat())
    ]
    return fingerprint([stamps, [repr(name) for name in frames.names], [each.to_record() for each in known]])


def _find(frames: Frames, known: Mapping[_Place, Sector]) -> Found:
    sectors, examples = {}, {}
    left: set[tuple[str, _Size]] = set()
    notes: list[str] = []
    for place, cines in _seen(frames).items():
        machine, size = place
        found = decide(_whole(frames, list(cines.values()), size), machine, known.get(place))
        name = f"'{machine or UNKNOWN}' at {size[0]} x {size[1]}"
        if found.sector is None:
            notes += [f"Nothing beside the sector of {name} is masked: {found.reason}."] if found.reason else []
            continue
        sectors[place], examples[place] = found.sector, next(iter(cines.values())).first
        unfit = {file: why for file, each in cines.items() if (why := misfit(each.motion(size), found.sector))}
        left |= {(file, size) for file in unfit}
        notes.append(f"{told(found.sector)}.")
        if unfit:
            file, why = next(iter(unfit.items()))
            notes.append(f"'{file}' and {len(unfit) - 1} others of {name} are not masked: {why}.")
    return Found(sectors=sectors, examples=examples, left=frozenset(left), notes=tuple(notes))


def _whole(frames: Frames, cines: Sequence[_Seen], size: _Size) -> Motion:
    """Join what the cines of a machine show; where all are single frames, these are compared with each other.

    Cines whose sector is not certain by themselves, as two pictures side by side, are left out of it.
    """
    motions = (each.motion(size) for each in cines)
    certain = [each for each in motions if each.has_several and not decide(each, "").reason]
    whole, *others = certain or [each.motion(size) for each in cines]
    for each in others:
        whole = whole.joined(each)
    if not whole.has_several and len(cines) > 1:  # text differs between stills, too, but is thin
        read = [frames.read(cines[place].first) for place in sampled(len(cines), _FILES)]
        whole = replace(motion_of([each.image for each in read], read[0].white), bright=whole.bright, rough=whole.rough)
    return whole


def _seen(frames: Frames) -> dict[_Place, dict[str, _Seen]]:
    """Read some frames of each cine, by machine and size."""
    by_file: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(frames.names):
        by_file[_file_of(name)].append(index)
    found: dict[_Place, dict[str, _Seen]] = defaultdict(dict)
    for file, indices in by_file.items():
        read: dict[_Size, list[tuple[int, Frame]]] = defaultdict(list)
        for place in sampled(len(indices), _FRAMES):
            try:
                frame = frames.read(indices[place])
            except InputError:  # the survey tells of it
                continue
            read[frame.image.shape[0], frame.image.shape[1]].append((indices[place], frame))
        for size, some in read.items():
            motion = motion_of([frame.image for _, frame in some], some[0][1].white)
            found[some[0][1].name.machine, size][file] = _Seen(
                bits=tuple(np.packbits(each) for each in (motion.moving, motion.bright, motion.rough)),
                has_several=motion.has_several,
                first=some[0][0],
            )
    return found


def _file_of(name: FrameName) -> str:
    return name.file or name.text
