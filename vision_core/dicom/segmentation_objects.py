"""Masks of a DICOM image as a DICOM segmentation (SEG) that refers to its frames.

Ultrasound cines have no frame of reference: the frames of the segmentation are told apart by the number of the source's
frame, and no position is written that nobody knows.
Source: DICOM PS3.3, A.51 (Segmentation), C.8.20 (its image), C.7.6.16 (functional groups), C.7.6.17 (dimensions).
"""

import time
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.header import num_frames
from vision_core.dicom.reader import silence_pydicom
from vision_core.errors import InputError
from vision_core.files import write_atomic
from vision_core.optional import require
from vision_core.results import RESEARCH_NOTICE

if TYPE_CHECKING:
    from pydicom import Dataset

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# Elements that place the object beside its source in an archive; a source may lack some, which are then empty.
_OF_SOURCE = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_LONGEST_LABEL = 64  # characters of a value LO


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a segmentation shows.

    Attributes:
        label: Name of the object.
        algorithm: Model that made the masks.
        spacing_mm: Height and width of a pixel; None where it is not known.
    """

    label: str
    algorithm: str
    spacing_mm: tuple[float, float] | None = None


def write_segmentation(path: Path, source: Path, masks: NDArray[np.bool_], segment: Segment) -> bool:
    """Write the masks of a DICOM image; frames without one are left out, as SEG does.

    Args:
        path: File to write.
        source: The image, still or cine.
        masks: ``(F, H, W)`` of all its frames, in the pixels of the source.
        segment: Label and origin of the masks.

    Returns:
        Whether a file was written: a segmentation needs a frame.

    Raises:
        InputError: The masks are not of this image, or it has no identifiers to refer to.
        EnvironmentFault: The file cannot be written.
    """
    pydicom = require("pydicom", why="DICOM segmentations are written with it")
    silence_pydicom(pydicom)
    header = pydicom.dcmread(source, stop_before_pixels=True)
    size = (num_frames(header), int(header.Rows), int(header.Columns))
    if masks.shape != size:
        raise InputError(f"'{source}' has frames, rows and columns '{size}', its masks {masks.shape}.")
    if missing := [name for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID") if not header.get(name)]:
        raise InputError(f"'{source}' has no {missing[0]}, to which a segmentation refers. Export it again.")
    numbers = np.flatnonzero(masks.any(axis=(1, 2)))
    if not len(numbers):
        return False
    content = BytesIO()
    pydicom.dcmwrite(content, _dataset(header, masks[numbers], numbers, segment), enforce_file_format=True)
    write_atomic(path, content.getvalue())
    return True


def _dataset(header: "Dataset", masks: NDArray[np.bool_], numbers: NDArray[np.intp], segment: Segment) -> "Dataset":
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    bits = np.packbits(masks.ravel(), bitorder="little").tobytes()  # of all frames in a row, the first bit the lowest
    origin = [str(header.SOPInstanceUID), segment.algorithm, segment.label, bits.hex()]
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE_ENDIAN)
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = UID(_SEGMENTATION)
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[*origin, "object"])
    for name in _OF_SOURCE:
        setattr(found, name, header.get(name, ""))
    found.Modality, found.SeriesNumber, found.InstanceNumber = "SEG", 1, 1
    found.SeriesInstanceUID = generate_uid(entropy_srcs=[*origin, "series"])
    found.Manufacturer, found.ManufacturerModelName = "DomainSight", "DomainSight"
    found.DeviceSerialNumber, found.SoftwareVersions = "none", version("domainsight")
    found.ContentDate, found.ContentTime = time.strftime("%Y%m%d"), time.strftime("%H%M%S")
    found.ContentLabel, found.ContentDescription, found.ContentCreatorName = "SEGMENTATION", RESEARCH_NOTICE, ""
    found.ImageType = ["DERIVED", "PRIMARY"]
    found.NumberOfFrames, found.Rows, found.Columns = masks.shape
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 1, 1, 0, 0
    found.LossyImageCompression, found.SegmentationType = "00", "BINARY"
    found.SegmentSequence = [_segment(segment)]
    organization = generate_uid(entropy_srcs=[*origin, "dimensions"])
    found.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    found.DimensionIndexSequence = [
        _dimension(organization, "ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        _dimension(organization, "ReferencedFrameNumber", "DerivationImageSequence"),
    ]
    shared = Dataset()
    if segment.spacing_mm:
        shared.PixelMeasuresSequence = [_item(PixelSpacing=list(segment.spacing_mm))]
    found.SharedFunctionalGroupsSequence = [shared]
    found.PerFrameFunctionalGroupsSequence = [
        _frame(header, int(number) + 1, place) for place, number in enumerate(numbers, start=1)
    ]
    reference = _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    if series := header.get("SeriesInstanceUID"):
        found.ReferencedSeriesSequence = [_item(SeriesInstanceUID=series, ReferencedInstanceSequence=[reference])]
    found.PixelData = bits + b"\0" * (len(bits) % 2)
    return found


def _segment(segment: Segment) -> "Dataset":
    return _item(
        SegmentNumber=1,
        SegmentLabel=segment.label[:_LONGEST_LABEL],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=segment.algorithm[:_LONGEST_LABEL],
        SegmentedPropertyCategoryCodeSequence=[_code("123037004", "SCT", "Anatomical Structure")],
        SegmentedPropertyTypeCodeSequence=[_code("113343008", "SCT", "Organ")],
    )


def _frame(header: "Dataset", number: int, place: int) -> "Dataset":
    """Describe a frame of the segmentation: which frame of the source it is made from, and its place among them."""
    source = _item(
        ReferencedSOPClassUID=header.SOPClassUID,
        ReferencedSOPInstanceUID=header.SOPInstanceUID,
        PurposeOfReferenceCodeSequence=[_code("121322", "DCM", "Source image for image processing operation")],
        SpatialLocationsPreserved="YES",
    )
    if "NumberOfFrames" in header:
        source.ReferencedFrameNumber = number
    return _item(
        FrameContentSequence=[_item(DimensionIndexValues=[1, place])],
        DerivationImageSequence=[
            _item(DerivationCodeSequence=[_code("113076", "DCM", "Segmentation")], SourceImageSequence=[source])
        ],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=1)],
    )


def _dimension(organization: str, pointer: str, group: str) -> "Dataset":
    from pydicom.datadict import tag_for_keyword

    return _item(
        DimensionOrganizationUID=organization,
        DimensionIndexPointer=tag_for_keyword(pointer),
        FunctionalGroupPointer=tag_for_keyword(group),
        DimensionDescriptionLabel=pointer,
    )


def _code(value: str, scheme: str, meaning: str) -> "Dataset":
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(**elements: object) -> "Dataset":
    from pydicom.dataset import Dataset

    found = Dataset()
    for name, value in elements.items():
        setattr(found, name, value)
    return found
