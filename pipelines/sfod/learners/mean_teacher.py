"""Mean teacher on unlabelled images, and mean teacher with LPLD."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from pipelines.sfod.config import Lpld, PseudoLabels
from pipelines.sfod.methods import collapse, label_watch
from pipelines.sfod.methods.collapse import CollapseGuard
from pipelines.sfod.methods.label_watch import LabelWatch, counts_of
from pipelines.sfod.methods.lpld import distance_weights, distil, select_low_confidence, teacher_boxes
from vision_core.config.schema import Teacher
from vision_core.detection.model.detector import DetectionTensors, Detector, Features, Proposals, Targets
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.detection.views import Batch, sampling_keys
from vision_core.randomness import key
from vision_core.training import distributed
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher


class MeanTeacherLearner(Learner):
    """Mean teacher of a detector on unlabelled images, optionally with LPLD.

    Args:
        detector: The source detector; it becomes the student.
        teacher: When and how fast the teacher moves; the published values if None.
        pseudo_labels: Which detections the student learns; the published choice if None.
        lpld: Settings of the distillation; None: mean teacher alone.
        seed: Key of the draws of anchors and regions.

    Raises:
        ValueError: The threshold of the pseudo labels is no number.
    """

    keeps_maps = False  # of the teacher's proposals, a hundred megabytes an image on the published detector

    def __init__(
        self,
        detector: Detector,
        *,
        teacher: Teacher | None = None,
        pseudo_labels: PseudoLabels | None = None,
        lpld: Lpld | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.averaging = teacher or Teacher()
        self.pseudo_labels = pseudo_labels or PseudoLabels()
        if self.pseudo_labels.threshold == "auto":
            raise ValueError("pseudo_labels.threshold is 'auto': expected a number")
        self.threshold = self.pseudo_labels.threshold
        self.lpld = lpld
        self.seed = seed
        self.student = detector
        self.teacher = MeanTeacher(detector)
        self.teacher_moves = self.averaging.every
        self.guard = CollapseGuard(self.teacher, detector.num_classes) if self.pseudo_labels.collapse_guard else None
        self.watch = LabelWatch(self.threshold, stops=self.pseudo_labels.on_nothing == "stop")
        self.register_load_state_dict_pre_hook(self._upgrade)  # type: ignore[no-untyped-call]
        self._step_counts: Tensor | None = None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the detection losses on the teacher's boxes, and the distillation loss.

        The teacher sees the weak view, the student the strong one.
        """
        output = self._run_teacher(batch.weak)
        labels = [confident_targets(each, self.threshold) for each in output.detections]
        self._count_labels([each.scores for each in output.detections], labels)
        return self._learn(batch, labels, output)

    def exchange(self) -> None:
        """Add up the counts of all processes, so that all judge alike."""
        self._exchange_counts()

    def after_step(self, step: int) -> None:
        """Move the teacher, if it moves per step, and look at it now and then."""
        if self.guard:
            self.guard.begin(self._teacher)
        if self.averaging.every == "step":
            self.teacher.update(self.student, self.averaging.keep_rate)
        if self.guard:
            self._note_fault(self.guard.after_update(self.teacher, self.update), f"step {step}")

    def after_epoch(self, epoch: int) -> None:
        """Judge the epoch's pseudo labels; move a teacher that moves per epoch."""
        fault = self.guard.end_epoch(epoch) if self.guard else ""
        if self.averaging.every == "epoch":
            self.teacher.update(self.student, self.averaging.keep_rate)
        if self.guard and self.guard.is_healthy and not self.guard.looks:
            self.guard.keep(self.teacher)
        self.watch.end_epoch(epoch)
        self._note_fault(fault, f"epoch {epoch}")

    def conclude(self) -> None:
        """Look at the last teacher, and note what it did not find; a run without any pseudo label has no result."""
        if self.guard:
            self._note_fault(self.guard.look(self.teacher), "the last step")
        if (alarm := self.watch.conclude()) and alarm not in self.notes:
            self.notes.append(alarm)

    def product(self) -> Detector:
        """Return the teacher; after a collapse, the last healthy one."""
        teacher = self.guard.before if self.guard and not self.guard.is_healthy else self.teacher
        return teacher.module  # type: ignore[return-value]

    def _note_fault(self, fault: str, moment: str) -> None:
        if fault:
            self.notes.append(f"ALARM after {moment}: {fault}. The teacher before it is delivered.")

    def _upgrade(self, _: object, state: dict[str, Tensor], prefix: str, *__: object) -> None:
        label_watch.upgrade(state, prefix, "watch")
        collapse.upgrade(state, f"{prefix}guard.", self.student.num_classes)

    @property
    def _teacher(self) -> Detector:
        return self.teacher.module  # type: ignore[return-value]

    @torch.no_grad()
    def _run_teacher(self, images: list[Tensor]) -> "TeacherOutput":
        teacher = self._teacher
        features = teacher.features(images)
        proposals = teacher.propose(features)
        maps = teacher.pool(features, [each.boxes for each in proposals])
        embedded = teacher.embed(maps)
        logits, deltas = teacher.score(embedded)
        detections = teacher.select(features, proposals, logits, deltas)
        counts = [len(each.boxes) for each in proposals]
        return TeacherOutput(
            features=features,
            proposals=proposals,
            maps=maps.split(counts) if self.keeps_maps else (),
            embedded=embedded.split(counts),
            logits=logits.split(counts),
            deltas=deltas.split(counts),
            detections=detections,
        )

    def _learn(self, batch: Batch, labels: list[Targets], output: "TeacherOutput | None" = None) -> dict[str, Tensor]:
        """Compute the losses of the student on the pseudo labels of each image, and those of ``_terms``, if any."""
        rows = [row for row, each in enumerate(labels) if len(each.labels) or not self.pseudo_labels.skip_empty_hpl]
        if not rows:
            return {}
        # A mean over all images, as if each were a step or a process of its own: one that is skipped adds nothing.
        share = len(rows) / len(labels)
        features = self.student.features([batch.strong[row] for row in rows])
        losses = self.student.losses(
            features,
            [labels[row] for row in rows],
            sampling_keys(self.seed, self.step, [batch.indices[row] for row in rows]),
            append_truth=self.pseudo_labels.append_boxes,
        )
        if output is not None:
            losses |= self._terms(batch, output, labels, features, rows)
        return {name: loss * share for name, loss in losses.items()} if share < 1 else losses

    def _terms(
        self, batch: Batch, output: "TeacherOutput", labels: list[Targets], features: Features, rows: list[int]
    ) -> dict[str, Tensor]:
        """Compute the losses beside those of detection, means over the images ``rows`` of the batch.

        Args:
            batch: Views of all images.
            output: The teacher's, of all images.
            labels: Pseudo labels of all images.
            features: The student's on the strong views of ``rows`` alone.
            rows: Images that are learnt from.
        """
        return self._distil(batch, output, labels, features, rows, self.lpld) if self.lpld else {}

    def _distil(  # noqa: PLR0913 (of both models, and of what is computed already)
        self,
        batch: Batch,
        output: "TeacherOutput",
        labels: list[Targets],
        features: Features,
        rows: list[int],
        settings: Lpld,
        scored: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Average ``lpld_loss`` over images, pooling the selected regions alone.

        Args:
            batch: Views of all images.
            output: The teacher's, of all images.
            labels: Pseudo labels of all images.
            features: The student's, of ``rows`` alone.
            rows: Images that are learnt from.
            settings: Of the distillation.
            scored: The student's features and logits of all proposals of ``rows``, where another term has them.
        """
        kept = [self._low_confidence(output, row, labels[row].boxes, settings) for row in rows]
        self.metrics["lpl_per_image"] = sum(map(len, kept)) / len(kept)
        if not any(map(len, kept)):
            return {}
        if scored is None:
            boxes = [output.proposals[row].boxes[keep] for row, keep in zip(rows, kept, strict=True)]
            counts = [len(keep) for keep in kept]
            maps = self.student.pool(features, boxes)
            embedded = self.student.embed(maps, self._dropout("distil", batch, rows, counts))
            logits, _ = self.student.score(embedded)
            chosen = list(zip(embedded.split(counts), logits.split(counts), strict=True))
        else:
            chosen = [(pooled[keep], scores[keep]) for keep, (pooled, scores) in zip(kept, scored, strict=True)]
        terms = [
            distil(scores, output.logits[row][keep], distance_weights(pooled, output.embedded[row][keep]), settings)
            for row, keep, (pooled, scores) in zip(rows, kept, chosen, strict=True)
            if len(keep)
        ]
        return {"loss_lpld": torch.stack(terms).sum() / len(rows)}

    def _dropout(self, term: str, batch: Batch, rows: list[int], counts: list[int]) -> list[tuple[int, int]]:
        """Derive what ``Detector.embed`` needs to drop alike in any process: ``counts`` are of ``rows``."""
        seeds = [key(term, self.seed, self.step, batch.indices[row]) for row in rows]
        return list(zip(counts, seeds, strict=True))

    def _low_confidence(self, output: "TeacherOutput", row: int, confident: Tensor, settings: Lpld) -> Tensor:
        proposals, logits = output.proposals[row].boxes, output.logits[row]
        boxes = teacher_boxes(proposals, logits, self._teacher.decode(output.deltas[row], proposals))
        if settings.clip_decoded_boxes:
            boxes = clip_boxes_to_image(boxes, output.features.sizes[row])
        return select_low_confidence(boxes, logits, confident, settings)

    def _count_labels(self, scores: list[Tensor], labels: list[Targets]) -> None:
        """Count the pseudo labels of a step and its highest score; ``scores`` of an image begin with its highest."""
        total = sum(len(each.labels) for each in labels)
        self.metrics["hpl_per_image"] = total / len(labels)
        self.watch.see(total, len(labels))
        self.status = self.watch.status
        per_class = torch.bincount(torch.cat([each.labels for each in labels]), minlength=self._teacher.num_classes)
        counts = counts_of([each.labels for each in labels], scores)
        self._step_counts = torch.cat([counts, per_class.float()])
        if distributed.world_size() == 1:
            self._exchange_counts()

    def _exchange_counts(self) -> None:
        device = self.watch.window.device
        own = self._step_counts
        own = torch.zeros(3 + self._teacher.num_classes, device=device) if own is None else own
        self._judge_counts(distributed.gather(own[None]))
        self._step_counts = None

    def _judge_counts(self, counts: Tensor) -> None:
        """Count the pseudo labels of a step for all that judge them.

        Args:
            counts: ``(processes, 3 + classes)``: images, images with a pseudo label, highest score, labels by class.
        """
        if self.guard:
            self.guard.count(counts[:, 3:].sum(dim=0))
        self.watch.count(counts[:, :3], self.step)


@dataclass(frozen=True, kw_only=True)
class TeacherOutput:
    """Outputs of the teacher for a batch, one entry per image.

    Attributes:
        features: Of the whole batch.
        proposals: ``N`` candidate regions.
        maps: ``(N, C, H, W)`` of the proposals, where a method looks at them; else none.
        embedded: ``(N, D)``, pooled features of the proposals.
        logits: ``(N, classes + 1)``, background last.
        deltas: ``(N, 4 * classes)``.
        detections: After threshold and suppression.
    """

    features: Features
    proposals: list[Proposals]
    maps: tuple[Tensor, ...]
    embedded: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    detections: list[DetectionTensors]
