"""The training steps: a plain network, and masked hard instance mining around it. A batch is one bag."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from pipelines.wsi.config import FollowingTeacher, MhimV1, MhimV2, WsiConfig
from pipelines.wsi.evaluation.predictions import Predictions
from pipelines.wsi.features.bags import Bag
from pipelines.wsi.mhim.masking import keep_instances
from pipelines.wsi.mhim.recycling import split
from pipelines.wsi.mhim.student_teacher import Mhim, TeacherOutput, high_share, keep_rate, mhim_losses, start
from pipelines.wsi.models.build import build_model
from vision_core.randomness import seed_torch
from vision_core.training import distributed
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher

STUDENT, TEACHER = "student", "mean_teacher"


class BagLearner(Learner):
    """What every method has: a student, of which the best epoch on validation leaves the run.

    Attributes:
        student: The network, with what recycles tiles where the method has it.
        total: Updates of the longest run that the settings allow, for schedules.
        validated: What the networks as they are now say of the validation list, by their names; nothing after each
            step.
        scope: Where the training slides lie, as a record for the card; found once.
    """

    def __init__(self, student: Mhim, total: int) -> None:
        super().__init__()
        self.is_selected = True
        self.student, self.total = student, total
        self.validated: dict[str, Predictions] = {}
        self.scope: dict[str, Any] | None = None

    def product(self) -> Mhim:
        """The student."""
        return self.student

    def networks(self) -> Mapping[str, Mhim]:
        """What is scored on validation and leaves the run, by name; the student chooses the epoch."""
        return {STUDENT: self.student}

    def forward(self, batch: Bag) -> dict[str, Tensor]:
        """The training step, with masks and dropout that follow from the bag."""
        if batch.key is not None:
            seed_torch(batch.key)
        return super().forward(batch)

    def after_step(self, step: int) -> None:
        """What was said of the validation list is of other weights now."""
        self.validated = {}


class PlainLearner(BagLearner):
    """The network alone on whole bags; also what trains the teacher that MHIM begins with."""

    def training_step(self, batch: Bag) -> dict[str, Tensor]:
        """Classify the bag."""
        network = self.student.aggregator
        return {"loss_cls": network.loss(network.aggregate(network.embedding(batch.features)), batch.label)}


class MhimLearner(BagLearner):
    """A teacher scores all tiles of the bag; the student learns from those that are left after masking."""

    def __init__(self, student: Mhim, total: int, profile: MhimV1 | MhimV2) -> None:
        super().__init__(student, total)
        self.profile = profile
        self.teacher = MeanTeacher(student, profile.teacher.mode)
        self.teacher_moves = "step"
        self._tokens: list[Tensor] = []

    def training_step(self, batch: Bag) -> dict[str, Tensor]:
        """Score, mask, and in v2 recycle; then classify, and follow the teacher's bag feature."""
        profile = self.profile
        taught = self._teach(batch.features)
        high = high_share(profile.masking, self.update, self.total)
        kept = keep_instances(taught.scores, profile.masking, high)
        if isinstance(profile, MhimV2):
            tiles, recycled = split(kept, profile.recycling)
            aggregated, tokens = self.student.learn_recycling(batch.features, tiles, recycled)
            self._tokens += [] if tokens is None else [tokens]
        else:
            aggregated = self.student.learn(batch.features, kept)
        self.metrics = {"kept_share": len(kept) / len(batch.features)}
        return mhim_losses(self.student.aggregator, aggregated, taught, batch.label, profile.consistency)

    def after_step(self, step: int) -> None:
        """The queries follow their tokens, then the teacher follows the student."""
        super().after_step(step)
        if isinstance(self.profile, MhimV2):
            self._move_queries(self.profile.recycling.keep_rate)
        self.teacher.update(self.student, self._keep_rate(self.profile.teacher))

    def networks(self) -> Mapping[str, Mhim]:
        """The student and, unless the settings leave it out, its teacher."""
        teacher = {TEACHER: cast(Mhim, self.teacher.module)} if self.profile.teacher.scored else {}
        return {**super().networks(), **teacher}

    def begin(self, baseline: Mapping[str, Tensor]) -> None:
        """Start from a trained plain network."""
        teacher = cast(Mhim, self.teacher.module)
        start(self.student, teacher, baseline, share_embedding=isinstance(self.profile, MhimV1))

    def _move_queries(self, keep_rate: float) -> None:
        """Towards the mean of the tokens behind this update, of all processes: they hold the same queries."""
        recycler = self.student.recycler
        assert recycler is not None
        own = torch.stack([torch.zeros_like(recycler.queries), *self._tokens]).sum(dim=0)
        tokens = distributed.total(own)
        count = float(distributed.total(torch.tensor(float(len(self._tokens)), device=own.device)))
        if count:
            recycler.follow(tokens / count, keep_rate)
        self._tokens = []

    def _teach(self, features: Tensor) -> TeacherOutput:
        return cast(Mhim, self.teacher.module).teach(features, self.profile.scores)

    def _keep_rate(self, teacher: FollowingTeacher) -> float:
        return keep_rate(teacher, self.update, self.total)


def make_learner(config: WsiConfig, feature_dim: int, num_classes: int, total: int) -> BagLearner:
    """The learner of ``config.method`` with random weights."""
    recycling = config.mhim_v2.recycling if config.method == "mhim_v2" else None
    student = Mhim(build_model(config.model, feature_dim, num_classes), recycling)
    match config.method:
        case "plain":
            return PlainLearner(student, total)
        case "mhim_v1":
            return MhimLearner(student, total, config.mhim_v1)
        case "mhim_v2":
            return MhimLearner(student, total, config.mhim_v2)
