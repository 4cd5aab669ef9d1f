"""WSCoL and WSCo: mean teacher with contrast between the categories of the teacher's proposals."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.sfod.config import Lpld, PseudoLabels, Wscol
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner, TeacherOutput
from pipelines.sfod.methods.clustering import Anchors, Clusters, find_anchors, plain_cluster
from pipelines.sfod.methods.contrast import instance_loss
from pipelines.sfod.methods.gradient_consistency import grad_consistency
from pipelines.sfod.methods.mapping import MAP_SIDE, MappingNetwork
from pipelines.sfod.methods.prototypes import ClassMemory
from pipelines.sfod.methods.uncertainty import proposal_variance
from pipelines.sfod.methods.wscol import categories, category_contrast, cluster_by_prototypes, consistency_loss
from vision_core.config.schema import Teacher
from vision_core.detection.model.detector import Detector, Features, Targets
from vision_core.detection.views import Batch
from vision_core.errors import ConfigError
from vision_core.randomness import key, seeded
from vision_core.training import distributed
from vision_core.training.runtime import full_float32

_RANGES = ("mapped_distance_min", "mapped_distance_max", "plain_distance_min", "plain_distance_max")


@dataclass(frozen=True, kw_only=True)
class StudentRegions:
    """What the student makes of the ``N`` proposals of one image.

    Attributes:
        maps: ``(N, C, 7, 7)`` of the strong view.
        embedded: ``(N, D)`` of the strong view.
        logits: ``(N, classes + 1)`` of the strong view.
        mapped: ``(N, dim)`` of the strong view.
        weak_maps: ``(N, C, 7, 7)`` of the weak view, where a term looks at it.
        weak_mapped: ``(N, dim)`` of the weak view, where a term looks at it.
    """

    maps: Tensor
    embedded: Tensor
    logits: Tensor
    mapped: Tensor
    weak_maps: Tensor | None
    weak_mapped: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Categorised:
    """Categories of the ``N`` proposals of an image.

    Attributes:
        mapped: ``(N, dim)``, mapped features of the teacher.
        labels: ``(N,)`` int64, background last.
    """

    mapped: Tensor
    labels: Tensor


class WscolLearner(MeanTeacherLearner):
    """Mean teacher with the terms of WSCoL, optionally with LPLD too.

    An image sees the memory as it was before the step, and its own pseudo labels; after all images of the step, in all
    processes, the memory takes in what they have seen, and the prototypes move once. With one image in one process this
    is the published order.

    Args:
        detector: The source detector; it becomes the student.
        wscol: Settings of the terms.
        steps_per_epoch: Steps of a pass over the images, by which the first epochs are known.
        teacher: When and how fast the teacher moves; the published values of LPLD if None.
        pseudo_labels: Which detections the student learns; the published choice of LPLD if None.
        lpld: Settings of the distillation; None: without.
        seed: Key of the draws of anchors and regions, and of the first weights of the mapping network.

    Raises:
        ConfigError: The detector's maps of regions have another size than the mapping network takes.
        ValueError: An epoch has no step, or the threshold of the pseudo labels is no number.
    """

    keeps_maps = True

    def __init__(  # noqa: PLR0913 (a detector, and settings by name)
        self,
        detector: Detector,
        *,
        wscol: Wscol,
        steps_per_epoch: int,
        teacher: Teacher | None = None,
        pseudo_labels: PseudoLabels | None = None,
        lpld: Lpld | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(detector, teacher=teacher, pseudo_labels=pseudo_labels, lpld=lpld, seed=seed)
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch is {steps_per_epoch}: expected at least 1")
        channels, height, width = detector.map_shape
        if (height, width) != (MAP_SIDE, MAP_SIDE):
            raise ConfigError(
                f"The detector's pool_size is '{detector.settings.pool_size}', which gives maps of {height} x {width}; "
                f"WSCoL maps regions of {MAP_SIDE} x {MAP_SIDE}. Start from a detector with a pool_size of 14 (c4) or "
                "7 (fpn, vgg16)."
            )
        self.wscol, self.steps_per_epoch = wscol, steps_per_epoch
        with seeded(key("mapping", seed)):
            self.mapping = MappingNetwork(channels, detector.embedded_dim, wscol.dim)
        self.memory = ClassMemory(
            detector.num_classes, detector.map_shape, self.mapping.dim, wscol.bank, wscol.prototype_rate
        )
        self._seen: tuple[Tensor, Tensor] | None = None  # maps and classes that the memory has not taken in yet

    def exchange(self) -> None:
        """Let the memory take in what all processes have seen in this step, beside the counts of the base."""
        super().exchange()
        bank = self.memory.bank
        maps, labels = self._seen or (bank.maps[0, :0], bank.pushed[:0])
        maps, labels = distributed.gather(maps), distributed.gather(labels)
        self._seen = None
        if len(labels):
            self.memory.take_in(maps, labels, self.mapping)
            # Processors differ in last bits, which would grow over the steps.
            vectors = self.memory.prototypes.vectors
            vectors.copy_(distributed.gather(vectors[None])[0])

    def discard(self) -> None:
        """Forget what this step has seen."""
        self._seen = None

    def _terms(
        self, batch: Batch, output: TeacherOutput, labels: list[Targets], features: Features, rows: list[int]
    ) -> dict[str, Tensor]:
        regions = self._regions(batch, output, features, rows)
        losses: dict[str, Tensor] = {}
        if self.lpld:
            scored = [(each.embedded, each.logits) for each in regions]
            losses |= self._distil(batch, output, labels, features, rows, self.lpld, scored)
        own = dict(zip(rows, regions, strict=True))
        taught = [row for row in rows if len(labels[row].labels) and len(own[row].logits)]
        if not taught:
            return losses
        objects = self._object_maps(output, labels)
        is_alone = len(taught) == 1 and distributed.world_size() == 1
        found = []
        for row in taught:
            memory = self.memory if is_alone else copy.deepcopy(self.memory)
            held = memory.take_in(objects[row], labels[row].labels, self.mapping)
            anchors = self._anchors(output, row, labels[row], batch.indices[row])
            chosen = self._categories(output, row, anchors, memory, held)
            found.append(
                self._category_terms(output, row, own[row], chosen)
                | self._view_terms(own[row], anchors, len(labels[row].labels))
            )
        if not is_alone:
            self._remember([(objects[row], labels[row].labels) for row in taught])
        for name in dict.fromkeys(name for each in found for name in each):
            losses[name] = torch.stack([each[name] for each in found if name in each]).sum() / len(rows)
        return losses

    def _regions(
        self, batch: Batch, output: TeacherOutput, features: Features, rows: list[int]
    ) -> list[StudentRegions]:
        """Run the student at the teacher's proposals, once for all terms."""
        boxes = [output.proposals[row].boxes for row in rows]
        counts = [len(each) for each in boxes]
        maps = self.student.pool(features, boxes)
        embedded = self.student.embed(maps, self._dropout("contrast", batch, rows, counts))
        logits, _ = self.student.score(embedded)
        weak: list[Tensor | None] = [None] * len(rows)
        weak_mapped = weak
        if self.wscol.instance_weight or self.wscol.gradient_weight:
            plain = self.student.pool(self.student.features([batch.weak[row] for row in rows]), boxes)
            weak = list(plain.split(counts))
            if self.wscol.instance_weight:
                weak_mapped = list(self.mapping(plain).split(counts))
        parts = (maps.split(counts), embedded.split(counts), logits.split(counts), self.mapping(maps).split(counts))
        return [
            StudentRegions(
                maps=own, embedded=pooled, logits=scores, mapped=mapped, weak_maps=weak_own, weak_mapped=weak_other
            )
            for own, pooled, scores, mapped, weak_own, weak_other in zip(*parts, weak, weak_mapped, strict=True)
        ]

    @torch.no_grad()
    def _object_maps(self, output: TeacherOutput, labels: list[Targets]) -> list[Tensor]:
        """Pool the pseudo labels of each image by the student's head from the teacher's features, as published."""
        maps = self.student.pool(output.features, [each.boxes for each in labels])
        return list(maps.split([len(each.labels) for each in labels]))

    def _remember(self, seen: list[tuple[Tensor, Tensor]]) -> None:
        """Let the memory take in maps and classes of several images, or keep them for ``exchange``."""
        maps, classes = (torch.cat(parts) for parts in zip(*seen, strict=True))
        if distributed.world_size() == 1:
            self.memory.take_in(maps, classes, self.mapping)
        else:
            self._seen = maps.to(self.memory.bank.maps.dtype), classes

    def _anchors(self, output: TeacherOutput, row: int, labels: Targets, index: int) -> Anchors:
        settings = self.student.settings
        return find_anchors(
            output.proposals[row].boxes,
            labels,
            self.student.num_classes,
            count=int(settings.roi_batch * settings.roi_positive_fraction),
            generator=torch.Generator().manual_seed(key("anchors", self.seed, self.step, index)),
        )

    @torch.no_grad()
    def _categories(
        self, output: TeacherOutput, row: int, anchors: Anchors, memory: ClassMemory, held: Tensor
    ) -> Categorised:
        """Choose the categories of an image's proposals; ``held`` are the maps ``(B, C, 7, 7)`` of the bank."""
        mapped, logits = self.mapping(output.maps[row]), output.logits[row]
        clusters = cluster_by_prototypes(mapped, logits, memory.prototypes, anchors, self.wscol)
        share = self.step / (self.steps_per_epoch * max(1, self.wscol.warm_epochs))
        plain: Clusters | None = None
        if self.wscol.warm_epochs and share < 1:
            embedded = self._teacher.embed(held)
            plain = plain_cluster(
                torch.cat([output.embedded[row], embedded]),
                torch.cat([logits, self._teacher.score(embedded)[0]]),
                anchors,
                steps=self.wscol.warm_steps,
            )
        self._log_ranges(clusters, plain)
        return Categorised(mapped=mapped, labels=categories(clusters, anchors, plain, share))

    def _category_terms(
        self, output: TeacherOutput, row: int, own: StudentRegions, chosen: Categorised
    ) -> dict[str, Tensor]:
        """Compute the divergence from the teacher, and the contrast between categories."""
        settings, proposals = self.wscol, output.proposals[row]
        variance = proposal_variance(proposals.boxes, proposals.objectness, settings.objectness)
        self.metrics["proposal_variance"] = variance
        background = self.student.num_classes
        contrast = category_contrast(own.mapped, chosen.mapped, chosen.labels, background, variance, settings)
        divergence = consistency_loss(own.logits, output.logits[row])
        return {
            "loss_consistency": settings.consistency_weight * divergence,
            "loss_contrast": settings.contrast_weight * contrast,
        }

    def _view_terms(self, own: StudentRegions, anchors: Anchors, num_objects: int) -> dict[str, Tensor]:
        """Compute what compares both views of the student, where the settings ask for it."""
        settings = self.wscol
        terms = {}
        if own.weak_mapped is not None:
            loss = instance_loss(
                own.weak_mapped,
                own.mapped,
                anchors.instances,
                num_objects,
                temperature=settings.temperature,
                as_released=settings.released_instance_ids,
            )
            terms["loss_instance"] = settings.instance_weight * loss
        if own.weak_maps is not None and settings.gradient_weight:
            chosen = anchors.sampled.nonzero().squeeze(1)
            if len(chosen):
                loss = self._gradient_term(own.weak_maps[chosen], own.maps[chosen], anchors.labels[chosen])
                terms["loss_gradient"] = settings.gradient_weight * loss
        return terms

    def _gradient_term(self, weak: Tensor, strong: Tensor, labels: Tensor) -> Tensor:
        """Compare the gradients of the anchors' maps ``(K, C, 7, 7)`` of both views; the box predictor is constant."""
        with full_float32(weak.device):
            of_weak, of_strong = (
                functional.cross_entropy(self.student.classify(self.mapping.hidden(maps.float())), labels)
                for maps in (weak.detach(), strong)
            )
            parameters = self.mapping.hidden_parameters()
            return grad_consistency(of_weak, of_strong, parameters, masks_zero_rows=self.wscol.mask_zero_rows)

    def _log_ranges(self, mapped: Clusters, plain: Clusters | None) -> None:
        """Log the ranges of both distances, which the first epochs mix."""
        for name in _RANGES:
            self.metrics.pop(name, None)
        if plain is not None:
            ends = [end for each in (mapped, plain) for end in each.range()]
            self.metrics |= dict(zip(_RANGES, torch.stack(ends).tolist(), strict=True))
