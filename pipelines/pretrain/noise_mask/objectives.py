"""The two objectives under which classifier and policy learn together.

Symbols: ``cost`` the cross-entropy of an image, ``l`` the log-densities of its cells, ``LSE`` the logarithm of the sum
of its cells' densities. Each objective is a loss for the classifier and one for the policy. Their graphs do not meet,
since a sampled mask carries no gradient; so one backward pass of the sum serves both.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy

from pipelines.pretrain.config import Reinforce
from pipelines.pretrain.noise_mask.beta import BetaCells


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
