"""Folders of images with masks: ``<subject>/<frame>.png`` beside ``<frame>_obs00.png``, ``<frame>_obs01.png``, ….

Images may lie flat instead, where a file ``subjects.csv`` (``image,subject``) may name the subjects.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.ultrasound.data.frames import (
    MAX_MEGAPIXELS,
    Frame,
    FrameName,
    Grey,
    Mask,
    grey_and_flow,
    refuse,
    to_mask,
    white_of,
)
from pipelines.ultrasound.data.subjects import subjects_of_files
from vision_core.errors import DataError, InputError
from vision_core.images.notes import tell
from vision_core.images.reading import inspect_image, is_image_name, list_files, read_deep_grey, read_image

_MASK = re.compile(r"(?P<frame>.+)_obs(?P<observer>\d{1,6})", re.ASCII)
_OPAQUE = 255
_NUMBER = re.compile(r"\d+", re.ASCII)


class FolderFrames:
    """Frames of a folder of images.

    Args:
        root: The folder.
        allow_unlabelled: Whether frames may lack masks; else they are refused.

    Attributes:
        names: Names of the frames, by subject and number.
        notes: What is left out.

    Raises:
        DataError: There is no frame, a mask without its image, two images of one name, or a frame without a mask.
    """

    def __init__(self, root: Path, *, allow_unlabelled: bool = False) -> None:
        if not root.is_dir():
            raise DataError(f"'{root}' is not a folder. Give a folder of frames.")
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        flat = list_files(root, is_image_name)
        if flat and any(list_files(folder, is_image_name) for folder in folders):
            raise DataError(f"'{root}' holds images and folders of images. Keep one folder a subject, or all in one.")
        files = flat or [path for folder in folders for path in list_files(folder, is_image_name)]
        images, self._masks, problems = _sorted(files)
        if not images:
            raise DataError(
                f"'{root}' holds '0' frames. Expected {root}/SUBJECT/FRAME.png with FRAME_obs00.png beside."
            )
        if not allow_unlabelled:
            problems += [
                f"'{path}' has no mask. Add '{path.stem}_obs00{path.suffix}', or remove the frame."
                for path in images
                if path not in self._masks
            ]
        refuse(str(root), problems)
        subjects = subjects_of_files(root, "image", images) if flat else {path: path.parent.name for path in images}
        self._images = sorted(images, key=lambda path: (_natural(subjects.get(path, "")), _natural(path.stem)))
        self.names = tuple(
            FrameName(
                subject=subjects.get(path),
                number=number,
                text=str(path.relative_to(root)),
                file=subjects.get(path, ""),
            )
            for number, path in enumerate(self._images)
        )
        self.notes: tuple[str, ...] = ()

    def read(self, index: int) -> Frame:
        """Read one frame and its masks.

        Raises:
            InputError: A file cannot be read, or a mask does not fit.
        """
        path = self._images[index]
        image, flow = read_grey_and_flow(path)
        masks = self._masks.get(path, {})
        stacked = [read_mask(each, image.shape) for each in masks.values()]
        return Frame(
            name=self.names[index],
            image=image,
            white=white_of(image, f"'{path}'"),
            masks=np.stack(stacked) if stacked else np.zeros((0, *image.shape), bool),
            observers=tuple(masks),
            has_flow=flow,
        )


def read_grey(path: Path) -> Grey:
    """Read an image as grey ``(H, W)``: 16 bits as stored, colour as its luminance in 8 bits.

    Raises:
        InputError: It cannot be read.
    """
    return read_grey_and_flow(path)[0]


def read_grey_and_flow(path: Path) -> tuple[Grey, bool]:
    """Read an image as ``read_grey``, and whether colours lie over its grey, as those of Doppler."""
    deep = read_deep_grey(path, MAX_MEGAPIXELS)
    if deep is None:
        return grey_and_flow(read_image(path, MAX_MEGAPIXELS))
    with Image.open(path) as image:
        if image.mode in {"I", "F"} and image.format != "PPM":  # PGM of 16 bits
            raise InputError(f"'{path}' holds 32 bits a pixel. Save it with 8 or 16 bits of grey.")
    tell(path, inspect_image(path, MAX_MEGAPIXELS)[0])  # without its bits in use: they are kept as stored
    return np.uint16(2**deep.bits - 1) - deep.values if deep.is_inverted else deep.values, False


def read_mask(path: Path, size: tuple[int, ...]) -> Mask:
    """Read the mask ``(H, W)`` of an image of a size.

    Raises:
        InputError: It cannot be read, does not fit, or has transparent pixels, which over white would be the organ.
    """
    grey = read_grey(path)
    with Image.open(path) as image:
        if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < _OPAQUE:
            raise InputError(f"'{path}' is a mask with transparent pixels. Save it opaque, of 0 and 255.")
    return to_mask(grey, size, f"'{path}'")[0]


def _sorted(files: list[Path]) -> tuple[list[Path], dict[Path, dict[int, Path]], list[str]]:
    """Divide files into images and the masks of each by observer; with problems."""
    images: dict[tuple[Path, str], Path] = {}
    masks: dict[tuple[Path, str], dict[int, Path]] = defaultdict(dict)
    problems = []
    for path in files:
        found = _MASK.fullmatch(path.stem)
        known = masks[(path.parent, found["frame"])] if found else images
        key = int(found["observer"]) if found else (path.parent, path.stem)
        if key in known:
            problems.append(f"'{path}' and '{known[key].name}' have the same name. Keep one of them.")  # type: ignore[index]
        known[key] = path  # type: ignore[index]
    problems += [
        f"'{next(iter(own.values()))}' is the mask of no image: there is no '{stem}'. Add that, or remove the mask."
        for (folder, stem), own in masks.items()
        if (folder, stem) not in images
    ]
    by_image = {images[key]: dict(sorted(own.items())) for key, own in masks.items() if key in images and own}
    return list(images.values()), by_image, problems


def _natural(text: str) -> tuple[list[int], str]:
    """Order by numbers where there are some: frame 2 before frame 10."""
    return [int(each) for each in _NUMBER.findall(text)], text
