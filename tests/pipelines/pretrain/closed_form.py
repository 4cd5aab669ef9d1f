"""A step of both objectives in closed form, in double precision.

It takes the networks' outputs and goes on in numpy and scipy alone: cross-entropy, densities, and the derivative
``α (log m - ψ(α) + ψ(α + β))`` of a log-density with respect to ``log α``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, digamma, logsumexp, softmax
from torch import Tensor

from pipelines.pretrain.noise_mask.beta import BetaCells

Array = NDArray[np.float64]
Objective = Literal["released", "reinforce"]
SHARE = 0.1  # of the heads in a concentration


@dataclass(kw_only=True)
class ClosedForm:
    """Value of the loss, and its derivatives with respect to the logits and the heads' outputs."""

    loss: float
    logits: Array
    log_alpha: Array
    log_beta: Array


def closed_form(objective: Objective, logits: Tensor, targets: Tensor, drawn: tuple[BetaCells, Tensor]) -> ClosedForm:
    """``reinforce`` with the leave-one-out baseline and the mean over cells; ``drawn``: distributions and sample."""
    scores, truth, cells = numpy(logits), targets.numpy(), numpy(drawn[1])
    count, num_cells = cells.shape
    a, b = np.exp(numpy(drawn[0].log_alpha)), np.exp(numpy(drawn[0].log_beta))
    costs = logsumexp(scores, axis=1) - scores[range(count), truth]
    slope = (softmax(scores, axis=1) - np.eye(scores.shape[1])[truth]) / count
    densities = (a - 1) * np.log(cells) + (b - 1) * np.log1p(-cells) - betaln(a, b)
    if objective == "released":
        totals = logsumexp(densities, axis=1)
        loss, scale = totals.mean() * costs.mean(), totals.mean()
        weights = costs.mean() / count * softmax(densities, axis=1)  # of each cell's score
    else:
        others = (costs.sum() - costs) / (count - 1)
        weights = np.repeat((costs - others)[:, None], num_cells, axis=1) / (count * num_cells)
        loss, scale = costs.mean() + (weights * densities).sum(), 1.0
    through_bases = SHARE * weights
    return ClosedForm(
        loss=loss,
        logits=scale * slope,
        log_alpha=through_bases * a * (np.log(cells) - digamma(a) + digamma(a + b)),
        log_beta=through_bases * b * (np.log1p(-cells) - digamma(b) + digamma(a + b)),
    )


def numpy(tensor: Tensor) -> Array:
    return tensor.detach().numpy()
