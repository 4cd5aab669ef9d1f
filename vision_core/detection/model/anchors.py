"""Anchors of torchvision's detectors, which are not quite those of detectron2."""

import torch
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY, DefaultAnchorGenerator
from torch import Tensor


@ANCHOR_GENERATOR_REGISTRY.register()
class TorchvisionAnchors(DefaultAnchorGenerator):
    """Anchors with corners in whole pixels, at steps that divide the padded image by the cells of a level.

    The step of the last level is then shorter than its stride of 64 wherever the image is no multiple of 64.
    """

    def generate_cell_anchors(self, sizes: tuple[float, ...], aspect_ratios: tuple[float, ...]) -> Tensor:
        """Generate the anchors ``(A, 4)`` of a cell around (0, 0), by size and within a size by ratio."""
        anchors: Tensor = super().generate_cell_anchors(sizes, aspect_ratios)
        return anchors.round()

    def _grid_anchors(self, grid_sizes: list[tuple[int, int]]) -> list[Tensor]:
        padded = [int(cells) * self.strides[0] for cells in grid_sizes[0]]
        levels = []
        for (rows, columns), anchors in zip(grid_sizes, self.cell_anchors, strict=True):
            y, x = torch.meshgrid(
                *(
                    torch.arange(int(cells), dtype=anchors.dtype, device=anchors.device) * (length // int(cells))
                    for cells, length in zip((rows, columns), padded, strict=True)
                ),
                indexing="ij",
            )
            shifts = torch.stack((x, y, x, y), dim=-1).view(-1, 1, 4)
            levels.append((shifts + anchors).view(-1, 4))
        return levels
