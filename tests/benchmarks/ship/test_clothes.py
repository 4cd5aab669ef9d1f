"""The shipped sheet of clothing is what its script makes."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.ship.clothes import SHEET, make_sheet
from vision_core.errors import MissingDependencyError


@pytest.mark.slow
def test_sheet__is_cut_from_the_detector_part_of_the_study() -> None:
    try:
        made = np.asarray(make_sheet())
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert np.array_equal(made, np.asarray(Image.open(SHEET)))
