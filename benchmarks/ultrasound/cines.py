"""Long cines for the benchmarks of ultrasound: frames of the phantom at 640 x 480, JPEG in DICOM, again and again."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from pipelines.ultrasound.phantom.dicom_cine import write_cine
from pipelines.ultrasound.phantom.study import Phantom
from vision_core.files import atomic_path

SIZE = (480, 640)
_SWEEP_FRAMES = 24
Grey = NDArray[np.uint8]


def sweep_frames(subject: int, size: tuple[int, int] = SIZE) -> list[Grey]:
    """Make the frames ``(H, W)`` of a synthetic subject's sweep, enlarged to ``size``.

    By repeating pixels: a scope guard that has learned the speckle of the phantom calls smoothed frames outside.
    """
    frames = Phantom(subject).cine(_SWEEP_FRAMES)
    return [np.asarray(cv2.resize(each.image, size[::-1], interpolation=cv2.INTER_NEAREST)) for each in frames]


def write_jpeg_cine(path: Path, images: Sequence[Grey], frames: int) -> None:
    """Write a DICOM cine of ``frames`` JPEG frames: ``images`` of one size, again and again."""
    encoded = [_jpeg(image) for image in images]
    with tempfile.TemporaryDirectory() as temporary:
        write_cine(template := Path(temporary) / "cine.dcm", 0, 1)
        file = dcmread(template)
    file.Rows, file.Columns = images[0].shape
    file.NumberOfFrames = frames
    del file.SequenceOfUltrasoundRegions
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file.PixelData = encapsulate([encoded[number % len(encoded)] for number in range(frames)])
    file["PixelData"].is_undefined_length = True
    with atomic_path(path) as partial:
        file.save_as(partial, enforce_file_format=True)


def _jpeg(image: Grey) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="JPEG", quality=90)
    return content.getvalue()
