"""Masks of many frames in a temporary file, so that memory does not grow with the length of a cine."""

import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


class StoredMasks:
    """Masks ``(F, H, W)`` bool that are written as they come, compressed, and read one at a time.

    The file has no name and ends with this object. ``np.asarray`` reads all masks at once.
    """

    dtype = np.dtype(bool)

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="domainsight-masks-")  # noqa: SIM115 (it lives as long as this)
        self._places: list[tuple[int, int]] = []
        self._size: tuple[int, int] = (0, 0)

    def append(self, mask: NDArray[np.bool_]) -> None:
        """Write the mask ``(H, W)`` of the next frame.

        Raises:
            ValueError: It is of another size than the first.
            OSError: The disk is full.
        """
        height, width = mask.shape
        if self._places and (height, width) != self._size:
            raise ValueError(f"mask: expected size {self._size}, found {mask.shape}")
        self._size = (height, width)
        content = zlib.compress(np.packbits(mask).tobytes(), level=1) if mask.any() else b""
        self._places.append((self._file.seek(0, 2), len(content)))
        self._file.write(content)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width."""
        return (len(self._places), *self._size)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> NDArray[np.bool_]:
        start, length = self._places[number]
        height, width = self._size
        if not length:
            return np.zeros((height, width), bool)
        self._file.seek(start)
        bits = np.frombuffer(zlib.decompress(self._file.read(length)), np.uint8)
        return np.unpackbits(bits, count=height * width).view(bool).reshape(height, width)

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        return (self[number] for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: ANN401 (numpy's own)
        found = np.zeros(self.shape, bool)
        for number, mask in enumerate(self):
            found[number] = mask
        return found if dtype is None else found.astype(dtype)
