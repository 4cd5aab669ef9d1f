"""Image files of common formats: listed, read as 8-bit RGB arrays with every refusal named, resized."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from vision_core.errors import DataError, InputError
from vision_core.images.conversion import DeepGrey, has_deep_values, header_notes, refuse_planes, to_deep_grey, to_rgb
from vision_core.images.notes import tell
from vision_core.images.wholeness import may_be_cut

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})
FIRST_TURNED = 5  # EXIF orientations 5 to 8 exchange width and height

_ORIENTATION_TAG = 0x0112
_LAST_TURNED = 8
_NOTED_SCALE = 0.5
_PNG_SIGNATURE_BYTES = 8
_PNG_TEXTS = frozenset({b"eXIf", b"iTXt", b"tEXt", b"zTXt"})
_LOG = logging.getLogger("domainsight")


def list_images(folder: Path) -> list[Path]:
    """List the image files of ``folder`` itself, as ``list_files`` does.

    Raises:
        DataError: There is no such folder, or no image in it; the message counts what it holds instead.
    """
    if not folder.is_dir():
        raise DataError(f"'{folder}' is not a folder. Give a folder of images.")
    images = list_files(folder, is_image_name)
    if not images:
        others = (path for path in folder.iterdir() if not path.name.startswith("."))
        kinds = Counter("folders" if path.is_dir() else path.suffix.lower() or "without suffix" for path in others)
        found = "".join(f"; {count} {kind}" for kind, count in kinds.most_common(4))
        raise DataError(f"'{folder}' holds 0 images{found}. Give the folder that the images themselves lie in.")
    return images


def list_files(folder: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    """List the files of ``folder`` itself with wanted names, sorted, without hidden ones.

    Links that lead out of the folder, in a circle or to nothing are left out and named in a warning.
    """
    with os.scandir(folder) as entries:
        wanted = [entry for entry in entries if not entry.name.startswith(".") and is_wanted(entry.name)]
    inside, found = folder.resolve(), []
    for entry in sorted(wanted, key=lambda entry: entry.name):
        if not stays_inside(entry, inside):
            _LOG.warning("'%s' is a link out of its folder, in a circle or to nothing; left out.", folder / entry.name)
        elif entry.is_file():
            found.append(folder / entry.name)
    return found


def is_image_name(name: str) -> bool:
    """Tell whether the suffix is one that ``read_image`` knows."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def stays_inside(entry: "os.DirEntry[str]", folder: Path) -> bool:
    """Tell whether an entry is no link, or a link to something below ``folder``, a resolved path."""
    if not entry.is_symlink():
        return True
    try:
        return Path(entry.path).resolve(strict=True).is_relative_to(folder)
    except (OSError, RuntimeError):  # to nothing, or in a circle
        return False


def read_image(path: Path, max_megapixels: float = 100.0, *, key: str = "") -> NDArray[np.uint8]:
    """Read an image completely; what was decided for it is a warning.

    The rules: the orientation of the camera is applied; samples of more than 8 bits are scaled by the bits in use
    (8, 10, 12, 14 or 16), which is noted where they are fewer than 16; transparency is laid over white; palettes, CMYK
    and 1-bit are converted; of an animation or a multi-page file the first frame is used; colour profiles are not
    applied.

    Args:
        path: The file.
        max_megapixels: Larger images are refused by their header, undecoded. Pillow's own limit is 178.
        key: Setting of the running verb that raises this limit, for the message; empty: it has none.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        InputError: The file is missing, empty, damaged, too large or no image.
        OSError: The disk or share failed while reading; trying again may help.
    """
    pixels, notes = read_noted_image(path, max_megapixels, key=key)
    tell(path, notes)
    return pixels


