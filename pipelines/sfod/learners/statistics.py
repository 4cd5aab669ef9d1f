"""Adaptation of batch norm statistics alone (BN)."""

import torch
from torch import Tensor

from vision_core.detection.model.detector import Detector
from vision_core.detection.model.frozen_norms import adapting_norms, norm_statistics
from vision_core.detection.views import Batch
from vision_core.training import distributed
from vision_core.training.learner import Learner


class StatisticsLearner(Learner):
    """Adaptation of normalisation statistics (BN): their mean over one pass of weak target views. Nothing else moves.

    Args:
        detector: The source detector.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.student = detector.freeze()
        self._before: Tensor | None = None

    @torch.no_grad()
    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Run one forward pass that moves the statistics; there is no loss."""
        self._before = self._statistics()
        with adapting_norms(self.student, passes=self.step):
            self.student.features(batch.weak)
        return {}

    @torch.no_grad()
    def exchange(self) -> None:
        """Average the statistics over the passes of all processes."""
        after = self._statistics()
        before = after if self._before is None else self._before
        seen = after.new_tensor([self._before is not None])
        moved = distributed.total(torch.cat([(after - before) * (self.step + 1), seen]))
        mean = before + moved[:-1] / (self.step * distributed.world_size() + moved[-1])
        buffers = norm_statistics(self.student)
        for buffer, values in zip(buffers, mean.split([each.numel() for each in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))
        self._before = None

    def product(self) -> Detector:
        """Return the detector with the new statistics."""
        return self.student

    def _statistics(self) -> Tensor:
        return torch.cat([buffer.flatten() for buffer in norm_statistics(self.student)])
