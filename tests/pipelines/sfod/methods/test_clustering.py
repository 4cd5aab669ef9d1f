"""Anchors and clusters against the numbers of the specification (check 8.13) and the same rounds in loops."""

import math

import pytest
import torch
from torch import Tensor

from pipelines.sfod.methods.clustering import (
    Anchors,
    Clusters,
    anchored,
    find_anchors,
    mix_clusters,
    plain_cluster,
    proto_cluster,
)
from vision_core.detection.model.detector import Targets

FEATURES = torch.tensor([[2.0, 0], [1.5, 0.5], [0, 2], [0.3, 1.4], [-1, -1], [-0.8, -1.2], [1, 0.9]])
LOGITS = torch.tensor(
    [[2.0, 0, 0], [1, 0.5, 0], [0, 2, 0], [0, 0.4, 0.6], [0, 0, 2], [0, 0.2, 1], [0.1, 0.2, 0.3]]
)  # fmt: skip
PROTOTYPES = torch.tensor([[1.8, 0.2], [0.1, 1.9]])
KNOWN = torch.tensor([True, True])
EXPECTED = [0, 0, 1, 1, 2, 2, 0]


def _anchors(count: int, labels: dict[int, int], background: int) -> Anchors:
    sampled, classes = torch.zeros(count, dtype=torch.bool), torch.full((count,), background)
    for row, label in labels.items():
        sampled[row], classes[row] = True, label
    return Anchors(sampled=sampled, labels=classes, instances=classes)


def _in_loops(  # noqa: PLR0913
    features: Tensor,
    logits: Tensor,
    prototypes: Tensor | None,
    fixed: dict[int, int],
    steps: int,
    distance: str,
) -> tuple[list[list[float]], list[int], list[int]]:
    """Distances to the present classes, these classes, and labels before the overwriting."""

    def unit(row: list[float]) -> list[float]:
        length = math.sqrt(sum(x * x for x in row))
        return [x / length for x in row]

    rows = [unit([*row, 1.0]) for row in features.double().tolist()]
    shares = logits.double().softmax(dim=1).tolist()
    labels = [row.index(max(row)) for row in shares]
    count = logits.shape[1]
    for number in range(steps):
        centroids = []
        for k in range(count):
            total = 1e-8 + sum(row[k] for row in shares)
            sums = [sum(r[k] * v[x] for r, v in zip(shares, rows, strict=True)) for x in range(len(rows[0]))]
            centroids.append([each / total for each in sums])
        if prototypes is not None and number == 0:
            for k, prototype in enumerate(prototypes.double().tolist()):
                centroids[k] = unit([*prototype, 1.0])
        present = sorted(set(labels))
        found = []
        for row in rows:
            if distance == "euclid":
                found.append([math.dist(row, centroids[k]) for k in present])
            else:
                found.append([1 - sum(x * y for x, y in zip(row, unit(centroids[k]), strict=True)) for k in present])
        nearest = [present[row.index(min(row))] for row in found]
        labels = [fixed.get(i, label) for i, label in enumerate(nearest)]
        shares = [[float(label == k) for k in range(count)] for label in labels]
    return found, present, nearest


def test_proto_cluster__seven_rows() -> None:
    anchors = _anchors(7, {0: 0}, 2)
    for steps in range(1, 5):
        found = proto_cluster(FEATURES, LOGITS, PROTOTYPES, KNOWN, anchors, steps=steps)
        assert anchored(found.labels, anchors).tolist() == EXPECTED
        assert found.present.tolist() == [True, True, True]
        if steps == 1:
            assert found.distances[6].tolist() == pytest.approx([0.530485, 0.663494, 0.892587], abs=1e-5)
    last = found.distances
    assert last[6].tolist() == pytest.approx([0.324600, 0.604225, 1.613247], abs=1e-5)
    assert last[0].tolist() == pytest.approx([0.308252, 1.173381, 1.550663], abs=1e-5)
    assert last[3].tolist() == pytest.approx([0.798687, 0.116017, 1.589038], abs=1e-5)


