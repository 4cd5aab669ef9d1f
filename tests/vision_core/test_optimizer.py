"""What the optimizer moves, and what it lets decay."""

from tests.vision_core.toy import ToyLearner
from vision_core.optimizer import make_optimizer
from vision_core.settings import Optim


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


def test_make_optimizer__adamw() -> None:
    optimizer = make_optimizer(ToyLearner(), Optim(name="adamw", lr=0.5))
    assert type(optimizer).__name__ == "AdamW"
