"""The policy network: from a clean image to a Beta distribution for every cell of its mask."""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipelines.pretrain.config import PolicyInput
from pipelines.pretrain.noise_mask.beta import BetaCells
from vision_core.backbones.networks import build_backbone
from vision_core.errors import TrainingError
from vision_core.training.batch_norms import has_moving_norms

_WIDTH = 512


class PolicyNetwork(nn.Module):
    """ResNet-10t with two heads of equal structure, whatever the classifier.

    Args:
        grid: Cells along a side of the mask.
        input_px: Larger images are averaged down to this side: 112 costs a quarter of the published 224.
    """

    def __init__(self, grid: int, input_px: PolicyInput = 224) -> None:
        super().__init__()
        self.input_px = input_px
        self.extractor = build_backbone("resnet10t", 0)
        self.alpha = _head(grid * grid)
        self.beta = _head(grid * grid)

    def forward(self, images: Tensor) -> BetaCells:
        """What the heads say of normalised, unmasked ``images`` ``(B, 3, H, W)``; the bases are not in it yet.

        Raises:
            TrainingError: A training batch of one image.
        """
        if len(images) < 2 and has_moving_norms(self):
            raise TrainingError(
                f"A training batch holds '{len(images)}' image; batch normalisation of the policy needs at least 2. "
                "Set train.batch_size to 2 or more, and leave out an incomplete last batch."
            )
        if max(images.shape[-2:]) > self.input_px:
            images = interpolate(images, size=(self.input_px, self.input_px), mode="area")
        features = self.extractor(images)  # (B, 512)
        return BetaCells(log_alpha=self.alpha(features), log_beta=self.beta(features))  # (B, cells)


def _head(cells: int) -> nn.Sequential:
    hidden = [layer for _ in range(2) for layer in (nn.Linear(_WIDTH, _WIDTH), nn.BatchNorm1d(_WIDTH), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(_WIDTH, cells))
