"""Encoding of tiles in batches that shrink when memory runs out."""

import torch
from torch import Tensor

from vision_core.environment import is_out_of_memory, release_gpu_memory
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.features.tile_batches import Pixels


class AdaptiveBatches:
    """Encoder of batches that are halved after memory has run out once.

    Attributes:
        notes: One sentence, if batches were halved.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.notes: tuple[str, ...] = ()
        self._encoder = encoder
        self._max_tiles: int | None = None

    def __call__(self, tiles: Pixels) -> Tensor:
        """Encode tiles ``(B, H, W, 3)`` uint8 to features ``(B, dim)``.

        Raises:
            MemoryError: Half a batch is too large, too.
        """
        try:
            return self._encode_in_parts(tiles)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if self._max_tiles is not None or len(tiles) < 2:
                raise MemoryError(
                    _out_of_memory_message(len(tiles) if self._max_tiles is None else self._max_tiles)
                ) from error
        self._max_tiles = (len(tiles) + 1) // 2
        self.notes = (
            f"The memory was not enough for {len(tiles)} tiles at once; {self._max_tiles} are encoded at once.",
        )
        release_gpu_memory()
        return self(tiles)

    def _encode_in_parts(self, tiles: Pixels) -> Tensor:
        step = self._max_tiles or max(1, len(tiles))
        parts = [self._encoder.encode(tiles[first : first + step]) for first in range(0, max(1, len(tiles)), step)]
        return torch.cat(parts)


def _out_of_memory_message(count: int) -> str:
    return f"the memory is not enough to encode {count} tiles at once. Set encoder.batch_size to {max(1, count // 2)}."
