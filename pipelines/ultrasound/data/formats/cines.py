"""Folders of cines with masks: ``<subject>/<cine>.dcm``, NIfTI or a video, beside the masks of its frames.

Masks of an observer are ``<cine>_000_obs00.png`` of the first frame and so on, ``<cine>_obs00.png`` of a file of one
frame, or ``<cine>_obs00.nii.gz`` of all frames. A DICOM file may have labels of 3D Slicer's AnnotateUltrasound instead,
``<cine>.<rater>.json``, and any name: it is known by its content. Frames that nobody has marked are left out and
counted. Cines may lie flat, where a file ``subjects.csv`` (``file,subject``) may name the subjects.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.ultrasound.data.formats.annotate_ultrasound import (
    FRAMES_KEY,
    Finding,
    Ratings,
    holds_ratings,
    read_ratings,
)
from pipelines.ultrasound.data.formats.folders import read_mask
from pipelines.ultrasound.data.formats.stacks import Stack, place_of
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
from vision_core.dicom.reader import DICOM_SUFFIXES, DicomFacts, inspect_dicom, is_dicom, open_cine
from vision_core.errors import DataError
from vision_core.images.nifti import NIFTI_SUFFIXES
from vision_core.images.reading import IMAGE_SUFFIXES, is_image_name, list_files
from vision_core.images.video import VIDEO_SUFFIXES

HDF5_SUFFIXES = (".h5", ".hdf5")
_NO_DICOM = (*NIFTI_SUFFIXES, *VIDEO_SUFFIXES)
_CINE_SUFFIXES = (*sorted(DICOM_SUFFIXES), *_NO_DICOM)
_OTHER_SUFFIXES = (*HDF5_SUFFIXES, ".json", ".csv", ".txt")  # files that lie beside, not worth opening
_SAME_PLACE_MM = 1e-3
_MASK = re.compile(r"(?P<cine>.+?)(_(?P<frame>\d{3,6}))?_obs(?P<observer>\d{1,6})", re.ASCII)
_VOLUME = re.compile(r"(?P<cine>.+)_obs(?P<observer>\d{1,6})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class _Cine:
    """A file and what observers say of its frames: images by frame and observer, volumes by observer, or raters."""

    path: Path
    count: int
    facts: DicomFacts | None
    stack: Stack | None
    images: Mapping[int, Mapping[int, Path]]
    volumes: Mapping[int, Stack]
    ratings: tuple[Ratings, ...]

    @property
    def labelled(self) -> list[int]:
        """Return the frames that somebody has marked."""
        rated = {frame for each in self.ratings for frame in each.lines}
        return list(range(self.count)) if self.volumes else sorted({*self.images, *rated})

    def read(self, number: int) -> tuple[Grey, bool]:
        """Read the grey of a frame, and whether colours lie over it."""
        if self.stack is not None:
            return self.stack.read(number, self.labelled)
        with open_cine(self.path, MAX_MEGAPIXELS) as cine:
            return grey_and_flow(cine.read_full(number))

    def masks(
        self, number: int, size: tuple[int, ...], finding: Finding | None, raters: Sequence[str]
    ) -> dict[int, Mask]:
        """Read the masks of a frame by observer."""
        found = {observer: read_mask(path, size) for observer, path in self.images.get(number, {}).items()}
        for observer, volume in self.volumes.items():
            values, _ = volume.read(number, range(self.count))
            found[observer] = to_mask(values, size, f"'{volume.path}' at frame {number}")[0]
        for each in self.ratings:
            if finding and number in each.lines:
                found[raters.index(each.rater)] = each.mask(number, finding)
        return dict(sorted(found.items()))


class CineFrames:
    """Labelled frames of a folder of cines.

    Args:
        root: The folder, with a folder a subject, or all files in it.
        finding: Which lines of AnnotateUltrasound are the masks.

    Attributes:
        names: Names of the frames, by subject, file and number.
        notes: What is left out.

    Raises:
        DataError: There is no labelled frame, a mask of no frame, or a file whose header cannot be read.
    """

    def __init__(self, root: Path, finding: Finding | None = None) -> None:
        if not root.is_dir():
            raise DataError(f"'{root}' is not a folder. Give a folder of DICOM files, NIfTI or videos.")
        self._finding: Finding | None = finding
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        flat = _cines_in(root)
        if flat and any(_cines_in(folder) for folder in folders):
            raise DataError(f"'{root}' holds cines and folders of cines. Keep one folder a subject, or all in one.")
        cines: list[_Cine] = []
        problems: list[str] = []
        for folder in [root] if flat else folders:
            found, strange = _read_folder(folder)
            cines += found
            problems += strange
        if not finding and any(each.ratings for each in cines):
            problems.append(
                f"'{root}' has labels of AnnotateUltrasound, which are of two kinds. Set data.finding=b_lines or "
                "data.finding=pleura_lines."
            )
        refuse(str(root), problems)
        subjects = subjects_of_files(root, "file", [each.path for each in cines]) if flat else None
        names = [each.path.parent.name if subjects is None else subjects.get(each.path) for each in cines]
        ordered = sorted(zip(names, cines, strict=True), key=lambda pair: (pair[0] or "", pair[1].path.name))
        self._raters = sorted({rating.rater for each in cines for rating in each.ratings})
        self._places = [(cine, frame) for _, cine in ordered for frame in cine.labelled]
        if not self._places:
            raise DataError(
                f"'{root}' holds '0' labelled frames in DICOM, NIfTI or videos. Expected SUBJECT/CINE.dcm with "
                "CINE_000_obs00.png."
            )
        self.names = tuple(
            FrameName(
                subject=subject,
                number=place,
                text=f"{cine.path.relative_to(root)}#{frame}",
                file=str(cine.path),
                machine=cine.facts.machine if cine.facts else "",
                patient=cine.facts.patient if cine.facts else "",
            )
            for place, (subject, cine, frame) in enumerate(
                (subject, cine, frame) for subject, cine in ordered for frame in cine.labelled
            )
        )
        self.notes = _notes(root, cines, self._raters, finding)

    def read(self, index: int) -> Frame:
        """Read one frame and its masks.

        Raises:
            InputError: A file cannot be read, or a mask does not fit.
        """
        cine, number = self._places[index]
        image, flow = cine.read(number)
        masks = cine.masks(number, image.shape, self._finding, self._raters)
        return Frame(
            name=self.names[index],
            image=image,
            white=white_of(image, f"'{cine.path}'"),
            masks=np.stack(list(masks.values())),
            observers=tuple(masks),
            has_flow=flow,
        )


def stem_of(name: str) -> str:
    """Take the name of a file of frames without its ending; DICOM without one of its own, as ``1.2.840.5``, is whole.

    Masks are named after it, in a training and in a folder of another tool.
    """
    # The longest first, so that no ``.nii`` is left of ``.nii.gz``.
    endings = sorted((*_CINE_SUFFIXES, *IMAGE_SUFFIXES), key=len, reverse=True)
    return next((name[: -len(each)] for each in endings if name.lower().endswith(each)), name)


def is_cine(path: Path) -> bool:
    """Tell DICOM, NIfTI and videos: by the ending, and DICOM of other names, as files of series often have, by content.

    ``DICOMDIR`` lists files and is none.
    """
    name = path.name.lower()
    if name.startswith(".") or is_image_name(name) or name.endswith(_OTHER_SUFFIXES) or name == "dicomdir":
        return False
    if name.endswith(_CINE_SUFFIXES):
        return True
    try:
        return path.is_file() and is_dicom(path)
    except OSError:
        return False


def _cines_in(folder: Path) -> list[Path]:
    """List the cines of a folder."""
    named = list_files(folder, lambda name: not (is_image_name(name) or _is_mask(name)))
    return [path for path in named if is_cine(path)]


def _is_mask(name: str) -> bool:
    """Tell NIfTI and videos that are called masks; a DICOM file never is one."""
    return name.lower().endswith(_NO_DICOM) and _VOLUME.fullmatch(stem_of(name)) is not None


def _read_folder(folder: Path) -> tuple[list[_Cine], list[str]]:
    """Open the cines of a folder with their masks; with problems."""
    paths = _cines_in(folder)
    images, volumes, ratings, problems = _labels_in(folder, paths)
    if twice := [stem for stem, count in Counter(stem_of(path.name) for path in paths).items() if count > 1]:
        return [], [*problems, f"'{folder}' has two files called '{twice[0]}': their masks are the same. Rename one."]
    found = []
    for path in paths:
        stem = stem_of(path.name)
        try:
            facts = None if path.name.lower().endswith(_NO_DICOM) else inspect_dicom(path, MAX_MEGAPIXELS)
            stack = None if facts else Stack(path)
            cine = _Cine(
                path=path,
                count=facts.num_frames if facts else stack.count if stack else 0,
                facts=facts,
                stack=stack,
                images=images.pop(stem, {}),
                volumes={observer: Stack(each, is_mask=True) for observer, each in volumes.pop(stem, {}).items()},
                ratings=_ratings(path, stem, facts, ratings.pop(stem, [])),
            )
        except DataError as error:
            problems += error.problems
            continue
        problems += _unfit(cine)
        found.append(cine)
    left = [*images, *volumes, *ratings]
    problems += [f"'{folder}' has masks of '{stem}' and no such cine. Add it, or remove them." for stem in left]
    return found, problems


def _labels_in(
    folder: Path, cines: Sequence[Path]
) -> tuple[dict[str, dict[int, dict[int, Path]]], dict[str, dict[int, Path]], dict[str, list[Path]], list[str]]:
    """List images by cine, frame and observer; volumes by cine and observer; files of raters by cine; with problems."""
    images: dict[str, dict[int, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    volumes: dict[str, dict[int, Path]] = defaultdict(dict)
    ratings: dict[str, list[Path]] = defaultdict(list)
    problems = []
    for path in list_files(folder, is_image_name):
        named = _MASK.fullmatch(path.stem)
        if named is None:
            problems.append(f"'{path}' is no mask of a cine. Name it CINE_000_obs00.png, or remove it.")
        else:
            problems += _add(images[named["cine"]][int(named["frame"] or 0)], int(named["observer"]), path)
    for path in list_files(folder, _is_mask):
        named = _VOLUME.fullmatch(stem_of(path.name))
        assert named is not None
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            problems += _add(volumes[named["cine"]], int(named["observer"]), path)
        else:
            problems.append(
                f"'{path}' is a mask in a video, which changes its values. Save masks as "
                f"{named['cine']}_obs00.nii.gz, or as {named['cine']}_000_obs00.png and so on."
            )
    stems = sorted((stem_of(path.name) for path in cines), key=len, reverse=True)
    for path in list_files(folder, lambda name: name.lower().endswith(".json")):
        try:
            if holds_ratings(path):
                of = next((stem for stem in stems if path.name.startswith(f"{stem}.")), path.name.split(".")[0])
                ratings[of].append(path)
        except DataError as error:
            problems += error.problems
    return images, volumes, ratings, problems


def _add(masks: dict[int, Path], observer: int, path: Path) -> list[str]:
    """Add the mask of an observer, unless there is one, which is a problem."""
    if other := masks.get(observer):
        return [f"'{path}' and '{other.name}' are of the same frame and observer. Keep one of them."]
    masks[observer] = path
    return []


def _ratings(path: Path, stem: str, facts: DicomFacts | None, files: Sequence[Path]) -> tuple[Ratings, ...]:
    if files and facts is None:
        raise DataError(
            f"'{files[0]}' has labels of AnnotateUltrasound ({FRAMES_KEY}), which are of DICOM files; '{path.name}' is "
            "none. Give the DICOM file that was annotated."
        )
    found = tuple(read_ratings(each, stem, facts) for each in files if facts)
    if twice := [rater for rater, count in Counter(each.rater for each in found).items() if count > 1]:
        raise DataError(f"'{path}' has '{len(files)}' files of labels of the rater '{twice[0]}'. Keep one of them.")
    return found


def _unfit(cine: _Cine) -> list[str]:
    """List masks that do not fit their cine."""
    path, count = cine.path, cine.count
    problems = [
        f"'{next(iter(each.values()))}' is the mask of frame '{frame}', '{path.name}' has {count}, counted "
        "from 0. Rename or remove it."
        for frame, each in cine.images.items()
        if frame >= count
    ]
    kinds = [name for name, has in (("images", cine.images), ("NIfTI", cine.volumes),
                                    ("labels of AnnotateUltrasound", cine.ratings)) if has]  # fmt: skip
    if len(kinds) > 1:
        problems.append(f"'{path}' has masks as {' and as '.join(kinds)}. Keep one kind: observers are counted by it.")
    for volume in cine.volumes.values():
        if volume.count != count:
            problems.append(
                f"'{volume.path}' has '{volume.count}' frames, '{path.name}' has {count}. Save the mask of every frame."
            )
        elif path.name.lower().endswith(NIFTI_SUFFIXES) and not np.allclose(
            place_of(path), place_of(volume.path), atol=_SAME_PLACE_MM
        ):
            problems.append(
                f"'{volume.path}' lies elsewhere than '{path.name}': their axes differ. Save the mask on the image."
            )
    return problems


def _notes(root: Path, cines: Sequence[_Cine], raters: Sequence[str], finding: Finding | None) -> tuple[str, ...]:
    notes = []
    if unlabelled := sum(each.count - len(each.labelled) for each in cines):
        notes.append(f"'{root}': {unlabelled} frames have no mask and are left out.")
    rated = [rating for each in cines for rating in each.ratings]
    if rated:
        named = ", ".join(f"{number} is {rater or 'unnamed'}" for number, rater in enumerate(raters))
        notes.append(f"'{root}': {finding} of AnnotateUltrasound, with the pleura's part of the fan; observer {named}.")
    if rejected := sum(each.rejected for each in rated):
        notes.append(f"'{root}': {rejected} lines that an adjudicator has rejected are left out.")
    lost = sum(each.has_lost(frame) for each in rated for frame in each.lines) if finding == "b_lines" else 0
    if lost:
        notes.append(f"'{root}': on {lost} frames B-lines lie beside every pleura line, and do not count.")
    return tuple(notes)