@pytest.mark.parametrize("distance", ["euclid", "cosine"])
@pytest.mark.parametrize("knows_all", [False, True])
def test_proto_cluster__in_loops(distance: str, knows_all: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    features, logits = torch.randn(40, 6, generator=generator), 2 * torch.randn(40, 5, generator=generator)
    logits[:, 3] -= 20  # a class that no row has
    prototypes, known = torch.randn(4, 6, generator=generator), torch.tensor([True, knows_all, True, True])
    fixed = {3: 0, 8: 2, 21: 1}
    expected, present, labels = _in_loops(features, logits, prototypes if knows_all else None, fixed, 4, distance)
    found = proto_cluster(features, logits, prototypes, known, _anchors(40, fixed, 4), distance=distance)  # type: ignore[arg-type]
    assert found.present.nonzero().squeeze(1).tolist() == present
    assert found.labels.tolist() == labels
    torch.testing.assert_close(found.distances[:, present], torch.tensor(expected), atol=1e-5, rtol=0)
    ends = min(map(min, expected)), max(map(max, expected))
    assert [end.item() for end in found.range()] == pytest.approx(ends, abs=1e-5)


def test_plain_cluster__in_loops_with_the_rows_of_the_bank() -> None:
    generator = torch.Generator().manual_seed(6)
    features, logits = torch.randn(30, 6, generator=generator), torch.randn(30, 4, generator=generator)
    expected, present, labels = _in_loops(features, logits, None, {2: 1}, 2, "cosine")
    found = plain_cluster(features, logits, _anchors(20, {2: 1}, 3))
    assert found.present.nonzero().squeeze(1).tolist() == present
    assert found.labels.tolist() == labels
    torch.testing.assert_close(found.distances[:, present], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("logits", [torch.tensor([[3.0, 0]] * 4), torch.tensor([[0.0, 3]] * 4)])
def test_cluster__a_single_class_takes_all_rows(logits: Tensor) -> None:
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = proto_cluster(features, logits, torch.randn(1, 3), torch.tensor([True]))
    expected = int(logits[0].argmax())
    assert found.present.tolist() == [expected == 0, expected == 1]
    assert found.labels.tolist() == [expected] * 4
    assert found.distances.isfinite().all()


def test_mix__distances_where_both_found_the_same_classes() -> None:
    present = torch.tensor([True, False, True])
    mapped = Clusters(
        distances=torch.tensor([[0.2, 0.0, 1.0], [0.9, 0.0, 0.1]]), present=present, labels=torch.tensor([0, 2])
    )
    plain = Clusters(
        distances=torch.tensor([[0.9, 0.0, 0.5], [0.1, 0.0, 0.3], [0.5, 0.0, 0.5]]),
        present=present,
        labels=torch.tensor([2, 0, 0]),
    )
    assert mix_clusters(mapped, plain, 0.0).tolist() == [2, 0]
    assert mix_clusters(mapped, plain, 0.25).tolist() == [2, 2]  # 0.725 and 0.625; 0.300 and 0.250
    assert mix_clusters(mapped, plain, 0.5).tolist() == [0, 2]
    other = Clusters(distances=plain.distances, present=torch.tensor([True, True, True]), labels=plain.labels)
    assert mix_clusters(mapped, other, 0.0).tolist() == [0, 2]


def test_anchors__labels_and_instances_at_their_bounds() -> None:
    confident = Targets(boxes=torch.tensor([[0.0, 0, 100, 100], [200, 0, 300, 100]]), labels=torch.tensor([3, 1]))
    boxes = torch.tensor(
        [[0.0, 0, 100, 50], [0, 0, 100, 51], [0, 0, 100, 49], [200, 0, 300, 90], [400, 0, 500, 100]]
    )  # of half, a little more, a little less, most and nothing of a pseudo label
    found = find_anchors(boxes, confident, background=8)
    assert found.labels.tolist() == [3, 3, 8, 1, 8]
    assert found.sampled.tolist() == [True, True, False, True, False]
    assert found.instances.tolist() == [-1, 0, -1, 1, -1]


def test_anchors__are_drawn_by_key_where_there_are_too_many() -> None:
    confident = Targets(boxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([0]))
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 30 + [[50.0, 50, 60, 60]] * 10)

    def drawn(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        found = find_anchors(boxes, confident, 1, count=8, generator=generator)
        assert found.labels.tolist() == [0] * 30 + [1] * 10
        return found.sampled.nonzero().squeeze(1).tolist()

    assert len(drawn(0)) == 8
    assert max(drawn(0)) < 30
    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
