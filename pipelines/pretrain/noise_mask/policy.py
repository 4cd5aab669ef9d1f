"""Policy network: from a clean image to a Beta distribution for every cell of its mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipelines.pretrain.noise_mask.beta import BetaCells, num_at_border, unlearned_cells
from vision_core.backbones.networks import build_backbone
from vision_core.errors import TrainingError
from vision_core.training.batch_norms import has_moving_norms
from vision_core.training.distributed import mean_row

_WIDTH = 512
_MAX_SEED = 2**63 - 1


class PolicyNetwork(nn.Module):
    """ResNet-10t with two heads of equal structure, whatever the classifier.

    Args:
        grid: Cells along a side of the mask.
        input_px: Larger images are averaged down to this side: 112 costs a quarter of the published 224.
    """

    def __init__(self, grid: int, input_px: int = 224) -> None:
        super().__init__()
        self.input_px = input_px
        self.extractor = build_backbone("resnet10t", 0)
        self.alpha = _head(grid * grid)
        self.beta = _head(grid * grid)

    def forward(self, images: Tensor) -> BetaCells:
        """Compute the heads' outputs ``h(f)`` ``(B, grid²)``, without the running bases.

        Args:
            images: ``(B, 3, H, W)``, normalised and not masked.

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
    """Sampled mask cells of a batch.

    Attributes:
        cells: Distributions from which they were drawn ``(B, grid²)``.
        sample: Sampled cells ``(B, grid²)`` in [0, 1], without a gradient; ``NoiseMask`` makes masks of them.
        is_finite: Whether the policy's outputs are finite, a boolean scalar on the device.
        num_clamped: Entries moved off an extreme, an integer scalar on the device.
    """

    cells: BetaCells
    sample: Tensor
    is_finite: Tensor
    num_clamped: Tensor

    def log_density(self) -> Tensor:
        """Compute the log-densities ``l`` ``(B, grid²)`` of the sampled cells."""
        return self.cells.log_density(self.sample)

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """Compute the mean entropy over the cells of all images, a scalar."""
        return self.cells.entropy().mean()


class NoisePolicy(nn.Module):
    """Policy network with its running bases; draws the cells of noise masks.

    With the network's features ``f`` and heads ``h``, the bases ``A`` (for ``a = log α``; ``b = log β`` is alike), and
    the published ``δ = 0.9`` (``share``) and ``ρ = 0.99`` (``keep_rate``)::

        (1)  a = δ A + (1 - δ) h(f)
        (2)  A ← ρ A + (1 - ρ) mean h(f)        over the batch; (1) uses A of before
        (3)  m ~ Beta(exp a, exp b)             grid² independent cells, without a gradient

    Args:
        grid: Cells along a side of the mask.
        input_px: Side to which larger images are averaged down for the network.
        share: Share ``δ`` of the bases in a concentration.
        keep_rate: Share ``ρ`` of themselves that the bases keep at a step.
    """

    def __init__(self, grid: int = 64, input_px: int = 224, *, share: float = 0.9, keep_rate: float = 0.99) -> None:
        super().__init__()
        self.network = PolicyNetwork(grid, input_px)
        self.bases = RunningBases(grid**2, share=share, keep_rate=keep_rate)

    def draw(self, images: Tensor, seeds: Sequence[int] | None = None) -> MaskSample:
        """Draw the mask cells of a training batch, (1) and (3); then update the bases, (2).

        Outputs that are not finite become 0, so that the classifier never sees them; ``is_finite`` reports them.

        Args:
            images: ``(B, 3, H, W)``, normalised and not masked.
            seeds: One per image; None: from torch's random state.
        """
        if seeds is None:
            seeds = torch.randint(_MAX_SEED, (len(images),)).tolist()
        heads, is_finite = self._heads(images)
        unclamped = self.bases(heads)
        self.bases.update(BetaCells(log_alpha=mean_row(heads.log_alpha), log_beta=mean_row(heads.log_beta)))
        cells = unclamped.clamped()
        sample = cells.sample(seeds)
        num_clamped = unclamped.num_out_of_range() + num_at_border(sample)
        return MaskSample(cells=cells, sample=sample, is_finite=is_finite, num_clamped=num_clamped)

    @torch.no_grad()
    def distributions(self, images: Tensor) -> BetaCells:
        """Compute the distributions (1) for ``images`` in inference mode; nothing is updated.

        Args:
            images: ``(B, 3, H, W)``, normalised and not masked.
        """
        modes = {module: module.training for module in self.modules()}
        self.eval()
        cells: BetaCells = self.bases(self._heads(images)[0])
        for module, is_training in modes.items():  # one by one: norms may be frozen
            module.training = is_training
        return cells.clamped()

    def _heads(self, images: Tensor) -> tuple[BetaCells, Tensor]:
        """Compute the heads' outputs in the bases' precision, 0 where not finite, and whether all were finite."""
        heads: BetaCells = self.network(images)
        dtype = self.bases.log_alpha.dtype
        log_alpha, log_beta = heads.log_alpha.to(dtype), heads.log_beta.to(dtype)
        is_alpha, is_beta = log_alpha.isfinite(), log_beta.isfinite()
        finite = BetaCells(
            log_alpha=torch.where(is_alpha, log_alpha, 0.0), log_beta=torch.where(is_beta, log_beta, 0.0)
        )
        return finite, is_alpha.all() & is_beta.all()


