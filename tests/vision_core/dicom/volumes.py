"""Images with a place in the patient: an enhanced CT of several frames."""

from collections.abc import Sequence

import numpy as np
from pydicom import FileDataset
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from tests.bad_inputs.dicoms import dataset

PLAIN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def enhanced(
    origins: Sequence[Sequence[float]],
    cosines: Sequence[float] = PLAIN,
    spacing: Sequence[float] = (1.0, 1.0),
    size: tuple[int, int] = (8, 6),
) -> FileDataset:
    """Make an enhanced CT whose frames begin at ``origins``; its values are zeros."""
    found = dataset(np.zeros(size, np.uint16))
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    found.StudyInstanceUID, found.SeriesInstanceUID, found.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.3"
    found.NumberOfFrames, found.PixelData = len(origins), found.PixelData * len(origins)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item("ImageOrientationPatient", cosines)]
    shared.PixelMeasuresSequence = [_item("PixelSpacing", spacing)]
    shared.PixelMeasuresSequence[0].SliceThickness = 2
    found.SharedFunctionalGroupsSequence = [shared]
    found.PerFrameFunctionalGroupsSequence = [Dataset() for _ in origins]
    for group, origin in zip(found.PerFrameFunctionalGroupsSequence, origins, strict=True):
        group.PlanePositionSequence = [_item("ImagePositionPatient", origin)]
    return found


def _item(name: str, values: Sequence[float]) -> Dataset:
    found = Dataset()
    setattr(found, name, list(values))
    return found
