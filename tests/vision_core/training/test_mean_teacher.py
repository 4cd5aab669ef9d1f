from typing import Literal

import pytest
import torch
from torch import nn

from vision_core.training.mean_teacher import MeanTeacher


def filled(value: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


# Teacher 1, student 0: after n moves the teacher is keep_rate to the power of n.
@pytest.mark.parametrize(
    ("keep_rate", "moves", "expected"),
    [
        (0.75, 1, 0.750000),
        (0.75, 2, 0.562500),
        (0.75, 3, 0.421875),
        (0.75, 4, 0.316406),
        (0.75, 10, 0.056314),
        (0.9, 10, 0.348678),
        (0.9, 20, 0.121577),
        (1.0, 5, 1.0),
        (0.0, 1, 0.0),
    ],
)
def test_update__numbers_of_the_specification(keep_rate: float, moves: int, expected: float) -> None:
    teacher = MeanTeacher(filled(1.0))
    for _ in range(moves):
        teacher.update(filled(0.0), keep_rate)
    for entry in teacher.module.state_dict().values():
        torch.testing.assert_close(entry, torch.full_like(entry, expected), atol=5e-7, rtol=0)


def test_update__running_statistics_are_averaged_and_integer_buffer_is_copied() -> None:
    student = nn.BatchNorm1d(2)
    teacher = MeanTeacher(student)
    student.train()(torch.tensor([[0.0, 10.0], [0.0, 30.0]]))  # mean 0 and 20, momentum 0.1
    teacher.update(student, 0.75)
    assert teacher.module.num_batches_tracked == 1
    torch.testing.assert_close(teacher.module.running_mean, torch.tensor([0.0, 0.5]))


def test_update__what_the_student_has_beyond_the_teacher_is_ignored() -> None:
    teacher = MeanTeacher(nn.ModuleDict({"body": filled(1.0)}))
    teacher.update(nn.ModuleDict({"body": filled(0.0), "head": filled(5.0)}), 0.5)
    assert {float(entry.unique()) for entry in teacher.module.state_dict().values()} == {0.5}


def test_update__student_that_lacks_an_entry_is_refused_and_nothing_moves() -> None:
    teacher = MeanTeacher(nn.ModuleDict({"body": filled(1.0), "head": filled(1.0)}))
    with pytest.raises(KeyError, match=r"lacks 2 entries of the teacher, first 'head\.weight'"):
        teacher.update(nn.ModuleDict({"body": filled(0.0)}), 0.5)
    assert {float(entry.unique()) for entry in teacher.module.state_dict().values()} == {1.0}


def test_teacher__does_not_follow_the_student_between_moves() -> None:
    student = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    teacher = MeanTeacher(student)
    before = {name: entry.clone() for name, entry in teacher.state_dict().items()}
    nn.ModuleList([student, teacher]).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        batch = torch.randn(4, 2)
        (student(batch) - teacher.module(batch)).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(entry, before[name]) for name, entry in teacher.state_dict().items())
    assert not torch.equal(student.state_dict()["0.weight"], before["module.0.weight"])


def test_teacher__has_no_gradient_and_stays_in_evaluation_mode() -> None:
    student = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    teacher = MeanTeacher(student)
    nn.ModuleList([teacher]).train()
    teacher.update(student, 0.5)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize(("mode", "is_training"), [("eval", False), ("train", True)])
def test_train__it_stays_in_its_own_mode(mode: Literal["eval", "train"], is_training: bool) -> None:
    teacher = MeanTeacher(nn.Sequential(nn.Dropout()), mode)
    for asked in (True, False):
        teacher.train(asked)
        assert next(iter(teacher.module.children())).training is is_training
