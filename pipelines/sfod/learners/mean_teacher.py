"""The training steps: source training, statistics alone, mean teacher, and mean teacher with LPLD."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.methods import lpld
from pipelines.sfod.methods.collapse import describe_collapse
from pipelines.sfod.views import Batch
from vision_core.detection.model.detector import Detector, Features, Found, Proposals, Targets
from vision_core.detection.model.frozen_norms import adapting_norms, norm_statistics
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.errors import TrainingError
from vision_core.randomness import key
from vision_core.training import distributed as processes
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher

_PATIENCE_IMAGES = 200


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
        return self.student.losses(features, batch.targets, _sampling(self, batch), append_truth=True)

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


class StatisticsLearner(Learner):
    """BN: the normalisation statistics become the mean over one pass of weak target views; nothing else moves."""

    def __init__(self, config: SfodConfig, detector: Detector) -> None:
        super().__init__()
        self.config = config
        self.student = detector.freeze()
        self._before: Tensor | None = None

    @torch.no_grad()
    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """One forward pass; no loss."""
        self._before = self._statistics()
        with adapting_norms(self.student, passes=self.step):
            self.student.features(batch.weak)
        return {}

    @torch.no_grad()
    def exchange(self) -> None:
        """The mean over the passes of all processes, each of which has moved as if it were alone."""
        after = self._statistics()
        before = after if self._before is None else self._before
        seen = after.new_tensor([self._before is not None])
        moved = processes.total(torch.cat([(after - before) * (self.step + 1), seen]))
        mean = before + moved[:-1] / (self.step * processes.world_size() + moved[-1])
        buffers = norm_statistics(self.student)
        for buffer, values in zip(buffers, mean.split([each.numel() for each in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))
        self._before = None

    def product(self) -> Detector:
        """The detector with the new statistics."""
        return self.student

    def _statistics(self) -> Tensor:
        return torch.cat([buffer.flatten() for buffer in norm_statistics(self.student)])


class MeanTeacherLearner(Learner):
    """Mean teacher on unlabelled images, with LPLD where the method says so (Yoon et al., ECCV 2024)."""

    def __init__(self, config: SfodConfig, detector: Detector) -> None:
        super().__init__()
        self.config = config
        self.student = detector
        self.teacher = MeanTeacher(detector)
        self.teacher_moves = config.teacher.every
        self.guard = _CollapseGuard(self.teacher, detector.num_classes) if config.pseudo_labels.collapse_guard else None
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
            _sampling(self, batch, rows),
            append_truth=self.config.pseudo_labels.append_boxes,
        )
        if self.config.method == "lpld":
            losses |= self._distil(taught, labels, features, rows)
        return {name: loss * share for name, loss in losses.items()} if share < 1 else losses

    def exchange(self) -> None:
        """What was seen in this step, in all processes: they judge alike."""
        device = self.first_images.device
        own = torch.zeros(3 + self._teacher.num_classes, device=device) if self._seen is None else self._seen
        self._count(processes.gather(own[None]))
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
    def _teach(self, images: list[Tensor]) -> "_Taught":
        teacher = self._teacher
        features = teacher.features(images)
        proposals = teacher.propose(features)
        embedded = teacher.embed(teacher.pool(features, [each.boxes for each in proposals]))
        logits, deltas = teacher.score(embedded)
        found = teacher.select(features, proposals, logits, deltas)
        counts = [len(each.boxes) for each in proposals]
        return _Taught(
            sizes=features.sizes,
            proposals=proposals,
            embedded=embedded.split(counts),
            logits=logits.split(counts),
            deltas=deltas.split(counts),
            found=found,
        )

    def _distil(
        self, taught: "_Taught", labels: list[Targets], features: Features, rows: list[int]
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

    def _low_confidence(self, taught: "_Taught", row: int, confident: Tensor) -> Tensor:
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
        if processes.world_size() == 1:
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


class _CollapseGuard(nn.Module):
    """Counts pseudo labels per epoch and keeps the teacher of the last healthy one; all of it in checkpoints."""

    def __init__(self, teacher: MeanTeacher, num_classes: int) -> None:
        super().__init__()
        self.before = copy.deepcopy(teacher)
        self.first: Tensor
        self.now: Tensor
        self.healthy: Tensor
        self.register_buffer("first", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("now", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("healthy", torch.ones((), dtype=torch.bool))

    @property
    def is_healthy(self) -> bool:
        """Whether no epoch has collapsed so far."""
        return bool(self.healthy)

    def count(self, per_class: Tensor) -> None:
        """Add the pseudo labels of a step, ``(classes,)``."""
        self.now += per_class.to(self.now.dtype)

    def end_epoch(self, epoch: int) -> str:
        """Judge the epoch just over; what has collapsed, in words, the first time it is seen."""
        if epoch == 1:
            self.first.copy_(self.now)
        fault = describe_collapse(self.first, self.now) if self.is_healthy else ""
        self.now.zero_()
        if fault:
            self.healthy.fill_(False)
        return fault

    def keep(self, teacher: MeanTeacher) -> None:
        """Remember the teacher as it is."""
        self.before.load_state_dict(teacher.state_dict())


@dataclass(frozen=True, kw_only=True)
class _Taught:
    """All that the teacher makes of a batch, image by image."""

    sizes: list[tuple[int, int]]
    proposals: list[Proposals]
    embedded: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    found: list[Found]


def _sampling(
    learner: SourceLearner | MeanTeacherLearner, batch: Batch, rows: list[int] | None = None
) -> list[tuple[int, int]]:
    seed, step = learner.config.train.seed, learner.step
    indices = batch.indices if rows is None else [batch.indices[row] for row in rows]
    return [(key("rpn", seed, step, index), key("roi", seed, step, index)) for index in indices]
