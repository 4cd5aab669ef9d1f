"""Sum of features: written with them, and compared when all rows are read."""

import hashlib

import numpy as np
from numpy.typing import NDArray

SUM = "content_sha256"


class ContentSum:
    """SHA-256 over type, width, rows and corners of features, fed block by block.

    Args:
        dtype: Type of the rows.
        dim: Features of a tile.
    """

    def __init__(self, dtype: np.dtype[np.generic], dim: int) -> None:
        self._digest = hashlib.sha256(f"{dtype.newbyteorder('<').str} {dim}".encode())

    def add(self, block: NDArray[np.generic]) -> None:
        """Add the next rows."""
        self._digest.update(np.ascontiguousarray(block).data)

    def close(self, corners: NDArray[np.int64] | None) -> str:
        """Add the corners; returns 64 hexadecimal digits."""
        if corners is not None:
            self._digest.update(np.ascontiguousarray(corners, "<i8").data)
        return self._digest.hexdigest()
