"""Encoding in smaller batches when the memory is not enough for whole ones."""

import torch
from torch import Tensor

from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.features.tile_batches import Pixels


class AdaptiveBatches:
    """Encodes batches; the first that is too large for the memory is halved, and so are all after it.

    Attributes:
        notes: That it happened, as a sentence.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.notes: tuple[str, ...] = ()
        self._encoder = encoder
        self._most: int | None = None

    def __call__(self, tiles: Pixels) -> Tensor:
        """Features ``(B, dim)`` of ``(B, H, W, 3)`` bytes.

        Raises:
            MemoryError: Half a batch is too large as well.
        """
        try:
            return self._in_parts(tiles)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if self._most is not None or len(tiles) < 2:
                raise MemoryError(_too_large(len(tiles) if self._most is None else self._most)) from error
        self._most = (len(tiles) + 1) // 2
        self.notes = (f"The memory was not enough for {len(tiles)} tiles at once; {self._most} are encoded at once.",)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self(tiles)

    def _in_parts(self, tiles: Pixels) -> Tensor:
        step = self._most or max(1, len(tiles))
        parts = [self._encoder.encode(tiles[first : first + step]) for first in range(0, max(1, len(tiles)), step)]
        return torch.cat(parts)


def _too_large(count: int) -> str:
    return f"the memory is not enough to encode {count} tiles at once. Set encoder.batch_size to {max(1, count // 2)}."


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower()
    return "can't allocate memory" in words or "out of memory" in words
