"""Mean teacher on unlabelled images, and mean teacher with LPLD."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.methods import lpld
from pipelines.sfod.methods.collapse import CollapseGuard
from pipelines.sfod.views import Batch, sampling_keys
from vision_core.detection.model.detector import Detector, Features, Found, Proposals, Targets
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.errors import TrainingError
from vision_core.training import distributed
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher

_PATIENCE_IMAGES = 200


class MeanTeacherLearner(Learner):
    """Mean teacher on unlabelled images, with LPLD where the method says so (Yoon et al., ECCV 2024)."""

    def __init__(self, config: SfodConfig, detector: Detector) -> None:
        super().__init__()
        self.config = config
        self.student = detector
        self.teacher = MeanTeacher(detector)
        self.teacher_moves = config.teacher.every
        self.guard = CollapseGuard(self.teacher, detector.num_classes) if config.pseudo_labels.collapse_guard else None
        # How the first images went: seen, with a pseudo label, highest score. A buffer, for a resume.
        self.first_images: Tensor
        self.register_buffer("first_images", torch.zeros(3))
        self._seen: Tensor | None = None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Teacher on the weak view, student on the strong view with the teacher's boxes as labels, distillation."""
        taught = self._teach(batch.weak)
        labels = [confident_targets(found, self.config.pseudo_labels.threshold) for found in taught.found]
        self._watch(taught.found, labels)
        rows = [row for row, each in enumerate(labels) if len(each.labels) or not self._skips_empty]
        if not rows:
            return {}
        # A mean over all images, as if each were a step or a process of its own: one that is skipped adds nothing.
        share = len(rows) / len(labels)
        features = self.student.features([batch.strong[row] for row in rows])
        losses = self.student.losses(
            features,
            [labels[row] for row in rows],
            sampling_keys(self.config.train.seed, self.step, [batch.indices[row] for row in rows]),
            append_truth=self.config.pseudo_labels.append_boxes,
        )
        if self.config.method == "lpld":
            losses |= self._distil(taught, labels, features, rows)
        return {name: loss * share for name, loss in losses.items()} if share < 1 else losses

    def exchange(self) -> None:
        """What was seen in this step, in all processes: they judge alike."""
        device = self.first_images.device
        own = torch.zeros(3 + self._teacher.num_classes, device=device) if self._seen is None else self._seen
        self._count(distributed.gather(own[None]))
        self._seen = None

    def after_step(self, step: int) -> None:
        """Move the teacher, if it moves per step."""
        if self.config.teacher.every == "step":
            self.teacher.update(self.student, self.config.teacher.keep_rate)

    def after_epoch(self, epoch: int) -> None:
        """Move the teacher, if it moves per epoch."""
        fault = self.guard.end_epoch(epoch) if self.guard else ""
        if self.config.teacher.every == "epoch":
            self.teacher.update(self.student, self.config.teacher.keep_rate)
        if self.guard and self.guard.is_healthy:
            self.guard.keep(self.teacher)
        if fault:
            self.notes.append(f"ALARM after epoch {epoch}: {fault}. The teacher before it is delivered.")

    def product(self) -> Detector:
        """The teacher; after a collapse, as it was before."""
        teacher = self.guard.before if self.guard and not self.guard.is_healthy else self.teacher
        return teacher.module  # type: ignore[return-value]

    @property
    def _teacher(self) -> Detector:
        return self.teacher.module  # type: ignore[return-value]

    @property
    def _skips_empty(self) -> bool:
        return self.config.pseudo_labels.skip_empty_hpl

    @torch.no_grad()
    def _teach(self, images: list[Tensor]) -> "TeacherOutput":
        teacher = self._teacher
        features = teacher.features(images)
        proposals = teacher.propose(features)
        embedded = teacher.embed(teacher.pool(features, [each.boxes for each in proposals]))
        logits, deltas = teacher.score(embedded)
        found = teacher.select(features, proposals, logits, deltas)
        counts = [len(each.boxes) for each in proposals]
        return TeacherOutput(
            sizes=features.sizes,
            proposals=proposals,
            embedded=embedded.split(counts),
            logits=logits.split(counts),
            deltas=deltas.split(counts),
            found=found,
        )

    def _distil(
        self, taught: "TeacherOutput", labels: list[Targets], features: Features, rows: list[int]
    ) -> dict[str, Tensor]:
        kept = [self._low_confidence(taught, row, labels[row].boxes) for row in rows]
        self.metrics["lpl_per_image"] = sum(map(len, kept)) / len(kept)
        if not any(map(len, kept)):
            return {}
        boxes = [taught.proposals[row].boxes[keep] for row, keep in zip(rows, kept, strict=True)]
        # Selection needs the teacher alone, so the student pools the selected regions and no others.
        embedded = self.student.embed(self.student.pool(features, boxes))
        logits, _ = self.student.score(embedded)
        counts = [len(keep) for keep in kept]
        terms = [
            lpld.distil(
                scores,
                taught.logits[row][keep],
                lpld.distance_weights(pooled, taught.embedded[row][keep]),
                self.config.lpld,
            )
            for row, keep, pooled, scores in zip(rows, kept, embedded.split(counts), logits.split(counts), strict=True)
            if len(keep)
        ]
        return {"loss_lpld": torch.stack(terms).sum() / len(rows)}

    def _low_confidence(self, taught: "TeacherOutput", row: int, confident: Tensor) -> Tensor:
        proposals, logits = taught.proposals[row].boxes, taught.logits[row]
        decoded = self._teacher.decode(taught.deltas[row], proposals)
        boxes = lpld.teacher_boxes(proposals, logits, decoded)
        if self.config.lpld.clip_decoded_boxes:
            boxes = clip_boxes_to_image(boxes, taught.sizes[row])
        return lpld.select_low_confidence(boxes, logits, confident, self.config.lpld)

    def _watch(self, found: list[Found], labels: list[Targets]) -> None:
        self.metrics["hpl_per_image"] = sum(len(each.labels) for each in labels) / len(labels)
        per_class = torch.bincount(torch.cat([each.labels for each in labels]), minlength=self._teacher.num_classes)
        best = torch.stack([each.scores[:1].sum() for each in found]).amax()
        counts = per_class.new_tensor([len(labels), sum(len(each.labels) > 0 for each in labels)])
        self._seen = torch.cat([counts.float(), best[None].float(), per_class.float()])
        if distributed.world_size() == 1:
            self.exchange()

    def _count(self, steps: Tensor) -> None:
        """Judge a step by what each process saw in it, ``(processes, 3 + classes)``."""
        if self.guard:
            self.guard.count(steps[:, 3:].sum(dim=0))
        if self.first_images[0] >= _PATIENCE_IMAGES:
            return
        self.first_images[:2] += steps[:, :2].sum(dim=0)
        self.first_images[2] = torch.maximum(self.first_images[2], steps[:, 2].amax())
        seen, with_labels, best = self.first_images.tolist()
        if seen >= _PATIENCE_IMAGES and not with_labels:
            threshold = self.config.pseudo_labels.threshold
            raise TrainingError(
                f"pseudo_labels.threshold {threshold:g} is too high: no detection passed it on the first {seen:.0f} "
                f"images, the highest score was {best:.2f}. Set pseudo_labels.threshold below that, "
                "or give a source model that fits the target better."
            )


@dataclass(frozen=True, kw_only=True)
class TeacherOutput:
    """All that the teacher makes of a batch, image by image."""

    sizes: list[tuple[int, int]]
    proposals: list[Proposals]
    embedded: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    found: list[Found]
