"""DICOM slides with the properties of public bug reports, made by code."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

from tests.bad_inputs.slide_files import marked

Pixels = NDArray[Any]
_SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
_BASELINE = "1.2.840.10008.1.2.4.50"
_JPEG2000 = "1.2.840.10008.1.2.4.91"
_EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, kw_only=True)
class DicomKind:
    """How a DICOM slide is written.

    Attributes:
        is_sparse: Frames carry positions (TILED_SPARSE).
        positions: ``right``, ``none`` (no per-frame items), ``empty`` (items without a position), ``few`` or
            ``shifted`` off the grid.
        stored: Numbers of the tiles that are stored; None: all.
        photometric: As the header says.
        mark: Colour mark in each JPEG frame; None: not compressed.
        is_jpeg2000: Frames in JPEG 2000, without a transform of colours.
        changes: Elements to set over all.
        mpp: Microns per pixel.
    """

    is_sparse: bool = False
    positions: str = "right"
    stored: Sequence[int] | None = None
    photometric: str = "RGB"
    mark: bytes | None = None
    is_jpeg2000: bool = False
    changes: Sequence[tuple[str, Any]] = ()
    mpp: float = 0.5


def write_dicom(path: Path, pixels: Pixels, kind: DicomKind | None = None, series: str = "1.2.3.4") -> Path:
    """One level of a DICOM slide, in tiles of 128 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, side = kind or DicomKind(), 128
    height, width = pixels.shape[:2]
    columns, rows = -(-width // side), -(-height // side)
    padded = np.full((rows * side, columns * side, 3), 243, np.uint8)
    padded[:height, :width] = pixels
    stored = list(range(columns * rows)) if kind.stored is None else list(kind.stored)
    corners = [(number % columns * side, number // columns * side) for number in stored]
    frames = [np.ascontiguousarray(padded[y : y + side, x : x + side]) for x, y in corners]
    data = _dicom_header(path, kind, series)
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
    data.Columns = data.Rows = side
    data.NumberOfFrames = len(frames)
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * kind.mpp / 1000, height * kind.mpp / 1000
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [kind.mpp / 1000] * 2, 0.001
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    if kind.is_sparse and kind.positions != "none":
        data.PerFrameFunctionalGroupsSequence = [
            _dicom_position(x, y, kind) for x, y in (corners[:-1] if kind.positions == "few" else corners)
        ]
    if kind.is_jpeg2000:
        data.PixelData = encapsulate([_jpeg2000(each) for each in frames])
        data["PixelData"].is_undefined_length = True
    elif kind.mark is None:
        data.PixelData = b"".join(frame.tobytes() for frame in frames)
    else:
        encoded = [simplejpeg.encode_jpeg(each, quality=90, colorsubsampling="444") for each in frames]
        data.PixelData = encapsulate([marked(bytes(each), kind.mark) for each in encoded])
        data["PixelData"].is_undefined_length = True
    for name, value in kind.changes:
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def _syntax(kind: DicomKind) -> str:
    if kind.is_jpeg2000:
        return str(_JPEG2000)
    return str(_EXPLICIT if kind.mark is None else _BASELINE)


def _dicom_header(path: Path, kind: DicomKind, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(_SLIDE_CLASS)
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[series, path.name])
    meta.TransferSyntaxUID = pydicom.uid.UID(_syntax(kind))
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = _SLIDE_CLASS, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{series}.1", series
    data.FrameOfReferenceUID = f"{series}.2"
    data.Modality, data.PatientID, data.PatientName = "SM", "", ""
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.DimensionOrganizationType = "TILED_SPARSE" if kind.is_sparse else "TILED_FULL"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, kind.photometric, 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.NumberOfOpticalPaths, data.TotalPixelMatrixFocalPlanes = 1, 1
    data.FocusMethod, data.ExtendedDepthOfField, data.VolumetricProperties = "AUTO", "NO", "VOLUME"
    return data


def _jpeg2000(frame: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG2000", no_jp2=True, irreversible=True, mct=0)
    return stream.getvalue()


def _dicom_position(x: int, y: int, kind: DicomKind) -> Dataset:
    item, place = Dataset(), Dataset()
    if kind.positions != "empty":
        shift = 8 if kind.positions == "shifted" else 1
        place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix = x + shift, y + shift
        item.PlanePositionSlideSequence = [place]
    return item
