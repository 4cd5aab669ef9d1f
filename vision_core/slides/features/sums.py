"""Sum of features: written with them, and compared when all rows are read."""

import hashlib

import numpy as np
from numpy.typing import NDArray

SUM = "content_sha256"
_MEANS = 32  # features of which the mean is kept


class ContentSum:
    """SHA-256 over type, width, rows and corners of features, fed block by block.

    Args:
        dtype: Type of the rows.
        dim: Features of a tile.
    """

    def __init__(self, dtype: np.dtype[np.generic], dim: int) -> None:
        self._digest = hashlib.sha256(f"{dtype.newbyteorder('<').str} {dim}".encode())
        self._totals = np.zeros(min(dim, _MEANS))
        self._count = 0

    def add(self, block: NDArray[np.generic]) -> None:
        """Add the next rows."""
        self._digest.update(np.ascontiguousarray(block).data)
        with np.errstate(over="ignore", invalid="ignore"):  # rows that are not finite are refused elsewhere
            self._totals += block[:, : len(self._totals)].sum(axis=0, dtype=np.float64)
        self._count += len(block)

    @property
    def means(self) -> tuple[float, ...]:
        """Means of the first features: the same, up to rounding, in another order or precision of the rows."""
        return tuple((self._totals / max(self._count, 1)).tolist())

    def close(self, corners: NDArray[np.int64] | None) -> str:
        """Add the corners; returns 64 hexadecimal digits."""
        if corners is not None:
            self._digest.update(np.ascontiguousarray(corners, "<i8").data)
        return self._digest.hexdigest()
