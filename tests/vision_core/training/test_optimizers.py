"""What the optimizer moves, and what it lets decay."""

import pytest
import torch
from torch import nn

from tests.vision_core.toy import ToyLearner
from vision_core.config.schema import Optim
from vision_core.training.optimizers import Trained, make_optimizer, make_optimizers


def test_make_optimizer__norms_take_no_decay_and_frozen_parameters_are_left_out() -> None:
    learner = ToyLearner()
    optimizer = make_optimizer(learner, Optim())
    assert optimizer is not None
    decayed, free = optimizer.param_groups
    assert [parameter.shape for parameter in free["params"]] == [(4,), (4,)]
    assert free["weight_decay"] == 0
    assert sum(len(group["params"]) for group in (decayed, free)) == len(list(learner.student.parameters()))


def test_make_optimizer__nothing_trains() -> None:
    assert make_optimizer(ToyLearner().requires_grad_(False), Optim()) is None


def test_make_optimizer__norms_decay_where_published_code_has_it_so() -> None:
    optimizer = make_optimizer(ToyLearner(), Optim(decay_norms=True))
    assert optimizer is not None
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4]


def test_make_optimizer__adam_adds_the_decay_to_the_gradient() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = make_optimizer(layer, Optim(name="adam", lr=0.1, weight_decay=0.5))
    assert optimizer is not None
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(1.9)  # Adam's first step is the sign of gradient + 0.5 * 2


def test_make_optimizers__each_part_has_its_own_and_frozen_parts_have_none() -> None:
    trained, frozen = nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)
    parts = [
        Trained(name="classifier", module=trained, optim=Optim(lr=0.5)),
        Trained(name="frozen", module=frozen, optim=Optim()),
    ]
    [optimizer] = make_optimizers(parts)
    assert optimizer.trained.name == "classifier"
    assert optimizer.torch.param_groups[0]["lr"] == 0.5


def test_make_optimizer__adamw() -> None:
    optimizer = make_optimizer(ToyLearner(), Optim(name="adamw", lr=0.5))
    assert type(optimizer).__name__ == "AdamW"


def test_restore__state_of_the_checkpoint_and_settings_of_this_run() -> None:
    module = nn.Linear(1, 1)
    [old] = make_optimizers([Trained(module=module, optim=Optim(name="adam", weight_decay=0.1))])
    module(torch.ones(1, 1)).sum().backward()
    old.torch.step()
    [new] = make_optimizers([Trained(module=module, optim=Optim(name="adam", weight_decay=0.0))])
    new.restore(old.torch.state_dict())
    assert [group["weight_decay"] for group in new.torch.param_groups] == [0.0]
    states = old.torch.state[module.weight], new.torch.state[module.weight]
    assert torch.equal(states[0]["exp_avg"], states[1]["exp_avg"])
