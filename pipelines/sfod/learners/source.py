"""Supervised training of the source model on labelled images."""

from torch import Tensor

from vision_core.config.schema import Teacher
from vision_core.detection.model.detector import Detector
from vision_core.detection.views import Batch, sampling_keys
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher


class SourceLearner(Learner):
    """Supervised training of a detector, optionally with an average of its weights.

    Args:
        detector: The detector to train.
        average: When and how fast the average moves; it is delivered instead of the detector. None, or a keep rate of
            0: no average.
        seed: Key of the draws of anchors and regions.
    """

    def __init__(self, detector: Detector, *, average: Teacher | None = None, seed: int = 0) -> None:
        super().__init__()
        self.averaging = average
        self.seed = seed
        self.is_selected = True
        self.student = detector
        self.teacher = MeanTeacher(detector) if average and average.keep_rate else None
        self.teacher_moves = average.every if average and self.teacher else None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the four detection losses on the labels."""
        features = self.student.features(batch.strong)
        keys = sampling_keys(self.seed, self.step, batch.indices)
        return self.student.losses(features, batch.targets, keys, append_truth=True)

    def after_step(self, step: int) -> None:
        """Move the average, if it moves per step."""
        self._move("step")

    def after_epoch(self, epoch: int) -> None:
        """Move the average, if it moves per epoch."""
        self._move("epoch")

    def product(self) -> Detector:
        """Return the weight average if there is one, else the student."""
        return self.teacher.module if self.teacher else self.student  # type: ignore[return-value]

    def _move(self, moment: str) -> None:
        if self.teacher and self.averaging and self.averaging.every == moment:
            self.teacher.update(self.student, self.averaging.keep_rate)
