"""Whether an image file is cut off, by its ends and its header alone."""

from pathlib import Path
from typing import Any

from PIL import ImageFile

_TAIL_BYTES = 64
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_OFFSETS = ((273, 279), (324, 325))  # of the strips or tiles of a TIFF, and their lengths
_RIFF_HEAD = 8


def may_be_cut(path: Path, image: ImageFile.ImageFile) -> bool:
    """Tell whether an opened image does not reach the end that its format or header names.

    True also where neither tells, so that only decoding does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_RIFF_HEAD)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    if end := _ENDS.get(image.format or ""):
        return end not in tail
    if image.format == "WEBP":
        return int.from_bytes(head[4:8], "little") + _RIFF_HEAD > size
    if image.format == "BMP":
        return int.from_bytes(head[2:6], "little") > size
    if image.format == "TIFF":
        return _last_byte(getattr(image, "tag_v2", {})) > size
    if image.tile and image.tile[0].codec_name == "raw":  # PPM and PGM
        num_bytes = image.height * image.width * len(image.getbands())
        return image.tile[0].offset + num_bytes > size
    return True


def _last_byte(tags: Any) -> float:  # noqa: ANN401 (of Pillow)
    """Find the end of the last strip or tile of a TIFF; infinite where the lists do not fit."""
    for offsets, lengths in _OFFSETS:
        starts, sizes = tags.get(offsets, ()), tags.get(lengths, ())
        if starts and len(starts) == len(sizes):
            return float(max(start + length for start, length in zip(starts, sizes, strict=True)))
    return float("inf")
