"""Supervised training on labelled images: the source model."""

from torch import Tensor

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.views import Batch, sampling_keys
from vision_core.detection.model.detector import Detector
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher


class SourceLearner(Learner):
    """Trains on labels. With ``teacher.keep_rate`` above 0 the weight average is what leaves the run."""

    def __init__(self, config: SfodConfig, detector: Detector) -> None:
        super().__init__()
        self.config = config
        self.is_selected = True
        self.student = detector
        self.teacher = MeanTeacher(detector) if config.teacher.keep_rate else None
        self.teacher_moves = config.teacher.every if self.teacher else None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """The four detection losses on the labels."""
        features = self.student.features(batch.strong)
        keys = sampling_keys(self.config.train.seed, self.step, batch.indices)
        return self.student.losses(features, batch.targets, keys, append_truth=True)

    def after_step(self, step: int) -> None:
        """Move the average, if it moves per step."""
        if self.teacher and self.config.teacher.every == "step":
            self.teacher.update(self.student, self.config.teacher.keep_rate)

    def after_epoch(self, epoch: int) -> None:
        """Move the average, if it moves per epoch."""
        if self.teacher and self.config.teacher.every == "epoch":
            self.teacher.update(self.student, self.config.teacher.keep_rate)

    def product(self) -> Detector:
        """The weight average if there is one, else the student."""
        return self.teacher.module if self.teacher else self.student  # type: ignore[return-value]
