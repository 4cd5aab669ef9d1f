"""DICOM slides as scanners export them: one series of several files, uncompressed tiles of 128 pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

PERSON = "Secret^Person"
_TILE_PX = 128

Pixels = NDArray[np.uint8]


def write_series(  # noqa: PLR0913 (of a DICOM slide)
    folder: Path,
    image: Pixels,
    series: str = "a",
    *,
    steps: Sequence[int] = (1, 4),
    extras: Sequence[str] = ("LABEL", "OVERVIEW"),
    mpp: float = 0.5,
    names: str = "{series}-{kind}{step}.dcm",
) -> list[Path]:
    """Write a series of one image at each step of reduction, and small pictures beside it; the largest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in extras:
        path = folder / names.format(series=series, kind=kind.lower(), step="")
        written.append(write_instance(path, image[:_TILE_PX, :_TILE_PX] // 2, series, kind, mpp=8.0))
    for step in sorted(steps, reverse=True):
        size = (image.shape[1] // step, image.shape[0] // step)
        reduced = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        path = folder / names.format(series=series, kind="volume", step=step)
        written.append(write_instance(path, reduced, series, "VOLUME", mpp=mpp * step))
    return written


def write_instance(path: Path, image: Pixels, series: str, kind: str, *, mpp: float, **changes: Any) -> Path:  # noqa: ANN401
    """Write one instance; ``changes`` are elements of its header."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, kind, str(image.shape)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.PatientName = PERSON
    made.Modality = "SM"
    made.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    made.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    made.FrameOfReferenceUID = generate_uid(entropy_srcs=[series, "frame"])
    made.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    tiles = _tiles(image)
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows = made.Columns = _TILE_PX
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.NumberOfFrames = len(tiles)
    made.TotalPixelMatrixRows, made.TotalPixelMatrixColumns = image.shape[:2]
    made.TotalPixelMatrixFocalPlanes = 1
    made.DimensionOrganizationType = "TILED_FULL"
    made.ImagedVolumeWidth, made.ImagedVolumeHeight = image.shape[1] * mpp / 1000, image.shape[0] * mpp / 1000
    made.NumberOfOpticalPaths = 1
    made.OpticalPathSequence = [Dataset()]
    made.OpticalPathSequence[0].OpticalPathIdentifier = "1"
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    measures.SliceThickness = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PixelData = np.stack(tiles).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path


def _tiles(image: Pixels) -> list[Pixels]:
    rows, columns = (-(-length // _TILE_PX) for length in image.shape[:2])
    padded = np.full((rows * _TILE_PX, columns * _TILE_PX, 3), 255, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    return [
        padded[y : y + _TILE_PX, x : x + _TILE_PX]
        for y in range(0, len(padded), _TILE_PX)
        for x in range(0, padded.shape[1], _TILE_PX)
    ]
