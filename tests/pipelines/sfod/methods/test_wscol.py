"""The terms of WSCoL against the numbers of the specification (check 8.10), and as the sum of their parts."""

import math

import pytest
import torch

from pipelines.sfod.config import Wscol
from pipelines.sfod.methods.clustering import Clusters, anchored, find_anchors, plain_cluster, proto_cluster
from pipelines.sfod.methods.contrast import contrast_loss, untrusted_pairs
from pipelines.sfod.methods.prototypes import Prototypes
from pipelines.sfod.methods.wscol import categories, category_contrast, consistency_loss, wscol_loss
from vision_core.detection.model.detector import Proposals, Targets

CONFIDENT = Targets(boxes=torch.tensor([[0.0, 0, 40, 40]]), labels=torch.tensor([1]))


def _image(count: int = 30) -> tuple[torch.Tensor, ...]:
    """Logits and mapped features of the student, those of the teacher, boxes and objectness; three classes."""
    generator = torch.Generator().manual_seed(0)
    sizes = (4, 6, 4, 6)
    found = [torch.randn(count, size, generator=generator) for size in sizes]
    corners = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 40], dim=1)
    boxes[:3] = CONFIDENT.boxes
    return *found, boxes, torch.randn(count, generator=generator)


def test_consistency__of_two_rows() -> None:
    student = torch.tensor([[1.0, 0, 0], [0, 2, 0]])
    teacher = torch.tensor([[0.0, 1, 0], [0, 2, 1]])
    assert consistency_loss(student, teacher).item() == pytest.approx(0.220421, abs=1e-5)


def test_consistency__in_loops_and_without_a_gradient_of_the_teacher() -> None:
    student, _, teacher, *_ = _image(5)
    student, teacher = student.requires_grad_(True), teacher.requires_grad_(True)
    total = 0.0
    for own, other in zip(student.tolist(), teacher.tolist(), strict=True):
        sums = [sum(math.exp(x) for x in row) for row in (own, other)]
        for x, y in zip(own, other, strict=True):
            target = math.exp(y) / sums[1]
            total += target * (math.log(target) - math.log(math.exp(x) / sums[0]))
    loss = consistency_loss(student, teacher)
    assert loss.item() == pytest.approx(total / 5, abs=1e-5)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.any()


def test_consistency__survives_sure_scores_and_no_proposal() -> None:
    student = torch.tensor([[200.0, 0]], requires_grad=True)
    loss = consistency_loss(student, torch.tensor([[0.0, 200]]))
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert consistency_loss(torch.empty(0, 3), torch.empty(0, 3)).item() == 0


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("variance", [0.0, 1e6])
def test_loss__is_its_parts_in_turn(hard: bool, variance: float) -> None:
    student_logits, student, teacher_logits, teacher, boxes, objectness = _image()
    prototypes = Prototypes(3, 6)
    prototypes.move(torch.randn(3, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2]))
    settings = Wscol(hard_positives=hard, variance=variance)
    proposals = Proposals(boxes=boxes, objectness=objectness)
    student_logits.requires_grad_(True)
    student.requires_grad_(True)
    teacher.requires_grad_(True)
    found = wscol_loss(student_logits, student, teacher_logits, teacher, proposals, CONFIDENT, prototypes, settings)
    anchors = find_anchors(boxes, CONFIDENT, 3)
    clusters = proto_cluster(teacher, teacher_logits, prototypes.vectors, prototypes.known, anchors)
    labels = anchored(clusters.labels, anchors)
    assert labels[:3].tolist() == [1, 1, 1]
    rows = labels != 3
    assert 3 < rows.sum() < 30
    expected = consistency_loss(student_logits, teacher_logits) + 0.5 * contrast_loss(
        student,
        labels,
        rows=None if variance else rows,
        untrusted=untrusted_pairs(teacher, labels, 3) if hard else None,
    )
    torch.testing.assert_close(found, expected)
    found.backward()
    assert teacher.grad is None
    for moved in (student_logits.grad, student.grad):
        assert moved is not None
        assert moved.any()


@pytest.mark.parametrize(("foreground", "is_there"), [(2, False), (3, True)])
def test_contrast__takes_more_than_two_proposals_of_the_foreground(foreground: int, is_there: bool) -> None:
    _, student, _, teacher, *_ = _image(8)
    student.requires_grad_(True)
    labels = torch.tensor([0] * foreground + [3] * (8 - foreground))
    loss = category_contrast(student, teacher, labels, 3, 0.0, Wscol())
    loss.backward()
    assert student.grad is not None
    assert bool(loss > 0) == bool(student.grad.any()) == is_there


def test_contrast__one_class_is_that_class_against_background() -> None:
    _, student, _, teacher, *_ = _image(8)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    both = category_contrast(student, teacher, labels, 1, 0.0, Wscol(hard_positives=False))
    torch.testing.assert_close(both, contrast_loss(student, labels))
    alone = category_contrast(student, teacher, labels, 1, 21.0, Wscol(hard_positives=False))
    torch.testing.assert_close(alone, contrast_loss(student[:4], labels[:4]))


def test_categories__of_the_first_epoch_and_later() -> None:
    _, _, logits, features, boxes, _ = _image()
    anchors = find_anchors(boxes, CONFIDENT, 3)
    none = torch.zeros(3, 6)
    clusters = proto_cluster(features, logits, none, torch.zeros(3, dtype=torch.bool), anchors)
    plain = plain_cluster(features.flip(1)[:, :4], logits, anchors)
    assert torch.equal(categories(clusters, anchors, None, 0.0), anchored(clusters.labels, anchors))
    first = categories(clusters, anchors, plain, 0.0)
    assert clusters.present.tolist() == plain.present.tolist()
    assert torch.equal(first, anchored(plain.labels, anchors))
    lost = Clusters(distances=plain.distances, present=~plain.present, labels=plain.labels)
    assert torch.equal(categories(clusters, anchors, lost, 0.0), anchored(clusters.labels, anchors))
