"""Noise masks from sampled cells: nearest-neighbour enlargement, then a Gaussian blur with reflected borders."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Mask, mask_problems
from pipelines.pretrain.noise_mask.beta import BetaCells
from vision_core.errors import ConfigError
from vision_core.randomness import key
from vision_core.training.runtime import full_float32


class NoiseMask(nn.Module):
    """Noise masks for square images: ``m̃ = blur(enlarge(m))`` (4), without parameters.

    Enlargement and blur are linear and separable, so one matrix ``S`` ``(image_px, grid)`` does both: ``m̃ = S M Sᵀ``,
    where ``M`` are the cells ``m`` as rows of the grid. The defaults are the published values. A masked image is
    ``x̃ = x m̃`` (5), see ``blend``::

        mask = NoiseMask(grid=64, kernel=13, sigma=6.0, image_px=224)
        masked = images * mask(torch.rand(len(images), 64 * 64))  # (B, 3, 224, 224)

    Args:
        grid: Cells along a side of the mask.
        kernel: Side of the blur in pixels; odd.
        sigma: Standard deviation of the blur in pixels.
        image_px: Side of the images in pixels.

    Raises:
        ConfigError: The grid or the blur does not fit on the image.
        ValueError: The kernel is even, or a value is not positive.
    """

    def __init__(self, grid: int = 64, kernel: int = 13, sigma: float = 6.0, image_px: int = 224) -> None:
        super().__init__()
        if problems := mask_problems(Mask(grid=grid, kernel=kernel, sigma=sigma), image_px):
            raise ConfigError(problems)
        self.grid = grid
        self.matrix: Tensor
        self.register_buffer("matrix", interpolation_matrix(grid, kernel, sigma, image_px), persistent=False)

    @classmethod
    def from_settings(cls, settings: Mask, image_px: int) -> "NoiseMask":
        """Make the masks of a configuration section; raises as the class."""
        return cls(settings.grid, settings.kernel, settings.sigma, image_px)

    def forward(self, sample: Tensor) -> Tensor:
        """Compute the masks ``(B, 1, image_px, image_px)`` of sampled cells ``(B, grid²)``, in row-major order."""
        rows = sample.unflatten(1, (1, self.grid, self.grid))
        with full_float32(sample.device):
            masks: Tensor = self.matrix @ rows @ self.matrix.T
        return masks


def interpolation_matrix(grid: int, kernel: int, sigma: float, image_px: int) -> Tensor:
    """Compute ``S`` ``(image_px, grid)``: the weight of each cell in each pixel of a line; rows sum to 1.

    Pixel ``i`` lies in cell ``floor(i grid / image_px)``. A pixel beyond the border takes the value of its mirror
    image; the border pixel itself is not repeated.
    """
    half = kernel // 2
    pixels = (torch.arange(image_px)[:, None] + torch.arange(-half, half + 1)).abs()
    pixels = (image_px - 1) - ((image_px - 1) - pixels).abs()  # (image_px, kernel)
    weights = gaussian_weights(kernel, sigma).expand(image_px, -1)
    matrix = torch.zeros(image_px, grid, dtype=weights.dtype)
    return matrix.scatter_add_(1, pixels * grid // image_px, weights).to(torch.get_default_dtype())


def gaussian_weights(kernel: int, sigma: float) -> Tensor:
    """Compute the blur's weights along one axis: ``(kernel,)`` float64 with sum 1."""
    half = kernel // 2
    offsets = torch.arange(-half, half + 1, dtype=torch.float64)
    return (-0.5 * (offsets / sigma) ** 2).softmax(dim=0)


def blend(images: Tensor, masks: Tensor) -> Tensor:
    """Multiply images by masks (5); one mask serves all channels.

    Normalised images fade to the mean grey, not to black.

    Args:
        images: ``(B, C, H, W)``, normalised.
        masks: ``(B, 1, H, W)``.
    """
    return images * masks


@dataclass(frozen=True, kw_only=True)
class SharedMasks:
    """Masks from the running bases alone: the same for all images, whatever they show.

    Attributes:
        cells: Distributions of the cells ``(1, grid²)``.
        mask: Makes masks from cells.
    """

    cells: BetaCells
    mask: NoiseMask

    def apply_mean(self, images: Tensor, _batch: int) -> Tensor:
        """Apply the expected mask to images ``(B, C, H, W)``."""
        return blend(images, self.mask(self.cells.mean()).to(images.device))

    def apply_random(self, images: Tensor, batch: int) -> Tensor:
        """Apply one random mask to the images of a batch; the batch's number is its seed."""
        return blend(images, self.mask(self.cells.sample([key("evaluation mask", batch)])).to(images.device))
