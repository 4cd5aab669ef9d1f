"""Categories of proposals in WSCoL: pseudo labels where they overlap, else clusters around prototypes.

Source: arXiv 2410.05557 and the behaviour of the code released with its third version. Symbols: ``u(v)`` a feature with
a constant one appended, normalised; ``V`` rows of those; ``R`` responsibilities; ``c_k`` centroids; ``y`` labels, where
background is the last class; ``Lambda`` the classes that own a row. Sets of rows and classes are masks, so that nothing
here waits for the device.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from vision_core.detection.boxes import pairwise_iou
from vision_core.detection.model.detector import Targets
from vision_core.training.runtime import full_float32

Distance = Literal["euclid", "cosine"]
_IOU = 0.5  # with a pseudo label: of an anchor at least, of a part of its instance strictly more


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Proposals that overlap a pseudo label.

    Attributes:
        sampled: ``(N,)`` bool, the anchors.
        labels: ``(N,)`` int64, class of the overlapped pseudo label where one is, else background.
        instances: ``(N,)`` int64, number of the pseudo label that is overlapped more than half, else -1.
    """

    sampled: Tensor
    labels: Tensor
    instances: Tensor


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Clustered rows.

    Attributes:
        distances: ``(N, classes + 1)`` to the centroids of the last round.
        present: ``(classes + 1,)`` bool, ``Lambda``; distances to the other classes mean nothing.
        labels: ``(N,)`` int64, the nearest present class.
    """

    distances: Tensor
    present: Tensor
    labels: Tensor

    def range(self) -> tuple[Tensor, Tensor]:
        """Find the smallest and the largest distance to a present class, scalars; of one row at least."""
        least, most = (self.distances.masked_fill(~self.present, fill) for fill in (torch.inf, -torch.inf))
        return least.amin(), most.amax()


def find_anchors(
    boxes: Tensor,
    confident: Targets,
    background: int,
    *,
    count: int = 128,
    generator: torch.Generator | None = None,
) -> Anchors:
    """Label the proposals that overlap a pseudo label by half or more, and draw anchors among them.

    Args:
        boxes: ``(N, 4)`` proposals.
        confident: The pseudo labels, at least one.
        background: Label of proposals that overlap none.
        count: Anchors at most; drawn at random among more.
        generator: Source of the draw, on the CPU so that every device draws the same; torch's own if None.
    """
    overlap, best = pairwise_iou(boxes, confident.boxes).max(dim=1)
    is_object = overlap >= _IOU
    labels = torch.where(is_object, confident.labels[best], background)
    instances = torch.where(overlap > _IOU, best, -1)
    order = torch.randperm(len(boxes), generator=generator).to(boxes.device, non_blocking=True)
    is_drawn = is_object[order].cumsum(dim=0) <= count
    sampled = torch.zeros_like(is_object).scatter(0, order, is_drawn) & is_object
    return Anchors(sampled=sampled, labels=labels, instances=instances)


def proto_cluster(  # noqa: PLR0913 (four tensors, anchors, and the settings by name)
    features: Tensor,
    logits: Tensor,
    prototypes: Tensor,
    known: Tensor,
    anchors: Anchors | None = None,
    *,
    steps: int = 4,
    distance: Distance = "euclid",
) -> Clusters:
    """Cluster mapped features, beginning at the prototypes where every class has one.

    Args:
        features: ``(N, dim)``, ``g`` of the teacher.
        logits: ``(N, classes + 1)`` of the teacher, background last.
        prototypes: ``(classes, dim)``.
        known: ``(classes,)`` bool; the prototypes are used if all are known.
        anchors: Rows whose label is known; it holds between rounds, and not yet in the result.
        steps: Rounds.
        distance: Of rows and centroids. euclid: as released; cosine: as in the code before.
    """
    # Background keeps its own centroid, whose row the prototypes lack.
    given = functional.pad(_augmented(prototypes.float()), (0, 0, 0, 1))
    use = functional.pad(known & known.all(), (0, 1))
    return _cluster(features, logits, anchors, steps, distance, (given, use))


def plain_cluster(
    features: Tensor,
    logits: Tensor,
    anchors: Anchors | None = None,
    *,
    steps: int = 2,
    distance: Distance = "cosine",
) -> Clusters:
    """Cluster the detector's own features, without prototypes, as ``proto_cluster`` does else.

    Args:
        features: ``(N + B, D)``, pooled features of the teacher: those of the proposals, then those of the bank.
        logits: ``(N + B, classes + 1)`` of the teacher's box predictor.
        anchors: Of the first ``N`` rows.
        steps: Rounds.
        distance: Of rows and centroids.
    """
    return _cluster(features, logits, anchors, steps, distance, None)


def mix_clusters(mapped: Clusters, plain: Clusters, share: float | Tensor) -> Tensor:
    """Label rows by distances in both spaces, where both clusterings found the same classes.

    ``d = (1 - share) * d_plain + share * d_mapped``. Elsewhere the labels of ``mapped`` stand. The two distances have
    different ranges, as in the released code.

    Args:
        mapped: Of ``N`` rows.
        plain: Of these rows and more.
        share: Share of the run's first epochs that is over, in [0, 1).

    Returns:
        ``(N,)`` int64.
    """
    distances = torch.lerp(plain.distances[: len(mapped.labels)], mapped.distances, share)
    is_same = (mapped.present == plain.present).all()
    return torch.where(is_same, _nearest(distances, mapped.present), mapped.labels)


def anchored(labels: Tensor, anchors: Anchors) -> Tensor:
    """Overwrite the labels ``(N,)`` of anchors by those of their pseudo labels."""
    return torch.where(anchors.sampled, anchors.labels, labels)


def _cluster(  # noqa: PLR0913 (what the two public functions share)
    features: Tensor,
    logits: Tensor,
    anchors: Anchors | None,
    steps: int,
    distance: Distance,
    given: tuple[Tensor, Tensor] | None,
) -> Clusters:
    with torch.no_grad(), full_float32(features.device):
        rows = _augmented(features.float())
        shares = logits.float().softmax(dim=1)
        labels = shares.argmax(dim=1)
        classes = torch.arange(logits.shape[1], device=logits.device)
        for number in range(steps):
            centroids = (shares.T @ rows) / (1e-8 + shares.sum(dim=0)[:, None])
            if given and number == 0:
                centroids = torch.where(given[1][:, None], given[0], centroids)
            present = (labels[:, None] == classes).any(dim=0)
            distances = _distances(rows, centroids, distance)
            nearest = _nearest(distances, present)
            labels = nearest if anchors is None else _over_first(nearest, anchors)
            shares = (labels[:, None] == classes).to(rows.dtype)
        return Clusters(distances=distances, present=present, labels=nearest)


def _over_first(labels: Tensor, anchors: Anchors) -> Tensor:
    count = len(anchors.labels)
    return torch.cat([anchored(labels[:count], anchors), labels[count:]])


def _augmented(features: Tensor) -> Tensor:
    return functional.normalize(functional.pad(features, (0, 1), value=1.0), dim=1)


def _distances(rows: Tensor, centroids: Tensor, distance: Distance) -> Tensor:
    if distance == "cosine":
        return 1 - rows @ functional.normalize(centroids, dim=1).T
    # Through products of matrices, small distances would lose their digits.
    return torch.cdist(rows, centroids, compute_mode="donot_use_mm_for_euclid_dist")


def _nearest(distances: Tensor, present: Tensor) -> Tensor:
    return distances.masked_fill(~present, torch.inf).argmin(dim=1)
