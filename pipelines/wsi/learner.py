"""Learners of the aggregators: plain training, and masked hard instance mining. A batch is one bag."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from pipelines.wsi.config import MhimV1, MhimV2, WsiConfig
from pipelines.wsi.evaluation.predictions import Predictions
from pipelines.wsi.features.bags import Bag
from pipelines.wsi.mhim.student_teacher import MHIM, high_share, keep_rate, start
from pipelines.wsi.models.build import build_model
from vision_core.randomness import seed_torch
from vision_core.training import distributed
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher

STUDENT, TEACHER = "student", "mean_teacher"
CURVE_NAMES = {"loss_cls": "Loss: which class", "loss_consistency": "Loss: teacher and student agree"}


class BagLearner(Learner):
    """Learner with a student whose best epoch on validation is saved.

    Attributes:
        student: The network, with a recycler in MHIM v2.
        total: Updates of the longest run that the settings allow, for schedules.
        validated: Predictions of the current networks on the validation list, by network; cleared after each step.
        scope: Record of the feature space of the training slides for the card; computed once.
    """

    def __init__(self, student: MHIM, total: int) -> None:
        super().__init__()
        self.is_selected = True
        self.student, self.total = student, total
        self.validated: dict[str, Predictions] = {}
        self.scope: dict[str, Any] | None = None

    def product(self) -> MHIM:
        """Return the student."""
        return self.student

    def networks(self) -> Mapping[str, MHIM]:
        """Return the networks to validate and save, by name; the student's scores select the epoch."""
        return {STUDENT: self.student}

    def forward(self, batch: Bag) -> dict[str, Tensor]:
        """Compute the losses of a bag, with masks and dropout seeded by its key."""
        if batch.key is not None:
            seed_torch(batch.key)
        return super().forward(batch)

    def after_step(self, step: int) -> None:
        """Clear the predictions on validation, which are of earlier weights."""
        self.validated = {}


class PlainLearner(BagLearner):
    """Learner of the aggregator on whole bags; it also trains the initial teacher of MHIM."""

    def training_step(self, batch: Bag) -> dict[str, Tensor]:
        """Classify the bag."""
        network = self.student.aggregator
        return {"loss_cls": network.loss(network.aggregate(network.embedding(batch.features)), batch.label)}


class MhimLearner(BagLearner):
    """Learner of masked hard instance mining with a mean teacher.

    Outside ``fit``, call ``after_step`` with the number of steps done after each of the optimizer: it moves the teacher
    and counts the steps of the schedules.

    Args:
        student: The network; in v2 with a recycler.
        total: Updates of the longest run that the settings allow, for schedules.
        profile: Scores, masking, consistency and teacher; the recycling is the student's own.
    """

    def __init__(self, student: MHIM, total: int, profile: MhimV1 | MhimV2) -> None:
        super().__init__(student, total)
        self.profile = profile
        self.teacher = MeanTeacher(student, profile.teacher.mode)
        self.teacher_moves = "step"
        self._tokens: list[Tensor] = []
        self._version_of_student: int | None = None

    def training_step(self, batch: Bag) -> dict[str, Tensor]:
        """Compute the student's losses on the tiles that remain after masking.

        Raises:
            RuntimeError: The student has moved since the last step, and ``after_step`` was not called.
        """
        self._require_moved_teacher()
        high = high_share(self.profile.masking, self.update, self.total)
        done = self.student.training_step(batch.features, batch.label, self.teacher, self.profile, high)
        self._tokens += [] if done.tokens is None else [done.tokens]
        self.metrics = {"kept_share": len(done.kept) / len(batch.features)}
        return done.losses

    def after_step(self, step: int) -> None:
        """Move the queries towards their tokens, then the teacher towards the student."""
        super().after_step(step)
        if self.student.recycling is not None:
            self._move_queries(self.student.recycling.keep_rate)
        self.teacher.update(self.student, keep_rate(self.profile.teacher, self.update, self.total))
        self.step, self._version_of_student = step, None  # ``fit`` sets the step itself

    def _require_moved_teacher(self) -> None:
        """Raise where a training by hand would leave the teacher where it is, in silence."""
        if torch.compiler.is_compiling():
            return
        version = sum(parameter._version for parameter in self.student.parameters())
        if self._version_of_student is not None and version != self._version_of_student:
            raise RuntimeError("the student has moved, its teacher has not: call after_step(number of steps done)")
        self._version_of_student = version

    def discard(self) -> None:
        """Forget the tokens of steps that move no weights: no later update shall follow them."""
        self._tokens = []

    def networks(self) -> Mapping[str, MHIM]:
        """Return the student and, unless the settings leave it out, its teacher."""
        teacher = {TEACHER: cast(MHIM, self.teacher.module)} if self.profile.teacher.scored else {}
        return {**super().networks(), **teacher}

    def begin(self, baseline: Mapping[str, Tensor]) -> None:
        """Copy a trained plain network into the teacher and, in v1, its embedding into the student."""
        teacher = cast(MHIM, self.teacher.module)
        start(self.student, teacher, baseline, share_embedding=isinstance(self.profile, MhimV1))

    def _move_queries(self, keep_rate: float) -> None:
        """Move the queries towards the mean of this update's tokens over all processes, which share the queries."""
        recycler = self.student.recycler
        assert recycler is not None
        own = torch.stack([torch.zeros_like(recycler.queries), *self._tokens]).sum(dim=0)
        tokens = distributed.total(own)
        count = distributed.total(own.new_full((), len(self._tokens)))  # on the device: the host need not wait for it
        mean = torch.where(count > 0, tokens / count.clamp(min=1), recycler.queries)
        recycler.follow(mean, keep_rate)
        self._tokens = []


def make_learner(config: WsiConfig, feature_dim: int, num_classes: int, total: int) -> BagLearner:
    """Build the learner of ``config.method`` with random weights."""
    recycling = config.mhim_v2.recycling if config.method == "mhim_v2" else None
    student = MHIM(build_model(config.model, feature_dim, num_classes), recycling)
    match config.method:
        case "plain":
            return PlainLearner(student, total)
        case "mhim_v1":
            return MhimLearner(student, total, config.mhim_v1)
        case "mhim_v2":
            return MhimLearner(student, total, config.mhim_v2)
