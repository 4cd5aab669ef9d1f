"""Masked hard instance mining: what teacher and student each do with a bag, and the losses between them.

Source: Tang et al., "Multiple Instance Learning Framework with Masked Hard Instance Mining", ICCV 2023 (v1) and IJCV
2025 (v2). Here features are gathered before they are embedded: tiles that the student does not see cost nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.wsi.config import Consistency, FollowingTeacher, Masking, Recycling, Scores
from pipelines.wsi.mhim.recycling import Recycler
from pipelines.wsi.models.aggregation import Aggregated, Aggregator
from pipelines.wsi.models.layers import full_precision
from vision_core.training import schedules


@dataclass(frozen=True, kw_only=True)
class TeacherOutput:
    """What the teacher makes of a whole bag: its feature ``(rows, D)`` and the tiles' scores ``(H, N)``."""

    feature: Tensor
    scores: Tensor


class Mhim(nn.Module):
    """A network with, in v2, what recycles tiles; student and teacher are one each.

    Args:
        aggregator: The network.
        recycling: Settings of v2; none for v1.
    """

    def __init__(self, aggregator: Aggregator, recycling: Recycling | None = None) -> None:
        super().__init__()
        self.aggregator = aggregator
        dim = aggregator.embedding.linear.out_features
        self.recycler = Recycler(dim, recycling.tokens) if recycling else None
        self.recycles_at_test = recycling is not None and recycling.at_test

    @torch.no_grad()
    def teach(self, features: Tensor, scores: Scores) -> TeacherOutput:
        """The teacher's part: all of the bag ``(N, features)``, no gradient."""
        aggregated = self.aggregator.aggregate(self.aggregator.embedding(features), scores)
        if aggregated.scores is None:
            raise TypeError(f"{type(self.aggregator).__name__}.aggregate: expected scores, found None")
        return TeacherOutput(feature=aggregated.feature, scores=aggregated.scores)

    def learn(self, features: Tensor, kept: Tensor) -> Aggregated:
        """The student's part in v1: the kept tiles alone."""
        return self.aggregator.aggregate(self.aggregator.embedding(features, kept))

    def learn_recycling(self, features: Tensor, tiles: Tensor, recycled: Tensor) -> tuple[Aggregated, Tensor | None]:
        """The student's part in v2: some tiles as they are, the others as tokens behind them.

        Args:
            features: ``(N, features)``.
            tiles: Indices of the tiles that stay tiles.
            recycled: Indices of the tiles to recycle.

        Returns:
            What the network makes of them, and the detached tokens ``(k, D)`` that the queries are to follow, none
            where no tile was recycled.
        """
        embed = self.aggregator.embedding
        if self.recycler is None or len(recycled) == 0:
            return self.aggregator.aggregate(embed(features, tiles)), None
        tokens = self.recycler(embed(features, recycled))
        return self.aggregator.aggregate(embed(features, tiles, tokens)), tokens.detach()

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities ``(C,)`` of a whole bag ``(N, features)``."""
        return self.log_probabilities(features).exp()

    def log_probabilities(self, features: Tensor) -> Tensor:
        """Their logarithms ``(C,)``."""
        return self.aggregator.log_probabilities(self.read(self.aggregator.embedding(features)))

    def read(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """A whole bag of embedded tiles ``(N, D)``: the plain network, unless the settings recycle at test."""
        if self.recycler is not None and self.recycles_at_test:
            embedded = torch.cat([embedded, self.recycler(embedded)])
        return self.aggregator.aggregate(embedded, scores)


def start(student: Mhim, teacher: Mhim, baseline: Mapping[str, Tensor], *, share_embedding: bool) -> None:
    """Begin from a trained plain network: the teacher with all of it, the student in v1 with its embedding.

    Args:
        student: Stays random but for the embedding.
        teacher: Its recycler, if any, stays random.
        baseline: State of the plain network.
        share_embedding: True in v1, False in v2.
    """
    teacher.aggregator.load_state_dict(baseline)
    if share_embedding:
        student.aggregator.embedding.load_state_dict(teacher.aggregator.embedding.state_dict())


def mhim_losses(
    aggregator: Aggregator, aggregated: Aggregated, taught: TeacherOutput, label: Tensor, settings: Consistency
) -> dict[str, Tensor]:
    """The terms of a step: classification of the bag, and consistency with the teacher unless its weight is 0.

    Args:
        aggregator: The student's.
        aggregated: The student's.
        taught: The teacher's.
        label: An int64 scalar.
        settings: Weight and temperature.
    """
    losses = {"loss_cls": aggregator.loss(aggregated, label)}
    if settings.weight:
        distance = consistency(aggregated.feature, taught.feature, settings.temperature)
        losses["loss_consistency"] = settings.weight * distance
    return losses


def consistency(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy from the teacher's sharpened to the student's distribution over features, mean over rows.

    The teacher's entropy is its lower bound, so that values near ``ln D`` are normal in the beginning.

    Args:
        student: ``(rows, D)`` bag features, a row or one per class.
        teacher: ``(rows, D)``, detached here.
        temperature: Of the teacher alone.
    """
    target = (full_precision(teacher.detach()) / temperature).softmax(dim=-1)
    return -(target * full_precision(student).log_softmax(dim=-1)).sum(dim=-1).mean()


def cosine_between(start: float, end: float, step: int, total: int) -> float:
    """From ``start`` at step 0 to ``end`` at step ``total`` along half a cosine."""
    return end + (start - end) * schedules.cosine(step, total)


def high_share(masking: Masking, step: int, total: int) -> float:
    """Share of the highest scores to mask at ``step`` (0-based) of ``total``.

    ``total`` counts the steps of the largest number of epochs, also where early stopping ends the run before.
    """
    return cosine_between(masking.high, 0.0, step, total) if masking.high_schedule == "cosine" else masking.high


def keep_rate(teacher: FollowingTeacher, step: int, total: int) -> float:
    """Share of itself that the teacher keeps after ``step`` (0-based) of ``total``."""
    if teacher.schedule == "constant":
        return teacher.keep_rate
    return cosine_between(teacher.keep_rate, 1.0, step, total)
