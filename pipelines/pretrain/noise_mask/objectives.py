"""The two objectives under which classifier and policy learn together.

Symbols: ``cost`` the cross-entropy of an image, ``l`` the log-densities of its cells, ``LSE`` the logarithm of the sum
of its cells' densities. Each objective is a loss for the classifier and one for the policy. Their graphs do not meet,
since a sampled mask carries no gradient; so one backward pass of the sum serves both.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipelines.pretrain.config import Reinforce
from pipelines.pretrain.noise_mask.beta import BetaCells

_EPSILON = 1e-8


def image_costs(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each image ``(B,)``.

    Args:
        logits: ``(B, classes)``.
        targets: ``(B,)`` int64, or probabilities ``(B, classes)``.
        label_smoothing: Probability spread over all classes.
    """
    return cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)


def mean_log_total_density(log_densities: Tensor) -> Tensor:
    """``mean LSE`` over the batch: for each image the logarithm of the sum over cells of ``exp l`` ``(B, cells)``."""
    return log_densities.logsumexp(dim=1).mean()


def released_losses(
    cost: Tensor, density: Tensor, everywhere: tuple[Tensor, Tensor] | None = None, *, scale_classifier: bool = True
) -> dict[str, Tensor]:
    """The released objective ``L = mean LSE * mean cost``: each factor scales the gradient of the other.

    The two losses add up to ``L``; the policy's has the value 0 on one process. ``L`` is no score-function estimator:
    the sum of densities is not the mask's likelihood, and all images share one cost. It is here for parity.

    Args:
        cost: Mean cost of this process' images, scalar.
        density: Their ``mean_log_total_density``, scalar.
        everywhere: The means of the two over all processes; None on one process.
        scale_classifier: Scale the classifier's gradient by the density, as released.
    """
    all_cost, all_density = (each.detach() for each in everywhere or (cost, density))
    return {
        "loss_classifier": all_density * cost if scale_classifier else cost,
        "loss_policy": all_cost * (density - all_density),
    }


def reinforce_losses(
    costs: Tensor, cells: BetaCells, log_densities: Tensor, advantages: Tensor, settings: Reinforce
) -> dict[str, Tensor]:
    """The score-function estimator: ``-mean(advantage * log-likelihood of the mask)``, beside the plain mean cost.

    Source: Williams, "Simple statistical gradient-following algorithms", 1992.

    Args:
        costs: ``(B,)``.
        cells: Distributions the masks were drawn from, for their entropy.
        log_densities: ``l`` ``(B, cells)``.
        advantages: ``(B,)``, taken as constants.
        settings: Reduction over cells, entropy bonus.
    """
    likelihoods = log_densities.mean(dim=1) if settings.per_cell else log_densities.sum(dim=1)  # (B,)
    loss_policy = -(advantages.detach() * likelihoods).mean()
    if settings.entropy_weight:
        loss_policy = loss_policy - settings.entropy_weight * cells.entropy().mean()
    return {"loss_classifier": costs.mean(), "loss_policy": loss_policy}


class CostBaseline(nn.Module):
    """What an image is expected to cost.

    The moving average, and whether it has begun, are buffers: a checkpoint holds them.

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
        """Expected costs ``(N,)`` of the ``N`` images of a step, those of all processes together."""
        match self.settings.baseline:
            case "none":
                return torch.zeros_like(costs)
            case "batch_mean":
                return costs.mean().expand_as(costs)
            case "leave_one_out":
                return leave_one_out(costs)
            case "ema":
                return self._begun(costs).expand_as(costs)

    @torch.no_grad()
    def update(self, costs: Tensor) -> None:
        """Move the average towards the mean of ``costs`` ``(N,)``, after ``forward`` has used the one of before."""
        keep = self.settings.baseline_keep_rate
        self.average.copy_(keep * self._begun(costs) + (1 - keep) * costs.mean())
        self.has_begun.fill_(True)

    def _begun(self, costs: Tensor) -> Tensor:
        # A choice on the device: asking it would make the host wait.
        return torch.where(self.has_begun, self.average, costs.mean().to(self.average.dtype))


def leave_one_out(costs: Tensor) -> Tensor:
    """For each of at least two images, the mean cost of the others ``(N,)``: independent of its own mask."""
    return (costs.sum() - costs) / (len(costs) - 1)


@torch.no_grad()
def advantages(costs: Tensor, expected: Tensor, *, normalise: bool = False) -> Tensor:
    """Reward minus baseline, ``expected - costs`` ``(N,)``.

    Args:
        costs: ``(N,)``.
        expected: ``(N,)``, from a ``CostBaseline``.
        normalise: Divide by the standard deviation over the ``N`` images, with divisor ``N``.
    """
    raw = expected - costs
    return raw / (raw.std(correction=0) + _EPSILON) if normalise else raw
