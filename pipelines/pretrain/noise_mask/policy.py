"""The policy network: from a clean image to a Beta distribution for every cell of its mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipelines.pretrain.config import Bases, PolicyInput, PretrainConfig
from pipelines.pretrain.noise_mask.beta import BetaCells, num_at_border, unlearned_cells
from pipelines.pretrain.noise_mask.mask import NoiseMask
from vision_core.backbones.networks import build_backbone
from vision_core.errors import TrainingError
from vision_core.training.batch_norms import has_moving_norms
from vision_core.training.distributed import mean_row

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


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskSample:
    """The masks of a batch.

    Attributes:
        cells: The distributions they were drawn from ``(B, grid²)``.
        sample: The sampled cells ``(B, grid²)``, without a gradient.
        masks: ``(B, 1, H, W)``.
        is_finite: Whether the policy gave finite numbers, a boolean scalar on the device.
        num_moved: Entries that were moved off an extreme, an integer scalar on the device.
    """

    cells: BetaCells
    sample: Tensor
    masks: Tensor
    is_finite: Tensor
    num_moved: Tensor

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """Mean entropy of the cells of all images, a scalar."""
        return self.cells.entropy().mean()


class NoisePolicy(nn.Module):
    """The policy network and its running bases.

    Args:
        config: Grid, what the network sees, shares of the bases.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.network = PolicyNetwork(config.mask.grid, config.policy_input)
        self.bases = RunningBases(config.mask.grid**2, config.bases)

    def draw(self, images: Tensor, seeds: Sequence[int], mask: NoiseMask) -> MaskSample:
        """Masks for a training batch, each from its own seed; the bases then follow the mean over all processes.

        Numbers that are not finite become 0 and are told of by ``is_finite``: the classifier sees none of them.
        """
        heads, is_finite = self._heads(images)
        unbounded = self.bases(heads)
        self.bases.update(BetaCells(log_alpha=mean_row(heads.log_alpha), log_beta=mean_row(heads.log_beta)))
        cells = unbounded.bounded()
        sample = cells.sample(seeds)
        return MaskSample(
            cells=cells,
            sample=sample,
            masks=mask(sample),
            is_finite=is_finite,
            num_moved=unbounded.num_beyond() + num_at_border(sample),
        )

    @torch.no_grad()
    def distributions(self, images: Tensor) -> BetaCells:
        """The distributions for ``images`` as the policy stands, in inference: nothing is moved."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        cells: BetaCells = self.bases(self._heads(images)[0])
        for module, is_training in modes.items():  # one by one: norms may be frozen
            module.training = is_training
        return cells.bounded()

    def _heads(self, images: Tensor) -> tuple[BetaCells, Tensor]:
        """What the network says, in the precision of the bases even where it computes in half, and if it is finite."""
        said: BetaCells = self.network(images)
        dtype = self.bases.log_alpha.dtype
        return _finite(BetaCells(log_alpha=said.log_alpha.to(dtype), log_beta=said.log_beta.to(dtype)))


def draw_unlearned(images: Tensor, seeds: Sequence[int], mask: NoiseMask, concentration: float) -> MaskSample:
    """Masks of the fixed Beta, the same in every cell of every image."""
    cells = unlearned_cells(concentration, images, mask.grid**2)
    sample = cells.sample(seeds)
    return MaskSample(
        cells=cells,
        sample=sample,
        masks=mask(sample),
        is_finite=images.new_tensor(True, dtype=torch.bool),
        num_moved=num_at_border(sample),
    )


def _finite(heads: BetaCells) -> tuple[BetaCells, Tensor]:
    """The same with 0 in place of NaN and infinity, without a gradient there, and whether nothing was replaced."""
    is_alpha, is_beta = heads.log_alpha.isfinite(), heads.log_beta.isfinite()
    replaced = BetaCells(
        log_alpha=torch.where(is_alpha, heads.log_alpha, 0.0), log_beta=torch.where(is_beta, heads.log_beta, 0.0)
    )
    return replaced, is_alpha.all() & is_beta.all()


class RunningBases(nn.Module):
    """Moving averages of the heads' outputs, as buffers: a checkpoint holds them.

    They start uniform in [0, 1), from torch's random state.

    Args:
        cells: Cells of a mask.
        settings: Share and keep rate.
    """

    def __init__(self, cells: int, settings: Bases) -> None:
        super().__init__()
        self.settings = settings
        self.log_alpha: Tensor
        self.log_beta: Tensor
        self.register_buffer("log_alpha", torch.rand(1, cells))
        self.register_buffer("log_beta", torch.rand(1, cells))

    def forward(self, heads: BetaCells) -> BetaCells:
        """``δ A + (1 - δ) h``: concentrations of each image, with a gradient through ``heads`` alone."""
        share = self.settings.share
        return BetaCells(
            log_alpha=share * self.log_alpha + (1 - share) * heads.log_alpha,
            log_beta=share * self.log_beta + (1 - share) * heads.log_beta,
        )

    def current(self) -> BetaCells:
        """The bases themselves, as one mask's distribution for every image: ``(1, cells)``."""
        return BetaCells(log_alpha=self.log_alpha, log_beta=self.log_beta)

    @torch.no_grad()
    def update(self, heads: BetaCells) -> None:
        """Move towards the mean over the rows of ``heads``, after ``forward`` has used the bases of before.

        On several processes the rows are those of all, or one mean per process.
        """
        step = 1 - self.settings.keep_rate
        self.log_alpha.lerp_(heads.log_alpha.mean(dim=0, keepdim=True).to(self.log_alpha.dtype), step)
        self.log_beta.lerp_(heads.log_beta.mean(dim=0, keepdim=True).to(self.log_beta.dtype), step)
