"""Masks of a DICOM file as its DICOM segmentation, written in the child process that may read the file's header."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vision_core.dicom.segmentation_objects import Segment, write_segmentation
from vision_core.errors import InputError
from vision_core.images.nifti import NiftiFrames
from vision_core.images.notes import tell
from vision_core.sandbox import Sandbox
from vision_core.segmentation.stored_masks import StoredMasks

_WRITE = "pipelines.ultrasound.segmentation_object:write_in_child"


def write_object(target: Path, source: Path, masks: Path, segment: Segment, sandbox: Sandbox) -> bool:
    """Write the masks of a DICOM file as a segmentation; where it has none, a warning says why.

    Args:
        target: File to write.
        source: The DICOM file.
        masks: The masks of its frames, as ``images.nifti.write_masks`` wrote them.
        segment: Label and origin of the masks.
        sandbox: Its child process reads the file and writes the other.

    Returns:
        Whether a file was written.
    """
    places = {"target": str(target.absolute()), "masks": str(masks.absolute())}
    try:
        answer = sandbox.run(_WRITE, source, **places, **asdict(segment))
    except InputError as error:  # no identifiers to refer to; the masks are in the other files all the same
        tell(source, [f"has no DICOM segmentation: {' '.join(error.problems)}"])
        return False
    return bool(answer.value)


def write_in_child(
    path: Path, *, target: str, masks: str, spacing_mm: list[float] | None, **of: str
) -> tuple[Mapping[str, NDArray[Any]], bool]:
    """Write the segmentation of a file as the sandbox answers: whether there is one."""
    frames, stored = NiftiFrames(Path(masks)), StoredMasks()
    for number in range(frames.count):
        stored.append(frames.read(number) > 0)
    frames.close()
    spacing = (spacing_mm[0], spacing_mm[1]) if spacing_mm else None
    return {}, write_segmentation(Path(target), path, stored, Segment(spacing_mm=spacing, **of))
