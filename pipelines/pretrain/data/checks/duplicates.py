"""Constant images and duplicates: found by their pixels, left out only on request.

Public sets hold both, within classes and across them. A list of images to leave out names each with the hash of its
content, so that a file that has changed is kept. ``<list>:<file>`` leaves a file out of one list alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.index import Images
from vision_core.errors import DataError, InputError, examples
from vision_core.files import write_atomic

_HASH_BYTES = 16
_FEW = 2000  # files that are decoded once more before a run
_END_BYTES = 256
_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Content of an image that was read."""

    part: str
    name: str
    label: str
    content: str
    is_constant: bool


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Duplicates among the images of one or several lists.

    Attributes:
        constant: Images of a single value.
        groups: Images with equal pixels, two or more in each group, in order of their lists.
    """

    constant: tuple[Seen, ...]
    groups: tuple[tuple[Seen, ...], ...]

    def across(self, attribute: str) -> list[tuple[Seen, ...]]:
        """List the groups with more than one ``part``, or more than one ``label``."""
        return [group for group in self.groups if len({getattr(each, attribute) for each in group}) > 1]

    def lines(self) -> list[str]:
        """Describe the findings, a line each."""
        kinds = {
            "in several classes": self.across("label"),
            "in several lists": self.across("part"),
            "in one class of one list": [g for g in self.groups if len({(each.part, each.label) for each in g}) == 1],
        }
        found = [
            f"the same image {where}: {len(groups)} times ({examples([_equal(group) for group in groups])})"
            for where, groups in kinds.items()
            if groups
        ]
        if self.constant:
            names = examples([each.name for each in self.constant])
            found.append(f"images of a single value: {len(self.constant)} ({names})")
        return found


def look(images: Images, index: int, pixels: NDArray[np.uint8]) -> Seen:
    """Hash the pixels of an image and tell whether they are constant."""
    record = images[index]
    return Seen(
        part=images.name,
        name=record.name,
        label=_label(images, record.label),
        content=content_hash(pixels),
        is_constant=bool((pixels == pixels[0, 0]).all()),
    )


def _label(images: Images, label: int | tuple[int, ...]) -> str:
    return images.classes[label] if isinstance(label, int) else str(label)


def content_hash(pixels: NDArray[np.uint8]) -> str:
    """Hash size and pixels: equal for one picture in two lossless formats."""
    digest = blake2b(repr(pixels.shape).encode(), digest_size=_HASH_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def find_duplicates(seen: Sequence[Seen]) -> Duplicates:
    """Group images by their content; constant ones are listed apart."""
    groups: dict[str, list[Seen]] = defaultdict(list)
    for each in seen:
        if not each.is_constant:
            groups[each.content].append(each)
    return Duplicates(
        constant=tuple(each for each in seen if each.is_constant),
        groups=tuple(tuple(group) for group in groups.values() if len(group) > 1),
    )


def equal_images(lists: Sequence[Images]) -> list[str]:
    """Tell of equal images in and between lists, a line each, without decoding large lists.

    A list of few images is compared by its pixels, as ``validate`` compares all; a long one by the bytes of its files.
    """
    is_few = sum(len(images) for images in lists if not images.pixels.is_whole) <= _FEW
    places = [(images, index) for images in lists for index in range(len(images))]
    if not is_few:
        places = _of_equal_files(places)
    with ThreadPoolExecutor(_THREADS) as threads:
        seen = [each for each in threads.map(lambda place: _seen(*place, by_bytes=not is_few), places) if each]
    found = find_duplicates(seen).lines()
    told = "" if is_few else "; compared by their bytes, validate compares their pixels"
    return [f"warning: {line}{told}" for line in found]


def _of_equal_files(places: list[tuple[Images, int]]) -> list[tuple[Images, int]]:
    """Leave out files that no other can be equal to, by their size and then their ends."""
    arrays = [place for place in places if place[0].pixels.is_whole]
    files = [place for place in places if not place[0].pixels.is_whole]
    for likeness in (_size, _end):
        groups: dict[object, list[tuple[Images, int]]] = defaultdict(list)
        with ThreadPoolExecutor(_THREADS) as threads:
            marks = threads.map(likeness, *zip(*files, strict=True)) if files else ()
            for place, mark in zip(files, marks, strict=True):
                groups[mark].append(place)
        files = [place for group in groups.values() if len(group) > 1 for place in group]
    return [*arrays, *files]


def _seen(images: Images, index: int, *, by_bytes: bool) -> Seen | None:
    try:
        if not by_bytes or images.pixels.is_whole:
            return look(images, index, images.read(index))
        content = images.pixels.path(index).read_bytes()
    except (InputError, OSError):
        return None  # the check of all files reports it
    digest = blake2b(content, digest_size=_HASH_BYTES).hexdigest()
    record = images[index]
    return Seen(
        part=images.name, name=record.name, label=_label(images, record.label), content=digest, is_constant=False
    )


def _size(images: Images, index: int) -> object:
    try:
        return images.pixels.path(index).stat().st_size
    except OSError:
        return index, images.name  # like no other


def _end(images: Images, index: int) -> object:
    """Read the end of a file, which holds sums in some formats and the last pixels in others."""
    try:
        with images.pixels.path(index).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _END_BYTES))
            return size, file.read()
    except OSError:
        return index, images.name


def write_list(path: Path, duplicates: Duplicates) -> None:
    """List what could be left out: constant images, and all but the first of each group."""
    lines = [f"{each.content}  {each.name}" for each in duplicates.constant]
    for first, *others in duplicates.groups:
        others = [each for each in others if (each.part, each.name) != (first.part, first.name)]
        lines += [f"{each.content}  {_named(each, first)}" for each in others]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def listed(path: Path) -> dict[str, str]:
    """Read a list of ``write_list``: content hashes by file, or by list and file.

    Raises:
        DataError: The list cannot be read, or a line is not a hash and a name.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"'{path}' cannot be read as a list of images. Correct data.leave_out.") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        content, _, name = line.strip().partition("  ")
        if not line.strip() or line.startswith("#"):
            continue
        if len(content) != 2 * _HASH_BYTES or not name:
            raise DataError(f"'{path}:{number}' is '{line}', not a hash, two spaces and a file. Correct the line.")
        found[name] = content
    return found


def without(images: Images, unwanted: Mapping[str, str]) -> Images:
    """Leave listed images out of an index; one whose content has changed stays, with a note."""
    left_out, changed, kept = [], [], []
    part = _split_of(images.name)
    for index in range(len(images)):
        name = images.pixels.name(index)
        expected = unwanted.get(name) or unwanted.get(f"{part}:{name}")
        if expected is None:
            kept.append(index)
        elif _content_of(images, index) == expected:
            left_out.append(name)
        else:
            changed.append(name)
            kept.append(index)
    notes = {"images left out by data.leave_out": left_out, "listed in data.leave_out but changed, kept": changed}
    told = [f"{note}: {len(names)} ({examples(names)})" for note, names in notes.items() if names]
    return images.keep(kept, *told)


def _named(spare: Seen, kept: Seen) -> str:
    """Name the file; with its list where the kept image is the same file of another list."""
    return f"{_split_of(spare.part)}:{spare.name}" if spare.name == kept.name else spare.name


def _split_of(part: str) -> str:
    """Return the list of an index's name (``<data set>:<list>``)."""
    return part.rpartition(":")[2]


def _equal(group: Sequence[Seen]) -> str:
    return " = ".join(each.name for each in group)


def _content_of(images: Images, index: int) -> str:
    try:
        return content_hash(images.read(index))
    except InputError:
        return ""  # the check of all files reports it
