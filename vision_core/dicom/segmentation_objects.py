"""Masks of a DICOM image as a DICOM segmentation (SEG) that refers to its frames.

Where all frames have a place in the patient, each its own (CT, MR, enhanced volumes), highdicom writes it with the same
places. Ultrasound cines have none, and frames of a time series share them: their segmentation is written here, its
frames are told apart by the number of the source's frame, and no position is written that nobody knows.
Source: DICOM PS3.3, A.51 (Segmentation), C.8.20 (its image), C.7.6.16 (functional groups), C.7.6.17 (dimensions).
"""

import copy
import logging
import re
import shutil
import struct
import tempfile
import time
import warnings
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vision_core.dicom.header import num_frames
from vision_core.dicom.reader import silence_pydicom
from vision_core.dicom.spacing import frame_places
from vision_core.errors import InputError
from vision_core.files import atomic_path
from vision_core.optional import require
from vision_core.results import RESEARCH_NOTICE, MaskStack

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_LOG = logging.getLogger("domainsight")
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# Elements that place the object beside its source in an archive; a source may lack some, which are then empty.
_OF_SOURCE = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_OF_PLACE = (
    "FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
)  # fmt: skip
_GROUPS_OF_PLACE = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_FORMS = {
    "DA": re.compile(r"(\d{8})?"),
    "TM": re.compile(r"(\d\d(\d\d(\d\d(\.\d{1,6})?)?)?)?"),
    "CS": re.compile("M|F|O|"),  # of a sex
}
_CATEGORY, _TYPE = ("123037004", "SCT", "Anatomical Structure"), ("113343008", "SCT", "Organ")
_EQUIPMENT = {"manufacturer": "DomainSight", "manufacturer_model_name": "DomainSight", "device_serial_number": "none"}
_BITS = 8
_UNDEFINED = 0xFFFFFFFF
_LONGEST_LABEL = 64  # characters of a value LO


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a segmentation shows.

    Attributes:
        label: Name of the object.
        algorithm: Model that made the masks.
        spacing_mm: Height and width of a pixel; None where it is not known.
        digits: First digits of the hash of the source; empty: not told.
    """

    label: str
    algorithm: str
    spacing_mm: tuple[float, float] | None = None
    digits: str = ""


def write_segmentation(path: Path, source: Path, masks: MaskStack, segment: Segment) -> bool:
    """Write the masks of a DICOM image; frames without one are left out, as SEG does.

    Args:
        path: File to write.
        source: The image, still or cine.
        masks: ``(F, H, W)`` of all its frames, in the pixels of the source; taken one at a time.
        segment: Label and origin of the masks.

    Returns:
        Whether a file was written: a segmentation needs a frame.

    Raises:
        InputError: The masks are not of this image, or it has no identifiers to refer to.
        EnvironmentFault: The file cannot be written.
        MissingDependencyError: A library is not installed.
    """
    pydicom = require("pydicom", why="DICOM segmentations are written with it")
    silence_pydicom(pydicom)
    header = pydicom.dcmread(source, stop_before_pixels=True)
    size = (num_frames(header), int(header.Rows), int(header.Columns))
    if masks.shape != size:
        raise InputError(f"'{source}' has frames, rows and columns '{size}', its masks {masks.shape}.")
    if missing := [name for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID") if not header.get(name)]:
        raise InputError(f"'{source}' has no {missing[0]}, to which a segmentation refers. Export it again.")
    places = frame_places(header)
    if places is not None and len(np.unique(places[:, :3, 3], axis=0)) == len(places):
        return _write_placed(path, source, header, masks, segment)
    with tempfile.TemporaryFile(prefix="domainsight-segmentation-") as bits:
        numbers, digest = _pack(masks, bits)
        if not numbers:
            return False
        found = _dataset(header, (len(numbers), *size[1:]), digest, segment)
        with atomic_path(path) as partial:
            pydicom.dcmwrite(partial, found, enforce_file_format=True)
            with partial.open("ab") as file:
                _append_frames(file, header, numbers)
                _append_pixels(file, bits)
    return True


def _write_placed(path: Path, source: Path, header: "Dataset", masks: MaskStack, segment: Segment) -> bool:
    """Write masks whose frames have a place; a volume is held whole."""
    highdicom = require("highdicom", why="DICOM segmentations of images with a place are written with it")
    _silence_highdicom()
    from pydicom.sr.coding import Code

    pixels = np.stack([masks[number] for number in range(masks.shape[0])])
    if not pixels.any():
        return False
    origin = [*_origin(header, segment), sha256(np.packbits(pixels).tobytes()).hexdigest()]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=segment.algorithm[:_LONGEST_LABEL],
        family=Code("123109", "DCM", "Artificial Intelligence"),
        version=version("domainsight"),
    )
    try:
        found = highdicom.seg.Segmentation(
            source_images=[_source_of_place(header, source)],
            pixel_array=pixels,
            segmentation_type="BINARY",
            segment_descriptions=[
                highdicom.seg.SegmentDescription(
                    segment_number=1,
                    segment_label=segment.label[:_LONGEST_LABEL],
                    segmented_property_category=Code(*_CATEGORY),
                    segmented_property_type=Code(*_TYPE),
                    algorithm_type="AUTOMATIC",
                    algorithm_identification=algorithm,
                )
            ],
            series_instance_uid=_uid(*origin, "series"),
            series_number=1,
            sop_instance_uid=_uid(*origin, "object"),
            instance_number=1,
            content_label="SEGMENTATION",
            content_description=_description(segment),
            **_EQUIPMENT,
            software_versions=version("domainsight"),
        )
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(
            f"'{source}' has a header by which highdicom cannot place a segmentation. Export it again."
        ) from error
    found.SeriesDescription = _series(segment)
    with atomic_path(path) as partial:
        found.save_as(partial, enforce_file_format=True)
    return True


def _silence_highdicom() -> None:
    """Silence highdicom, whose warnings and logs quote names from the header."""
    logging.getLogger("highdicom").setLevel(logging.CRITICAL)
    if not any(getattr(module, "pattern", None) == "highdicom" for _, _, _, module, _ in warnings.filters):
        warnings.filterwarnings("ignore", module="highdicom")


def _source_of_place(header: "Dataset", source: Path) -> "Dataset":
    """Copy what a segmentation takes from its source, and nothing else that could be faulty or name a person."""
    names = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames")
    found = _of_source(header)
    for name in (*names, *_OF_PLACE):
        if name in header:
            setattr(found, name, header[name].value)
    measures = [found]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in header:
            items = [
                _item(**{each: copy.deepcopy(group[each].value) for each in _GROUPS_OF_PLACE if each in group})
                for group in header[name].value
            ]
            setattr(found, name, items)
            measures += [each for item in items for each in item.get("PixelMeasuresSequence") or ()]
    thin = [each for each in measures[1:] or measures if not each.get("SliceThickness")]
    for each in thin:
        each.SliceThickness = each.get("SpacingBetweenSlices") or 1.0
    if thin:
        _LOG.warning("'%s' states no thickness; its segmentation is %g mm thick.", source, thin[0].SliceThickness)
    return found


def _of_source(header: "Dataset") -> "Dataset":
    """Copy what places the object beside its source in an archive; dates of old forms are put into that of today."""
    found = _item()
    for name in _OF_SOURCE:
        setattr(found, name, header.get(name, ""))
        element = found[name]
        text = str(element.value or "")
        if element.VR == "DA" and re.fullmatch(r"\d{4}\.\d\d\.\d\d", text):
            text = text.replace(".", "")
        elif element.VR == "TM":
            text = text.replace(":", "")
        if element.VR in _FORMS:
            element.value = text if _FORMS[element.VR].fullmatch(text) else ""
    if characters := header.get("SpecificCharacterSet"):
        found.SpecificCharacterSet = characters
    if header.get(_LOSSY[0]) == "01" and all(header.get(name) for name in _LOSSY):
        for name in _LOSSY:
            setattr(found, name, header.get(name))
    else:
        found.LossyImageCompression = "00"
    return found


def _origin(header: "Dataset", segment: Segment) -> list[str]:
    return [str(header.SOPInstanceUID), segment.algorithm, segment.label]


def _uid(*origin: str) -> "UID":
    """Make an identifier that the same origin gets again."""
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=list(origin))


def _pack(masks: MaskStack, target: BinaryIO) -> tuple[list[int], str]:
    """Write the bits of all frames with a mask in a row, the first bit the lowest; return the frames, and a hash."""
    numbers, digest, waiting = [], sha256(), []
    frames = masks.shape[0]
    for number in range(frames):
        mask = masks[number]
        if mask.any():
            numbers.append(number)
            waiting.append(mask)
        if len(waiting) == _BITS or (waiting and number == frames - 1):  # eight frames of any size fill whole bytes
            packed = np.packbits(np.stack(waiting).ravel(), bitorder="little").tobytes()
            target.write(packed)
            digest.update(packed)
            waiting.clear()
    return numbers, digest.hexdigest()


def _append_frames(file: BinaryIO, header: "Dataset", numbers: list[int]) -> None:
    """Write the items of the frames one by one: pydicom would hold all of them, 30 KiB each."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_sequence_item

    file.write(struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, _UNDEFINED))  # Per-Frame Functional Groups
    for place, number in enumerate(numbers, start=1):
        item = DicomBytesIO()
        item.is_little_endian, item.is_implicit_VR = True, False
        write_sequence_item(item, _frame(header, number + 1, place), ["iso8859"])
        file.write(item.getvalue())
    file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))