def draw_unlearned(images: Tensor, seeds: Sequence[int], grid: int, concentration: float) -> MaskSample:
    """Draw mask cells from one fixed Beta distribution, the control without a policy.

    Args:
        images: ``(B, ...)``; gives batch size, type and device.
        seeds: One per image.
        grid: Cells along a side of the mask.
        concentration: ``α`` and ``β`` of every cell.
    """
    cells = unlearned_cells(concentration, images, grid**2)
    sample = cells.sample(seeds)
    is_finite = images.new_tensor(True, dtype=torch.bool)
    return MaskSample(cells=cells, sample=sample, is_finite=is_finite, num_clamped=num_at_border(sample))


class RunningBases(nn.Module):
    """Moving averages of the heads' outputs, as buffers, so that a checkpoint holds them; see ``NoisePolicy``.

    They start uniform in [0, 1), from torch's random state.

    Args:
        cells: Cells of a mask.
        share: ``δ`` of (1).
        keep_rate: ``ρ`` of (2).
    """

    def __init__(self, cells: int, *, share: float = 0.9, keep_rate: float = 0.99) -> None:
        super().__init__()
        self.share, self.keep_rate = share, keep_rate
        self.log_alpha: Tensor
        self.log_beta: Tensor
        self.register_buffer("log_alpha", torch.rand(1, cells))
        self.register_buffer("log_beta", torch.rand(1, cells))

    def forward(self, heads: BetaCells) -> BetaCells:
        """Compute the concentrations (1) of each image; the gradient flows through ``heads`` alone."""
        return BetaCells(
            log_alpha=self.share * self.log_alpha + (1 - self.share) * heads.log_alpha,
            log_beta=self.share * self.log_beta + (1 - self.share) * heads.log_beta,
        )

    def cells(self) -> BetaCells:
        """Return the bases as the distributions ``(1, cells)`` of one mask for every image."""
        return BetaCells(log_alpha=self.log_alpha, log_beta=self.log_beta)

    @torch.no_grad()
    def update(self, heads: BetaCells) -> None:
        """Move the bases towards the mean over the rows of ``heads`` (2).

        On several processes the rows are those of all, or one mean per process.
        """
        step = 1 - self.keep_rate
        self.log_alpha.lerp_(heads.log_alpha.mean(dim=0, keepdim=True).to(self.log_alpha.dtype), step)
        self.log_beta.lerp_(heads.log_beta.mean(dim=0, keepdim=True).to(self.log_beta.dtype), step)
