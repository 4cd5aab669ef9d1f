"""Pseudo labels that are written once, by the source model: what a teacher that moves is compared with.

The table is a buffer, so that a run that resumes goes on with the labels that it began with.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision_core.detection.model.detector import Targets

_HEAD = 2  # number of labels, highest score
_BOX = 4
_UNWRITTEN = -1.0


class LabelTable(nn.Module):
    """Pseudo labels of all images of a list.

    Args:
        num_images: Images of the list.
        most: Labels of an image at most.

    Attributes:
        rows: ``(images, 2 + 5 * most)`` float32: number of labels, -1 where none are written yet; highest score of the
            image; classes; boxes.
    """

    rows: Tensor

    def __init__(self, num_images: int, most: int) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("rows", torch.zeros(num_images, _HEAD + (1 + _BOX) * most))
        self.rows[:, 0] = _UNWRITTEN

    def pack(self, labels: Sequence[Targets], best: Sequence[Tensor]) -> Tensor:
        """Pack the labels of ``n`` images as rows ``(n, 2 + 5 * most)``.

        Args:
            labels: One entry an image, of at most ``most`` boxes.
            best: Highest score of each image, a scalar.
        """
        rows = self.rows.new_zeros(len(labels), self.rows.shape[1])
        for row, each, score in zip(rows, labels, best, strict=True):
            count = len(each.labels)
            row[0], row[1] = count, score
            row[_HEAD : _HEAD + count] = each.labels.to(row.dtype)
            row[_HEAD + self.most :][: _BOX * count] = each.boxes.flatten().to(row.dtype)
        return rows

    @torch.no_grad()
    def write(self, indices: Tensor, rows: Tensor) -> None:
        """Write packed rows of the images ``indices`` ``(n,)``."""
        self.rows[indices] = rows

    def read(self, indices: Sequence[int]) -> list[tuple[Targets, Tensor] | None]:
        """Read labels and highest score of images; None of one whose labels are not written yet."""
        rows = self.rows[torch.tensor(indices, device=self.rows.device)]
        found: list[tuple[Targets, Tensor] | None] = []
        for count, row in zip(rows[:, 0].tolist(), rows, strict=True):
            boxes = row[_HEAD + self.most :].view(self.most, _BOX)
            labels = row[_HEAD : _HEAD + self.most].long()
            own = None if count < 0 else Targets(boxes=boxes[: int(count)], labels=labels[: int(count)])
            found.append(None if own is None else (own, row[1]))
        return found
