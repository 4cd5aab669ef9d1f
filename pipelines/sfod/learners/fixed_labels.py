"""Training on pseudo labels that the source model writes once."""

import torch
from torch import Tensor

from pipelines.sfod.config import PseudoLabels
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from pipelines.sfod.methods.fixed_labels import LabelTable
from vision_core.config.schema import Teacher
from vision_core.detection.model.detector import Detector, Targets
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.detection.views import Batch
from vision_core.training import distributed
from vision_core.training.mean_teacher import MeanTeacher


class FixedLabelsLearner(MeanTeacherLearner):
    """Mean teacher whose labels come from the source model; each image is labelled the first time it is seen.

    All else is as with a mean teacher: the student learns the labels on strong views, and its average is delivered.

    Args:
        detector: The source detector; it labels, and it becomes the student.
        num_images: Images of the training list.
        teacher: When and how fast the average moves; the published values of LPLD if None.
        pseudo_labels: Which detections the student learns; labels that do not change need no guard against collapse.
        seed: Key of the draws of anchors and regions.

    Raises:
        ValueError: The threshold of the pseudo labels is no number.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        num_images: int,
        teacher: Teacher | None = None,
        pseudo_labels: PseudoLabels | None = None,
        seed: int = 0,
    ) -> None:
        unguarded = (pseudo_labels or PseudoLabels()).model_copy(update={"collapse_guard": False})
        super().__init__(detector, teacher=teacher, pseudo_labels=unguarded, seed=seed)
        self.source = MeanTeacher(detector)  # which never moves
        self.table = LabelTable(num_images, detector.settings.test_detections)
        self._written: tuple[Tensor, Tensor] | None = None  # indices and rows that not all processes have yet

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the detection losses on the labels of the source."""
        labels, best = self._labels(batch)
        self._count_labels([score[None] for score in best], labels)
        return self._learn(batch, labels)

    def exchange(self) -> None:
        """Write the labels of all processes, beside the counts of the base."""
        super().exchange()
        rows = self.table.rows
        none = torch.empty(0, dtype=torch.int64, device=rows.device), rows[:0]
        indices, written = (distributed.gather(each) for each in self._written or none)
        self.table.write(indices, written)
        self._written = None

    def discard(self) -> None:
        """Forget the labels of this step; they are written anew."""
        self._written = None

    @torch.no_grad()
    def _labels(self, batch: Batch) -> tuple[list[Targets], list[Tensor]]:
        """Read the labels and the highest score of each image; label those that are new."""
        found = self.table.read(batch.indices)
        places = [place for place, each in enumerate(found) if each is None]
        if places:
            source: Detector = self.source.module  # type: ignore[assignment]
            detections = source.detect(source.features([batch.weak[place] for place in places]))
            labels = [confident_targets(each, self.threshold) for each in detections]
            best = [each.scores[:1].sum() for each in detections]
            for place, own, score in zip(places, labels, best, strict=True):
                found[place] = own, score
            indices = torch.tensor([batch.indices[place] for place in places], device=self.table.rows.device)
            self._written = indices, self.table.pack(labels, best)
            if distributed.world_size() == 1:
                self.table.write(*self._written)
        known = [each for each in found if each is not None]
        return [each for each, _ in known], [score for _, score in known]
