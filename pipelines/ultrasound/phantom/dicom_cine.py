"""A sweep of the phantom as a DICOM cine: frames of 8 bits, frame time, and a region record with the size of a pixel.

Source: DICOM PS3.3, A.7 (Ultrasound Multi-frame Image), C.7.6.5 (cine), C.8.5.5 (regions).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.ultrasound.phantom.study import NOTICE, Phantom
from vision_core.files import atomic_path
from vision_core.optional import require

FRAME_MS = 40.0
_CENTIMETRES, _TWO_DIMENSIONS, _TISSUE = 3, 1, 1
_ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def write_cine(path: Path, subject: int, frames: int, chosen: Sequence[int] | None = None) -> None:
    """Write the sweep of a synthetic subject; the same arguments give the same bytes.

    Args:
        path: File to write, ``.dcm``.
        subject: Seed of the subject.
        frames: Number of frames of the sweep.
        chosen: Numbers of those that are written; None: all.
    """
    require("pydicom", "the phantom's cines are written by it")
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    phantom = Phantom(subject)
    sweep = [frame.image for frame in phantom.cine(frames)]
    pixels = np.stack(sweep if chosen is None else [sweep[number] for number in chosen])
    count, height, width = pixels.shape

    def uid(kind: str) -> UID:
        return generate_uid(entropy_srcs=["phantom", kind, str(subject), str(frames), str(chosen)])

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_ULTRASOUND_MULTIFRAME)
    meta.MediaStorageSOPInstanceUID = uid("instance")
    meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE_ENDIAN)
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = _ULTRASOUND_MULTIFRAME, uid("instance")
    file.StudyInstanceUID, file.SeriesInstanceUID = uid("study"), uid("series")
    file.Modality, file.SeriesDescription = "US", NOTICE
    file.PatientName, file.PatientID = "Phantom", f"P{subject:04d}"
    file.BurnedInAnnotation = "NO"
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns, file.NumberOfFrames = height, width, count
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.FrameTime, file.FrameIncrementPointer = FRAME_MS, 0x00181063
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType = _TWO_DIMENSIONS, _TISSUE
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = width - 1, height - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = _CENTIMETRES
    region.PhysicalDeltaX = region.PhysicalDeltaY = phantom.raster.spacing_mm / 10
    file.SequenceOfUltrasoundRegions = [region]
    file.PixelData = pixels.tobytes()
    with atomic_path(path) as partial:
        file.save_as(partial, enforce_file_format=True)
