from typing import Any

import pytest
from pydicom.dataset import Dataset

from vision_core.dicom.header import frame_times


def header(**values: Any) -> Dataset:  # noqa: ANN401 (values of elements)
    found = Dataset()
    found.NumberOfFrames = 3
    for name, value in values.items():
        setattr(found, name, value)
    return found


def test_frame_times__of_one_increment_or_of_one_for_each_frame() -> None:
    assert frame_times(header(FrameTime=40)) == (0, 40, 80)
    assert frame_times(header(FrameTimeVector=[0, 33, 50])) == (0, 33, 83)
    assert frame_times(header(FrameTimeVector=[33, 33, 50], FrameTime=40)) == (0, 33, 83)


@pytest.mark.parametrize(
    "values",
    [{}, {"RecommendedDisplayFrameRate": 25}, {"FrameTimeVector": [0, 33]}, {"FrameTimeVector": [0, 33, -1]}],
)
def test_frame_times__are_not_known_where_the_file_does_not_tell_all(values: dict[str, Any]) -> None:
    assert frame_times(header(**values)) is None
