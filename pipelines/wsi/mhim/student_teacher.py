"""Masked hard instance mining: student, teacher, their training step, its losses and schedules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pipelines.wsi.config import Consistency, FollowingTeacher, Masking, MhimV1, MhimV2, Recycling, Scores
from pipelines.wsi.mhim.masking import keep_instances
from pipelines.wsi.mhim.recycling import Recycler, split
from pipelines.wsi.models.aggregation import Aggregated, Aggregator
from pipelines.wsi.models.layers import full_precision
from vision_core.training import schedules
from vision_core.training.mean_teacher import MeanTeacher


@dataclass(frozen=True, kw_only=True)
class TeacherOutput:
    """Outputs of the teacher for a whole bag: its feature ``(rows, D)`` and tile scores ``(H, N)``."""

    feature: Tensor
    scores: Tensor


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """Outputs of a training step of the student.

    Attributes:
        losses: ``loss_cls`` and, unless its weight is 0, ``loss_consistency``; their sum is minimised.
        kept: Indices of the tiles that masking kept.
        tokens: Recycled tokens ``(k, D)``, detached, which the queries follow after the optimizer step; None where
            no tile was recycled.
    """

    losses: dict[str, Tensor]
    kept: Tensor
    tokens: Tensor | None


class MHIM(nn.Module):
    """Student or teacher of masked hard instance mining: an aggregator and, in v2, a recycler.

    Tang et al., "Multiple Instance Learning Framework with Masked Hard Instance Mining", ICCV 2023 (v1) and IJCV 2025
    (v2)::

        f_t, s    = teacher(X)                        no gradient; s scores the N tiles
        masked    = random(b_r) + lowest(s, b_l) + highest(s, b_h)
        f_s, y    = student(X without masked)         v2: a share of it, and k tokens recycled from the others
        L         = CE(y, label) + alpha con(f_s, f_t)
        con       = - sum_d softmax(f_t / tau)_d log softmax(f_s)_d      (ICCV eq. 9, with the student's softmax)
        teacher   = lambda teacher + (1 - lambda) student                after each optimizer step

    ``X`` features ``(N, in_dim)``, ``f`` ``feature``, ``s`` ``scores``, ``b_r``, ``b_l``, ``b_h`` ``Masking.random``,
    ``low``, ``high``, ``alpha``, ``tau`` ``Consistency.weight``, ``temperature``, ``k`` ``Recycling.tokens``,
    ``lambda`` the ``keep_rate`` of ``MeanTeacher.update``. A training step::

        student = MHIM(ABMIL(in_dim=1024, num_classes=2))
        teacher = MeanTeacher(student)
        step = student.training_step(features, label, teacher)
        sum(step.losses.values()).backward()
        optimizer.step()
        teacher.update(student, keep_rate=0.9999)

    In v2 the queries follow their tokens before the teacher does: ``student.recycler.follow(step.tokens, 0.9999)``.

    Args:
        aggregator: The network, whose features are gathered before they are embedded: masked tiles cost nothing.
        recycling: Settings of v2; None for v1.
    """

    def __init__(self, aggregator: Aggregator, recycling: Recycling | None = None) -> None:
        super().__init__()
        self.aggregator, self.recycling = aggregator, recycling
        dim = aggregator.embedding.linear.out_features
        self.recycler = Recycler(dim, recycling.tokens) if recycling else None
        self.recycles_at_test = recycling is not None and recycling.at_test

    def training_step(
        self,
        features: Tensor,
        label: Tensor,
        teacher: MeanTeacher,
        profile: MhimV1 | MhimV2 | None = None,
        high: float | None = None,
    ) -> StepOutput:
        """Compute the student's losses on a bag whose tiles the teacher scores and masks.

        Args:
            features: ``(N, in_dim)``.
            label: An int64 scalar.
            teacher: Of this student, made by ``MeanTeacher(student)``.
            profile: Scores, masking and consistency; None: as published, v2 where the student recycles, else v1. The
                recycling is the student's own.
            high: Ratio of the highest scores to mask at this step; None: ``profile.masking.high``.

        Raises:
            TrainingError: A score of the teacher is not a number.
        """
        profile = profile or (MhimV2() if self.recycling else MhimV1())
        taught = cast(MHIM, teacher.module).teach(features, profile.scores)
        kept = keep_instances(taught.scores, profile.masking, profile.masking.high if high is None else high)
        tokens: Tensor | None = None
        if self.recycling:
            aggregated, tokens = self.learn_recycling(features, *split(kept, self.recycling))
        else:
            aggregated = self.learn(features, kept)
        losses = mhim_losses(self.aggregator, aggregated, taught, label, profile.consistency)
        return StepOutput(losses=losses, kept=kept, tokens=tokens)

    @torch.no_grad()
    def teach(self, features: Tensor, scores: Scores) -> TeacherOutput:
        """Score the tiles of a whole bag ``(N, in_dim)`` as the teacher, without a gradient."""
        aggregated = self.aggregator.aggregate(self.aggregator.embedding(features), scores)
        if aggregated.scores is None:
            raise TypeError(f"{type(self.aggregator).__name__}.aggregate: expected scores, found None")
        return TeacherOutput(feature=aggregated.feature, scores=aggregated.scores)

    def learn(self, features: Tensor, kept: Tensor) -> Aggregated:
        """Aggregate the kept tiles, the student's part in v1."""
        return self.aggregator.aggregate(self.aggregator.embedding(features, kept))

    def learn_recycling(self, features: Tensor, tiles: Tensor, recycled: Tensor) -> tuple[Aggregated, Tensor | None]:
        """Aggregate some tiles and the tokens of the others, the student's part in v2.

        Args:
            features: ``(N, in_dim)``.
            tiles: Indices of the tiles that stay tiles.
            recycled: Indices of the tiles to recycle.

        Returns:
            Outputs of the network, and the detached tokens ``(k, D)`` that the queries are to follow, None where no
            tile was recycled.
        """
        embed = self.aggregator.embedding
        if self.recycler is None or len(recycled) == 0:
            return self.aggregator.aggregate(embed(features, tiles)), None
        tokens = self.recycler(embed(features, recycled))
        return self.aggregator.aggregate(embed(features, tiles, tokens)), tokens.detach()

    def forward(
        self, features: Tensor, mask: Tensor | None = None, *, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Classify a bag, or each bag of a padded batch, without masking hard tiles: as ``Aggregator.forward``."""
        return self.aggregator.classify_bags(self.read, features, mask, return_attention=return_attention)

    def probabilities(self, features: Tensor) -> Tensor:
        """Compute the probabilities ``(C,)`` of a whole bag ``(N, in_dim)``."""
        return self.log_probabilities(features).exp()

    def log_probabilities(self, features: Tensor) -> Tensor:
        """Compute the log-probabilities ``(C,)`` of a whole bag ``(N, in_dim)``."""
        return self.aggregator.log_probabilities(self.read(self.aggregator.embedding(features)))

    def read(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Aggregate a whole bag of embedded tiles ``(N, D)``, with recycled tokens if set for inference."""
        return self.aggregator.aggregate(self._with_tokens(embedded), scores)

    def tile_logits(self, embedded: Tensor) -> Tensor | None:
        """Divide the logits of a whole bag ``(N, D)`` among its tiles ``(N, C)``, as ``Aggregator.tile_logits``."""
        found = self.aggregator.tile_logits(self._with_tokens(embedded))
        return None if found is None else found[: len(embedded)]  # recycled tokens behind the tiles are no tiles

    def _with_tokens(self, embedded: Tensor) -> Tensor:
        if self.recycler is None or not self.recycles_at_test:
            return embedded
        return torch.cat([embedded, self.recycler(embedded)])


def start(student: MHIM, teacher: MHIM, baseline: Mapping[str, Tensor], *, share_embedding: bool) -> None:
    """Copy a trained plain network into the teacher and, in v1, its embedding into the student.

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
    """Compute the classification loss and, unless its weight is 0, the consistency loss.

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
    """Compute the cross-entropy between teacher's and student's softmax over features, mean over rows.

    The teacher's entropy is its lower bound, so that values near ``ln D`` are normal in the beginning.

    Args:
        student: ``(rows, D)`` bag features, a row or one per class.
        teacher: ``(rows, D)``, detached here.
        temperature: Of the teacher alone.
    """
    target = (full_precision(teacher.detach()) / temperature).softmax(dim=-1)
    return -(target * full_precision(student).log_softmax(dim=-1)).sum(dim=-1).mean()


def cosine_between(start: float, end: float, step: int, total: int) -> float:
    """Interpolate from ``start`` at step 0 to ``end`` at step ``total`` along half a cosine."""
    return end + (start - end) * schedules.cosine(step, total)


def high_share(masking: Masking, step: int, total: int) -> float:
    """Compute the share of the highest scores to mask at ``step`` (0-based) of ``total``.

    ``total`` counts the steps of the largest number of epochs, also where early stopping ends the run before.
    """
    return cosine_between(masking.high, 0.0, step, total) if masking.high_schedule == "cosine" else masking.high


def keep_rate(teacher: FollowingTeacher, step: int, total: int) -> float:
    """Compute the share of itself that the teacher keeps after ``step`` (0-based) of ``total``."""
    if teacher.schedule == "constant":
        return teacher.keep_rate
    return cosine_between(teacher.keep_rate, 1.0, step, total)
