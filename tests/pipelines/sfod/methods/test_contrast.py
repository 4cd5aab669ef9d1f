"""The contrast losses against the numbers of the specification (check 8.11) and the same sums in loops."""

import math

import pytest
import torch
from torch import Tensor

from pipelines.sfod.methods.contrast import contrast_loss, instance_loss, untrusted_pairs

ANGLES = (0, 10, 90, 100, 45, 50)
FEATURES = torch.tensor([[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in ANGLES])
LABELS = torch.tensor([0, 0, 1, 1, 2, 0])
BACKGROUND = 2
FOREGROUND = LABELS != BACKGROUND
UNTRUSTED = [[0, 5], [1, 5], [5, 0]]


def _in_loops(
    features: Tensor, labels: Tensor, rows: list[int], pairs: list[list[int]] | None = None, alpha: float = 0.0
) -> list[float]:
    """Terms of the rows that take part, by plain arithmetic."""
    found = []
    vectors = [[float(x) for x in row / row.norm()] for row in features.double()]
    pairs = [pair for pair in pairs or [] if pair[0] in rows and pair[1] in rows]
    for i in rows:
        similar = {j: sum(x * y for x, y in zip(vectors[i], vectors[j], strict=True)) / 0.07 for j in rows}
        top = max(similar.values())
        total = top + math.log(sum(math.exp(value - top) for value in similar.values()))
        own = [j for j in rows if labels[j] == labels[i]]
        logs = {j: similar[j] - total for j in own}
        if not pairs:
            found.append(-0.5 * sum(logs.values()) / len(own))
            continue
        parts = []
        for doubted in (True, False):
            chosen = [logs[j] for j in own if ([i, j] in pairs) == doubted]
            parts.append(-0.5 * sum(chosen) / (len(chosen) + 1e-5))
        found.append(alpha * parts[0] + (1 - alpha) * parts[1])
    return found


def _mean(terms: list[float]) -> float:
    counted = [term for term in terms if term != 0]
    return sum(counted) / len(counted)


def _pairs() -> Tensor:
    found = torch.zeros(6, 6, dtype=torch.bool)
    for i, j in UNTRUSTED:
        found[i, j] = True
    return found


def test_contrast__six_vectors() -> None:
    terms = _in_loops(FEATURES, LABELS, list(range(6)))
    assert terms == pytest.approx([1.187801, 0.918271, 0.363336, 0.351817, 0.360217, 1.761551], abs=1e-5)
    assert contrast_loss(FEATURES, LABELS).item() == pytest.approx(0.823832, abs=1e-5)


def test_contrast__foreground_alone() -> None:
    terms = _in_loops(FEATURES, LABELS, [0, 1, 2, 3, 5])
    assert terms == pytest.approx([1.183613, 0.898165, 0.359214, 0.351193, 1.447352], abs=1e-5)
    assert contrast_loss(FEATURES, LABELS, rows=FOREGROUND).item() == pytest.approx(0.847907, abs=1e-5)


def test_contrast__trusted_pairs() -> None:
    terms = _in_loops(FEATURES, LABELS, list(range(6)), UNTRUSTED)
    assert terms == pytest.approx([0.355380, 0.379318, 0.363335, 0.351815, 0.360214, 1.189558], abs=1e-5)
    assert contrast_loss(FEATURES, LABELS, untrusted=_pairs()).item() == pytest.approx(0.499937, abs=1e-5)


def test_untrusted__pairs_of_six_vectors() -> None:
    # The last is as far from the second as from the third, which its last bit would decide: it is turned a little.
    features = FEATURES.clone()
    features[5] += 1e-4 * features[1]
    assert untrusted_pairs(features, LABELS, BACKGROUND).nonzero().tolist() == UNTRUSTED


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("excludes_background", [False, True])
def test_contrast__in_loops(alpha: float, excludes_background: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(30, 5, generator=generator)
    labels = torch.randint(0, 4, (30,), generator=generator)
    untrusted = untrusted_pairs(features, labels, 3)
    rows = labels != 3 if excludes_background else torch.ones(30, dtype=torch.bool)
    counted = rows.nonzero().squeeze(1).tolist()
    expected = _mean(_in_loops(features, labels, counted, untrusted.nonzero().tolist(), alpha))
    found = contrast_loss(features, labels, rows=rows, untrusted=untrusted, alpha=alpha)
    assert found.item() == pytest.approx(expected, abs=1e-5)
    assert contrast_loss(features, labels, rows=rows).item() == pytest.approx(
        _mean(_in_loops(features, labels, counted)), abs=1e-5
    )


def test_untrusted__in_loops() -> None:
    generator = torch.Generator().manual_seed(3)
    features, labels = torch.randn(25, 4, generator=generator), torch.randint(0, 4, (25,), generator=generator)
    vectors = torch.nn.functional.normalize(features, dim=1)
    found = untrusted_pairs(features, labels, 3)
    for i in range(25):
        members = [j for j in range(25) if j != i and labels[j] == labels[i]]
        nearest = sorted((j for j in range(25) if j != i), key=lambda j: -float(vectors[i] @ vectors[j]))
        doubted = {j for j in members if j not in nearest[: len(members)]} if labels[i] != 3 else set()
        assert set(found[i].nonzero().squeeze(1).tolist()) == doubted
    assert found.any()
    assert not found[labels == 3].any()


def test_contrast__no_pair_untrusted_is_the_plain_loss() -> None:
    nothing = torch.zeros(6, 6, dtype=torch.bool)
    assert torch.equal(contrast_loss(FEATURES, LABELS, untrusted=nothing), contrast_loss(FEATURES, LABELS))


@pytest.mark.parametrize("rows", [torch.zeros(6, dtype=torch.bool), torch.tensor([True] + [False] * 5)])
def test_contrast__without_a_partner_is_zero_with_a_finite_gradient(rows: Tensor) -> None:
    features = FEATURES.clone().requires_grad_(True)
    loss = contrast_loss(features, LABELS, rows=rows)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_contrast__of_no_rows() -> None:
    features = torch.empty(0, 4, requires_grad=True)
    loss = contrast_loss(features, torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0


def test_contrast__permuted_rows_and_the_gradient_leaves_excluded_rows_alone() -> None:
    order = torch.tensor([5, 2, 0, 4, 1, 3])
    features = FEATURES.clone().requires_grad_(True)
    pairs = _pairs()
    loss = contrast_loss(features, LABELS, rows=FOREGROUND, untrusted=pairs)
    permuted = contrast_loss(FEATURES[order], LABELS[order], rows=FOREGROUND[order], untrusted=pairs[order][:, order])
    assert permuted.item() == pytest.approx(loss.item(), abs=1e-6)
    loss.backward()
    assert features.grad is not None
    assert features.grad.abs().sum(dim=1).nonzero().squeeze(1).tolist() == [0, 1, 2, 3, 5]


def test_instances__numbers_of_both_views() -> None:
    generator = torch.Generator().manual_seed(4)
    weak, strong = (torch.randn(5, 3, generator=generator) for _ in range(2))
    ids = torch.tensor([-1, 2, -1, 2, 2])  # the first two pseudo labels have no proposal
    both, number = torch.cat([weak, strong]), list(range(10))
    apart = torch.tensor([9, 2, 9, 2, 2]).repeat(2)
    assert instance_loss(weak, strong, ids, 3).item() == pytest.approx(_mean(_in_loops(both, apart, number)), abs=1e-5)
    merged = torch.full((10,), 2)  # two numbers, so that background becomes 2 as well
    released = instance_loss(weak, strong, ids, 3, as_released=True)
    assert released.item() == pytest.approx(_mean(_in_loops(both, merged, number)), abs=1e-5)
