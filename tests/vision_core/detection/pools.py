"""A small pool of real cut-outs for tests: tissue, and clothing where its package is installed."""

from functools import cache

import numpy as np
import pytest

from vision_core.assets import photographs
from vision_core.detection.cut_outs import CutOut, Picture, Pool, clothes
from vision_core.errors import MissingDependencyError
from vision_core.images.reading import read_image


@cache
def ground() -> Picture:
    """A real photograph in place of the large aerial image, which takes long to read."""
    return read_image(photographs()["colon"])


@cache
def clothes_pool(per_class: int = 30) -> Pool:
    """Real clothing; the test is skipped where the package is not installed."""
    try:
        return clothes(per_class, grounds=[ground()])
    except MissingDependencyError as error:
        pytest.skip(str(error))


@cache
def cells_pool() -> Pool:
    """Pieces of real tissue in two shapes, so that scenes are tested where no package of Debian is installed."""
    tissue = ground()
    rows, columns = np.indices((40, 40)) - 19.5
    shapes = (np.hypot(rows, columns) < 19, np.abs(rows) + np.abs(columns) < 19)
    cut_outs = tuple(
        CutOut(
            name=f"{label}-{number}",
            label=label,
            picture=tissue[40 * number : 40 * number + 40, 40 * label : 40 * label + 40].copy(),
            coverage=mask.astype(np.float32),
        )
        for label, mask in enumerate(shapes)
        for number in range(6)
    )
    return Pool(classes=("disc", "diamond"), cut_outs=cut_outs, grounds=(tissue,))