def read_noted_image(
    path: Path, max_megapixels: float = 100.0, *, key: str = ""
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read an image as ``read_image``; returns it with notes, which begin with the file's name."""
    with _opened(path, max_megapixels, key) as image:
        picture, notes = to_rgb(path, image)
        return np.array(picture), notes


def read_deep_grey(path: Path, max_megapixels: float = 100.0) -> DeepGrey | None:
    """Read the stored values of a grey image of more than 8 bits; None for any other. Raises as ``read_image``."""
    with _opened(path, max_megapixels, "") as image:
        return to_deep_grey(path, image)


def inspect_image(path: Path, max_megapixels: float = 100.0, *, key: str = "") -> tuple[tuple[str, ...], bool]:
    """Read the header of an image: notes, and whether only decoding tells if and how it can be read.

    Raises:
        InputError: The header shows that it cannot be read.
        OSError: As ``read_image``.
    """
    with _opened(path, max_megapixels, key) as image:
        refuse_planes(path, image)
        return header_notes(image), has_deep_values(image) or may_be_cut(path, image)


@contextmanager
def _opened(path: Path, max_megapixels: float, key: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image; every fault within the block is one of the file, but for those of the disk."""
    try:
        _refuse_empty(path)
        with path.open("rb") as file, Image.open(file) as image:
            _refuse_huge(path, image.size, max_megapixels, key)
            yield image
    except InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"'{path}' is refused as a decompression bomb: {error}.") from error
    except Exception as error:  # decoders meet a damaged file with any exception; errno marks those of the disk
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"'{path}' cannot be decoded: {_diagnose(path, error)}.") from error


def image_size(path: Path) -> tuple[int, int]:
    """Read ``(height, width)`` in pixels from the header alone, the orientation applied.

    Raises:
        InputError: The header cannot be read.
    """
    return size_and_orientation(path)[0]


def size_and_orientation(path: Path) -> tuple[tuple[int, int], int]:
    """Read size, as ``image_size``, and EXIF orientation, 1 to 8, from the header alone.

    Raises:
        InputError: The header cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = _exif(path, image).get(_ORIENTATION_TAG, 1)
    except Exception as error:  # as in read_image
        raise InputError(f"'{path}' has no readable image header: {_diagnose(path, error)}.") from error
    orientation = orientation if orientation in range(1, _LAST_TURNED + 1) else 1
    is_turned = orientation >= FIRST_TURNED
    return (width, height) if is_turned else (height, width), orientation


def shortest_edge_size(size: tuple[int, int], shortest_px: int, longest_px: int) -> tuple[int, int]:
    """Compute a size with its shorter edge at ``shortest_px`` and its longer at ``longest_px`` at most.

    The order of the operations is detectron2's, because it decides how halves are rounded.

    Args:
        size: ``(height, width)``.
        shortest_px: Wanted shorter edge; 0 to keep it.
        longest_px: Largest longer edge.

    Returns:
        ``(height, width)``.
    """
    shortest_px = shortest_px or min(size)
    scale = shortest_px / min(size)
    edges = [float(shortest_px) if edge == min(size) else scale * edge for edge in size]
    if max(edges) > longest_px:
        shrink = longest_px / max(edges)
        edges = [edge * shrink for edge in edges]
    return int(edges[0] + 0.5), int(edges[1] + 0.5)


def shrink_notes(size: tuple[int, int], shortest_px: int, longest_px: int) -> tuple[str, ...]:
    """Note on an image that ``resize_shortest`` shrinks below half: the rest of a sentence; empty for others.

    Args:
        size: ``(height, width)``.
        shortest_px: As for ``resize_shortest``.
        longest_px: Likewise.
    """
    height, width = shortest_edge_size(size, shortest_px, longest_px)
    if height >= size[0] * _NOTED_SCALE:
        return ()
    return (
        f"has {size[1]} x {size[0]} pixels, of which the model sees {width} x {height}: small objects are lost. "
        "Cut it into tiles",
    )


def resize_shortest(image: NDArray[np.uint8], shortest_px: int, longest_px: int) -> NDArray[np.uint8]:
    """Resize ``(H, W, 3)`` uint8 to the pixels of detectron2's test-time resize (Pillow, bilinear)."""
    height, width = shortest_edge_size(image.shape[:2], shortest_px, longest_px)
    if (height, width) == image.shape[:2]:
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _exif(path: Path, image: Image.Image) -> Image.Exif:
    """Read EXIF from the header; a PNG is decoded only where text or EXIF may follow its pixels."""
    if image.format == "PNG" and not _has_late_text(path):
        return Image.Image.getexif(image)
    return image.getexif()


def _has_late_text(path: Path) -> bool:
    is_late = False
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE_BYTES)
        while len(head := file.read(8)) == 8:  # its length and kind
            is_late |= head[4:] == b"IDAT"
            if is_late and head[4:] in _PNG_TEXTS:
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)  # its data and checksum
    return False


def _refuse_empty(path: Path) -> None:
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"'{path}' is empty (0 bytes). Copy or download it again.")


def _refuse_huge(path: Path, size: tuple[int, int], max_megapixels: float, key: str) -> None:
    megapixels = size[0] * size[1] / 1e6
    if megapixels > max_megapixels:
        raise InputError(
            f"'{path}' declares {size[0]} x {size[1]} pixels, '{megapixels:.1f}' megapixels; {max_megapixels:g} are "
            f"allowed. Cut it into tiles{f', or raise {key}' if key else ', or make it smaller'}."
        )


def _diagnose(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "it looks like HTML (a login page?); download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run 'git lfs pull'"
    if start[4:8] == b"ftyp":
        return "it is HEIC, AVIF or a video; save it as PNG or JPEG"
    if start[128:132] == b"dicm":
        return "it is DICOM; export it as PNG"
    if isinstance(error, UnidentifiedImageError):
        return "it is of no image format known here"
    return f"it is damaged ({error or type(error).__name__})"