def _append_pixels(file: BinaryIO, bits: BinaryIO) -> None:
    """Write the pixel data, which is the last element."""
    length = bits.seek(0, 2)
    bits.seek(0)
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, length + length % 2))
    shutil.copyfileobj(bits, file)
    file.write(b"\0" * (length % 2))


def _dataset(header: "Dataset", shape: tuple[int, int, int], digest: str, segment: Segment) -> "Dataset":
    """Make the object up to its frames and their pixels, which follow it in the file."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    origin = [*_origin(header, segment), digest]
    found = _of_source(header)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE_ENDIAN)
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = UID(_SEGMENTATION)
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = _uid(*origin, "object")
    found.Modality, found.SeriesNumber, found.InstanceNumber = "SEG", 1, 1
    found.SeriesInstanceUID = _uid(*origin, "series")
    found.Manufacturer, found.ManufacturerModelName, found.DeviceSerialNumber = _EQUIPMENT.values()
    found.SoftwareVersions = version("domainsight")
    found.ContentDate, found.ContentTime = time.strftime("%Y%m%d"), time.strftime("%H%M%S")
    found.ContentLabel, found.ContentDescription, found.ContentCreatorName = "SEGMENTATION", _description(segment), ""
    found.SeriesDescription = _series(segment)
    found.ImageType = ["DERIVED", "PRIMARY"]
    found.NumberOfFrames, found.Rows, found.Columns = shape
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 1, 1, 0, 0
    found.SegmentationType = "BINARY"
    found.PatientOrientation = ""  # not known, as no position is
    found.SegmentSequence = [_segment(segment)]
    organization = _uid(*origin, "dimensions")
    found.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    found.DimensionIndexSequence = [
        _dimension(organization, "ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        _dimension(organization, "ReferencedFrameNumber", "DerivationImageSequence"),
    ]
    shared = Dataset()
    if segment.spacing_mm:
        shared.PixelMeasuresSequence = [_item(PixelSpacing=list(segment.spacing_mm))]
    found.SharedFunctionalGroupsSequence = [shared]
    reference = _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    if series := header.get("SeriesInstanceUID"):
        found.ReferencedSeriesSequence = [_item(SeriesInstanceUID=series, ReferencedInstanceSequence=[reference])]
    return found


def _description(segment: Segment) -> str:
    return f"{RESEARCH_NOTICE} Input {segment.digits}." if segment.digits else RESEARCH_NOTICE


def _series(segment: Segment) -> str:
    """Describe the series as its viewers list it: what it is of, and by what; never by a name of the source."""
    return f"Masks of {segment.digits or 'frames'} by {segment.algorithm}"[:_LONGEST_LABEL].rstrip()


def _segment(segment: Segment) -> "Dataset":
    return _item(
        SegmentNumber=1,
        SegmentLabel=segment.label[:_LONGEST_LABEL],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=segment.algorithm[:_LONGEST_LABEL],
        SegmentedPropertyCategoryCodeSequence=[_code(*_CATEGORY)],
        SegmentedPropertyTypeCodeSequence=[_code(*_TYPE)],
    )


def _frame(header: "Dataset", number: int, place: int) -> "Dataset":
    """Describe a frame of the segmentation: which frame of the source it is made from, and its place among them."""
    source = _item(
        ReferencedSOPClassUID=header.SOPClassUID,
        ReferencedSOPInstanceUID=header.SOPInstanceUID,
        PurposeOfReferenceCodeSequence=[_code("121322", "DCM", "Source image for image processing operation")],
        SpatialLocationsPreserved="YES",
    )
    if num_frames(header) > 1:
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
