"""Curves against sums done by hand, their table and their picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.vision_core.detection.test_average_precision import found, truth
from vision_core.detection.analysis.precision_recall import PICTURE, TABLE, precision_recall, write_curves

FIRST, SECOND, NOWHERE = (10.0, 10, 49, 49), (60.0, 10, 99, 49), (110.0, 110, 149, 149)


def test_precision_recall__by_falling_score() -> None:
    curves = precision_recall(
        [truth(FIRST, SECOND)], [found(FIRST, NOWHERE, SECOND, scores=(0.9, 0.8, 0.7))], ("car", "bus")
    )
    assert list(curves) == ["car"]  # no bus is labelled
    np.testing.assert_allclose(curves["car"].scores, [0.9, 0.8, 0.7])
    np.testing.assert_allclose(curves["car"].recall, [0.5, 0.5, 1])
    np.testing.assert_allclose(curves["car"].precision, [1, 0.5, 2 / 3])


def test_precision_recall__difficult_objects_leave_no_point() -> None:
    curves = precision_recall(
        [truth(FIRST), truth(SECOND, difficult=True)], [found(FIRST), found(SECOND, scores=(0.95,))], ("car", "bus")
    )
    assert curves["car"].precision == pytest.approx([1])


def test_write_curves__table_and_picture(tmp_path: Path) -> None:
    curves = precision_recall([truth(FIRST)], [found(FIRST)], ("car", "bus"))
    captions = write_curves(tmp_path, {"source": curves, "adapted": curves})
    assert (tmp_path / TABLE).read_text().splitlines() == [
        "model,class,score,recall,precision",
        "source,car,0.900,1.000000,1.000000",
        "adapted,car,0.900,1.000000,1.000000",
    ]
    with Image.open(tmp_path / PICTURE) as picture:
        assert picture.size == (960, 480)
    assert captions[PICTURE].startswith("Precision against recall")
    assert write_curves(tmp_path, {"source": {}}) == {}
