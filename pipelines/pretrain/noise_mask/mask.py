"""From sampled cells to the noise mask: nearest-neighbour enlargement, then a Gaussian blur with reflected borders."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Mask, mask_problems
from pipelines.pretrain.noise_mask.beta import BetaCells
from vision_core.errors import ConfigError
from vision_core.randomness import key


class NoiseMask(nn.Module):
    """Makes masks for square images; has no parameters and no entry in a checkpoint.

    Both operations are linear and separable, so one matrix ``S`` does them: the mask is ``S M Sᵀ``.

    Args:
        settings: Grid and blur.
        image_px: Side of the images.

    Raises:
        ConfigError: The grid or the blur does not fit on the image.
    """

    def __init__(self, settings: Mask, image_px: int) -> None:
        super().__init__()
        if problems := mask_problems(settings, image_px):
            raise ConfigError(problems)
        self.grid = settings.grid
        self.spread: Tensor
        self.register_buffer("spread", spread_matrix(settings, image_px), persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """The masks ``(B, 1, image_px, image_px)`` of ``cells`` ``(B, grid²)``, which are read row by row."""
        rows = cells.unflatten(1, (1, self.grid, self.grid))
        with torch.autocast(cells.device.type, enabled=False):
            masks: Tensor = self.spread @ rows @ self.spread.T
        return masks


def spread_matrix(settings: Mask, image_px: int) -> Tensor:
    """How much of each cell reaches each pixel of a line: ``(image_px, grid)``, rows sum to 1.

    Pixel ``i`` lies in cell ``floor(i grid / image_px)``; a pixel beyond the border is its mirror image, the border
    pixel itself not repeated.
    """
    half = settings.kernel // 2
    reached = (torch.arange(image_px)[:, None] + torch.arange(-half, half + 1)).abs()
    reached = (image_px - 1) - ((image_px - 1) - reached).abs()  # (image_px, kernel)
    weights = gaussian(settings).expand(image_px, -1)
    spread = torch.zeros(image_px, settings.grid, dtype=weights.dtype)
    return spread.scatter_add_(1, reached * settings.grid // image_px, weights).to(torch.get_default_dtype())


def gaussian(settings: Mask) -> Tensor:
    """Weights ``(kernel,)`` of the blur along one axis, in double precision; their sum is 1."""
    half = settings.kernel // 2
    offsets = torch.arange(-half, half + 1, dtype=torch.float64)
    return (-0.5 * (offsets / settings.sigma) ** 2).softmax(dim=0)


def blend(images: Tensor, masks: Tensor) -> Tensor:
    """Multiply masks ``(B, 1, H, W)`` into all channels of normalised images, which fade to mean grey, not to black."""
    return images * masks


@dataclass(frozen=True, kw_only=True)
class MaskSource:
    """How the running bases alone hide an image: the same for all images, whatever is in them.

    Attributes:
        cells: The bases ``(1, grid²)``.
        mask: Makes masks.
    """

    cells: BetaCells
    mask: NoiseMask

    def mean(self, images: Tensor, _number: int) -> Tensor:
        """Images under the expected mask."""
        return blend(images, self.mask(self.cells.mean()).to(images.device))

    def random(self, images: Tensor, number: int) -> Tensor:
        """Images of batch ``number`` under one random mask, the same at every call."""
        return blend(images, self.mask(self.cells.sample([key("evaluation mask", number)])).to(images.device))
