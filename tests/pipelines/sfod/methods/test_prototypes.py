"""Memory bank and prototypes against the numbers of the specification (checks 8.12, 8.16) and a list of queues."""

from collections import deque

import pytest
import torch

from pipelines.sfod.methods.prototypes import MemoryBank, Prototypes, move_prototypes


def _numbered(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count).float()[:, None, None, None]


def test_bank__thirteen_pushes_leave_the_last_ten() -> None:
    bank = MemoryBank(3, (1, 1, 1), capacity=10)
    for number in range(1, 14):
        bank.push(_numbered(number, 1), torch.tensor([1]))
    maps, labels = bank.read()
    assert sorted(maps.flatten().tolist()) == list(range(4, 14))
    assert labels.tolist() == [1] * 10


def test_bank__pushed_at_once_as_one_by_one() -> None:
    together, apart = (MemoryBank(3, (1, 1, 1), capacity=4) for _ in range(2))
    labels = torch.tensor([0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0])
    for start in (0, 100):
        together.push(_numbered(start, 11), labels)
        for number, label in enumerate(labels):
            apart.push(_numbered(start + number, 1), label[None])
    assert torch.equal(together.maps, apart.maps)
    assert together.pushed.tolist() == apart.pushed.tolist() == [18, 0, 4]


def test_bank__is_a_queue_for_each_class() -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queues = MemoryBank(4, (2, 1, 1), capacity=3), [deque[list[float]](maxlen=3) for _ in range(4)]
    for _ in range(12):
        count = int(torch.randint(0, 6, (), generator=generator))
        labels = torch.randint(0, 3, (count,), generator=generator)
        maps = torch.rand(count, 2, 1, 1, generator=generator)
        bank.push(maps, labels)
        for label, each in zip(labels.tolist(), maps, strict=True):
            queues[label].append(each.flatten().tolist())
    found, classes = bank.read()
    assert classes.tolist() == sorted(classes.tolist())
    for label, queue in enumerate(queues):
        assert sorted(found[classes == label].flatten(1).tolist()) == sorted(queue)
    assert not queues[3]


def test_bank__empty_reads_nothing() -> None:
    maps, labels = MemoryBank(2, (5, 7, 7)).read()
    assert (maps.shape, labels.shape) == ((0, 5, 7, 7), (0,))


def test_prototypes__first_sight_is_the_mean_then_four_tenths_of_it() -> None:
    prototypes = Prototypes(3, 2)
    prototypes.move(torch.tensor([[1.0, 0], [1, 2]]), torch.tensor([1, 1]))
    assert prototypes.vectors.tolist() == [[0, 0], [1, 1], [0, 0]]
    assert prototypes.known.tolist() == [False, True, False]
    prototypes.move(torch.tensor([[2.0, 4]]), torch.tensor([1]))
    assert prototypes.vectors[1].tolist() == pytest.approx([1.4, 2.2])


def test_move_prototypes__class_by_class() -> None:
    generator = torch.Generator().manual_seed(1)
    prototypes, features = torch.randn(5, 4, generator=generator), torch.randn(9, 4, generator=generator)
    known, labels = torch.tensor([True, True, False, False, True]), torch.tensor([0, 2, 2, 0, 0, 4, 2, 4, 0])
    moved, now = move_prototypes(prototypes, known, features, labels)
    for label in range(5):
        own = [features[row] for row in range(9) if labels[row] == label]
        expected = prototypes[label]
        if own:
            mean = sum(own[1:], own[0]) / len(own)
            expected = 0.6 * expected + 0.4 * mean if known[label] else mean
        torch.testing.assert_close(moved[label], expected, atol=1e-6, rtol=1e-5)
        assert bool(now[label]) == (bool(known[label]) or bool(own))


def test_memory__is_saved_and_restored_to_the_bit() -> None:
    bank, prototypes = MemoryBank(2, (1, 2, 2)), Prototypes(2, 3)
    bank.push(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]))
    prototypes.move(torch.rand(2, 3), torch.tensor([0, 1]))
    other, others = MemoryBank(2, (1, 2, 2)), Prototypes(2, 3)
    other.load_state_dict(bank.state_dict())
    others.load_state_dict(prototypes.state_dict())
    assert torch.equal(other.read()[0], bank.read()[0])
    assert torch.equal(others.vectors, prototypes.vectors)
    assert others.known.all()
