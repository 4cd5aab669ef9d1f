"""Training objectives of classifier and policy: as released, and REINFORCE.

Symbols: ``c`` the cost (cross-entropy) of an image, ``l`` the log-densities of its sampled cells, ``LSE`` the logarithm
of the sum of its cells' densities. Each objective is one loss for the classifier and one for the policy. A sampled mask
carries no gradient, so the two graphs are disjoint and one backward pass of the sum serves both.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipelines.pretrain.config import Reinforce
from pipelines.pretrain.noise_mask.beta import BetaCells

_EPSILON = 1e-8


def image_costs(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute the cross-entropy of each image ``(B,)``.

    Args:
        logits: ``(B, classes)``.
        targets: ``(B,)`` int64, or probabilities ``(B, classes)``.
        label_smoothing: Probability spread over all classes.
    """
    return cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)


def mean_log_total_density(log_densities: Tensor) -> Tensor:
    """Compute the batch mean of ``LSE = log Σ exp l`` over the cells.

    Args:
        log_densities: ``l`` ``(B, cells)``.
    """
    return log_densities.logsumexp(dim=1).mean()


def released_losses(
    cost: Tensor, density: Tensor, global_means: tuple[Tensor, Tensor] | None = None, *, scale_classifier: bool = True
) -> dict[str, Tensor]:
    """Compute the released objective ``L = mean LSE · mean c`` (6) as two losses.

    Each factor scales the gradient of the other. The two losses add up to ``L``; on one process the policy's has the
    value 0. ``L`` is no score-function estimator: the sum of densities is not the mask's likelihood, and all images
    share one cost. It is here for parity.

    Args:
        cost: Mean cost of this process' images, scalar.
        density: Their ``mean_log_total_density``, scalar.
        global_means: Means of the two over all processes; None on one process.
        scale_classifier: Scale the classifier's gradient by the density, as released.
    """
    all_cost, all_density = (each.detach() for each in global_means or (cost, density))
    return {
        "loss_classifier": all_density * cost if scale_classifier else cost,
        "loss_policy": all_cost * (density - all_density),
    }


def reinforce_losses(
    costs: Tensor, cells: BetaCells, log_densities: Tensor, advantages: Tensor, settings: Reinforce
) -> dict[str, Tensor]:
    """Compute the mean cost, and the score-function loss ``-mean(A Σ l) - η mean H`` (7) of the policy.

    ``A`` are the advantages, ``η`` is ``settings.entropy_weight``, ``H`` the entropy of a cell. With
    ``settings.per_cell`` the mean over cells replaces the sum. Source: Williams, "Simple statistical gradient-following
    algorithms for connectionist reinforcement learning", 1992.

    Args:
        costs: ``c`` ``(B,)``.
        cells: Distributions from which the masks were drawn.
        log_densities: ``l`` ``(B, cells)``.
        advantages: ``A`` ``(B,)``, taken as constants.
        settings: Reduction over cells, and entropy bonus.
    """
    likelihoods = log_densities.mean(dim=1) if settings.per_cell else log_densities.sum(dim=1)  # (B,)
    loss_policy = -(advantages.detach() * likelihoods).mean()
    if settings.entropy_weight:
        loss_policy = loss_policy - settings.entropy_weight * cells.entropy().mean()
    return {"loss_classifier": costs.mean(), "loss_policy": loss_policy}


class CostBaseline(nn.Module):
    """Expected cost of an image; a checkpoint holds its moving average.

    Args:
        settings: Kind of baseline and keep rate.
    """

    def __init__(self, settings: Reinforce) -> None:
        super().__init__()
        self.settings = settings
        self.average: Tensor
        self.has_begun: Tensor
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("has_begun", torch.tensor(False))

    @torch.no_grad()
    def forward(self, costs: Tensor) -> Tensor:
        """Compute the expected costs ``(N,)`` for the costs ``(N,)`` of a step's images on all processes."""
        match self.settings.baseline:
            case "none":
                return torch.zeros_like(costs)
            case "batch_mean":
                return costs.mean().expand_as(costs)
            case "leave_one_out":
                return leave_one_out(costs)
            case "ema":
                return self._average_or(costs.mean()).expand_as(costs)

    @torch.no_grad()
    def update(self, costs: Tensor) -> None:
        """Move the average towards the mean of ``costs`` ``(N,)``; to be called after ``forward``."""
        keep, mean = self.settings.baseline_keep_rate, costs.mean()
        self.average.copy_(keep * self._average_or(mean) + (1 - keep) * mean)
        self.has_begun.fill_(True)

    def _average_or(self, first: Tensor) -> Tensor:
        # Chosen on the device: reading the flag would make the host wait.
        return torch.where(self.has_begun, self.average, first.to(self.average.dtype))


def leave_one_out(costs: Tensor) -> Tensor:
    """Compute for each of at least two images the mean cost of the others ``(N,)``, independent of its own mask."""
    return (costs.sum() - costs) / (len(costs) - 1)


@torch.no_grad()
def advantages(costs: Tensor, expected: Tensor, *, normalise: bool = False) -> Tensor:
    """Compute reward minus baseline, ``A = expected - c`` ``(N,)``.

    Args:
        costs: ``c`` ``(N,)``.
        expected: ``(N,)``, from a ``CostBaseline``.
        normalise: Divide by the standard deviation over the ``N`` images, with divisor ``N``.
    """
    raw = expected - costs
    return raw / (raw.std(correction=0) + _EPSILON) if normalise else raw
