"""One whole step of both objectives, put together from its pieces, against the same step in closed form."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Reinforce
from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.mask import NoiseMask, blend
from pipelines.pretrain.noise_mask.objectives import (
    CostBaseline,
    advantages,
    image_costs,
    mean_log_total_density,
    reinforce_losses,
    released_losses,
)
from pipelines.pretrain.noise_mask.policy import PolicyNetwork, RunningBases
from tests.pipelines.pretrain.closed_form import Objective, closed_form, numpy

GRID, PIXELS, CLASSES, BATCH = 4, 32, 3, 4


@dataclass(kw_only=True)
class Step:
    """What a step went through, and the losses before the backward pass."""

    classifier: nn.Sequential
    policy: PolicyNetwork
    heads: BetaCells
    concentrations: BetaCells
    cells: Tensor
    masked: Tensor
    logits: Tensor
    losses: dict[str, Tensor]


TARGETS = torch.tensor([0, 2, 1, 2])


def _step(objective: Objective) -> Step:
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * PIXELS**2, CLASSES)).double()
    policy, bases = PolicyNetwork(GRID).double(), RunningBases(GRID**2).double()
    images = torch.randn(BATCH, 3, PIXELS, PIXELS, dtype=torch.float64)
    heads = policy(images)
    concentrations = bases(heads).clamped()
    bases.update(heads)
    cells = concentrations.sample(range(BATCH))
    masked = blend(images, NoiseMask(grid=GRID, kernel=5, sigma=2, image_px=PIXELS).double()(cells))
    logits = classifier(masked)
    return Step(
        classifier=classifier,
        policy=policy,
        heads=heads,
        concentrations=concentrations,
        cells=cells,
        masked=masked,
        logits=logits,
        losses=_losses(objective, image_costs(logits, TARGETS), concentrations, cells),
    )


def _losses(objective: Objective, costs: Tensor, concentrations: BetaCells, cells: Tensor) -> dict[str, Tensor]:
    log_densities = concentrations.log_density(cells)
    if objective == "released":
        return released_losses(costs.mean(), mean_log_total_density(log_densities))
    settings = Reinforce(baseline="leave_one_out")
    gains = advantages(costs, CostBaseline(settings)(costs))
    return reinforce_losses(costs, concentrations, log_densities, gains, settings)


@pytest.mark.parametrize("objective", ["released", "reinforce"])
def test_step__loss_and_classifier_and_policy_gradients(objective: Objective) -> None:
    step = _step(objective)
    expected = closed_form(objective, step.logits, TARGETS, (step.concentrations, step.cells))
    loss = torch.stack(list(step.losses.values())).sum()
    policy_gradients = torch.autograd.grad(
        [step.heads.log_alpha, step.heads.log_beta],
        list(step.policy.parameters()),
        [torch.from_numpy(expected.log_alpha), torch.from_numpy(expected.log_beta)],
        retain_graph=True,
    )
    loss.backward()

    assert loss.item() == pytest.approx(expected.loss, rel=1e-10)
    linear_gradient = expected.logits.T @ numpy(step.masked.flatten(1))
    assert numpy(_gradient(step.classifier.get_parameter("1.weight"))) == pytest.approx(
        linear_gradient, rel=1e-9, abs=1e-12
    )
    assert numpy(_gradient(step.classifier.get_parameter("1.bias"))) == pytest.approx(
        expected.logits.sum(axis=0), rel=1e-9
    )
    for parameter, gradient in zip(step.policy.parameters(), policy_gradients, strict=True):
        torch.testing.assert_close(_gradient(parameter), gradient, rtol=1e-8, atol=1e-12)
    assert _gradient(step.policy.extractor.get_parameter("conv1.0.weight")).abs().sum() > 0


@pytest.mark.parametrize("objective", ["released", "reinforce"])
def test_step__each_loss_reaches_one_network_alone(objective: Objective) -> None:
    step = _step(objective)
    classifier, policy = list(step.classifier.parameters()), list(step.policy.parameters())
    crossed = [
        *torch.autograd.grad(step.losses["loss_policy"], classifier, retain_graph=True, allow_unused=True),
        *torch.autograd.grad(step.losses["loss_classifier"], policy, allow_unused=True),
    ]
    assert crossed == [None] * (len(classifier) + len(policy))


def test_step__mask_of_ones_is_clean_training_bit_for_bit() -> None:
    images = torch.randn(BATCH, 3, PIXELS, PIXELS)
    gradients = []
    for masked in (images, blend(images, torch.ones(BATCH, 1, PIXELS, PIXELS))):
        torch.manual_seed(0)
        classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES))
        image_costs(classifier(masked), TARGETS).mean().backward()
        gradients.append(torch.cat([_gradient(each).flatten() for each in classifier.parameters()]))
    assert torch.equal(*gradients)


def test_step__losses_under_autocast_are_in_single_precision() -> None:
    policy, bases = PolicyNetwork(GRID), RunningBases(GRID**2)
    with torch.autocast("cpu", torch.bfloat16):
        concentrations = bases(policy(torch.randn(2, 3, PIXELS, PIXELS))).clamped()
        density = mean_log_total_density(concentrations.log_density(concentrations.sample([0, 1])))
        costs = image_costs(torch.randn(2, CLASSES).bfloat16(), TARGETS[:2])
    assert density.dtype == costs.dtype == torch.float32


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
