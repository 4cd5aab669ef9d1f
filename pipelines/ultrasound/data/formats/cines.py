"""Folders of DICOM files with masks: ``<subject>/<cine>.dcm`` beside ``<cine>_000_obs00.png`` of its first frame, ….

A file of one frame may have its masks as ``<still>_obs00.png``. Frames without a mask are left out and counted.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from pipelines.ultrasound.data.folders import read_grey
from pipelines.ultrasound.data.frames import MAX_MEGAPIXELS, Frame, FrameName, grey_of, refuse, to_mask, white_of
from vision_core.dicom.reader import DICOM_SUFFIXES, inspect_dicom, open_cine
from vision_core.errors import DataError, InputError
from vision_core.images.reading import is_image_name, list_files

_MASK = re.compile(r"(?P<cine>.+?)(_(?P<frame>\d{3,6}))?_obs(?P<observer>\d{1,6})", re.ASCII)


class CineFrames:
    """Labelled frames of a folder of DICOM files.

    Args:
        root: The folder, with a folder a subject.

    Attributes:
        names: Names of the frames, by subject, file and number.
        notes: What is left out.

    Raises:
        DataError: There is no labelled frame, a mask of no frame, or a file whose header cannot be read.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"'{root}' is not a folder. Give a folder of DICOM files.")
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        self._places: list[tuple[Path, int]] = []
        self._masks: list[dict[int, Path]] = []
        names: list[FrameName] = []
        problems: list[str] = []
        unlabelled = 0
        for folder in folders:
            masks, strange = _masks_in(folder)
            problems += strange
            for path in list_files(folder, lambda name: Path(name).suffix.lower() in DICOM_SUFFIXES):
                try:
                    count = inspect_dicom(path, MAX_MEGAPIXELS).num_frames
                except InputError as error:
                    problems += error.problems
                    continue
                own = masks.pop(path.stem, {})
                problems += [
                    f"'{next(iter(each.values()))}' is the mask of frame '{frame}', '{path.name}' has {count}, counted "
                    "from 0. Rename or remove it."
                    for frame, each in own.items()
                    if frame >= count
                ]
                unlabelled += count - len(own)
                for frame, each in sorted(own.items()):
                    self._places.append((path, frame))
                    self._masks.append(dict(sorted(each.items())))
                    text = f"{folder.name}/{path.name}#{frame}"
                    names.append(FrameName(subject=folder.name, number=len(names), text=text))
            problems += [f"'{folder}' has masks of '{stem}' and no such DICOM file. Add it, or remove them."
                         for stem in masks]  # fmt: skip
        refuse(str(root), problems)
        if not names:
            raise DataError(
                f"'{root}' holds '0' labelled frames in DICOM. Expected SUBJECT/CINE.dcm with CINE_000_obs00.png."
            )
        self.names = tuple(names)
        self.notes: tuple[str, ...] = (
            (f"'{root}': {unlabelled} frames have no mask and are left out.",) if unlabelled else ()
        )

    def read(self, index: int) -> Frame:
        """Read one frame and its masks.

        Raises:
            InputError: A file cannot be read, or a mask does not fit.
        """
        path, number = self._places[index]
        with open_cine(path, MAX_MEGAPIXELS) as cine:
            image = grey_of(cine.read_full(number))
        masks = self._masks[index]
        return Frame(
            name=self.names[index],
            image=image,
            white=white_of(image, f"'{path}'"),
            masks=np.stack([to_mask(read_grey(each), image.shape, f"'{each}'")[0] for each in masks.values()]),
            observers=tuple(masks),
        )


def _masks_in(folder: Path) -> tuple[dict[str, dict[int, dict[int, Path]]], list[str]]:
    """List masks by file, frame and observer; with problems."""
    found: dict[str, dict[int, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    problems = []
    for path in list_files(folder, is_image_name):
        named = _MASK.fullmatch(path.stem)
        if named is None:
            problems.append(f"'{path}' is no mask of a DICOM file. Name it CINE_000_obs00.png, or remove it.")
        else:
            found[named["cine"]][int(named["frame"] or 0)][int(named["observer"])] = path
    return found, problems
