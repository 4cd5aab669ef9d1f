"""Image–text model with exact answers, for tests of what lies around one."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipelines.ovd.image_text.model import ImageTextModel


class TableModel(ImageTextModel):
    """Embeds a sentence as its row of a table, and a crop as a linear function of its mean colour.

    A sentence that the table lacks gets a direction that follows from its letters. ``texts`` and ``batches`` tell what
    was asked for.
    """

    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)

    def __init__(self, rows: Mapping[str, Sequence[float]] | None = None, embed_dim: int = 3, side: int = 8) -> None:
        super().__init__()
        self.rows = {text: torch.tensor(row, dtype=torch.float32) for text, row in (rows or {}).items()}
        self.embed_dim, self.image_size = embed_dim, side
        self.offset = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.texts: list[str] = []
        self.batches: list[int] = []

    def fingerprint(self) -> str:
        return hashlib.sha256(
            repr(sorted((text, row.tolist()) for text, row in self.rows.items())).encode()
        ).hexdigest()

    def embed_images(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return images.mean(dim=(2, 3)) + 1e-3

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        return torch.stack([self.rows.get(text, self._direction(text)) for text in texts])

    def _direction(self, text: str) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little")
        return torch.randn(self.embed_dim, generator=torch.Generator().manual_seed(seed))
