"""Training steps: MarvelOVD with its baseline, and the class-agnostic generator of proposals."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.ovd.config import Marvel
from pipelines.ovd.detector import OpenDetector
from pipelines.ovd.methods.losses import box_loss, classification_loss
from pipelines.ovd.methods.mining import burn_in_keep, mine, novelty
from pipelines.ovd.methods.reweighting import adaptive_weights, confidence_weights
from pipelines.ovd.regions import OpenTargets, Regions, sample_regions
from pipelines.ovd.views import OpenBatch
from vision_core.detection.model.detector import Detector, Features, Targets
from vision_core.randomness import key
from vision_core.training.learner import Learner
from vision_core.training.mean_teacher import MeanTeacher

_ONE_CLASS = 0  # label of everything, for a generator


class OpenLearner(Learner):
    """Training on base boxes and pseudo-labels: MarvelOVD, and with its switches off VL-PLM.

    As published there is no second network: the weights of the step judge candidates and regions on the weak view,
    without gradient. With ``marvel.ema_keep_rate`` an average of them judges, and is not delivered.

    Args:
        detector: The detector.
        is_novel: Whether each class is novel, in the order of the logits.
        settings: The method; as released if None.
        seed: Key of the draws of anchors and regions.
    """

    def __init__(
        self, detector: OpenDetector, is_novel: Sequence[bool], settings: Marvel | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.detector = detector
        self.marvel = settings or Marvel()
        self.seed = seed
        self.register_buffer("is_novel", torch.tensor(is_novel), persistent=False)
        self.is_novel: Tensor
        keep_rate = self.marvel.ema_keep_rate
        self.teacher = None if keep_rate is None else MeanTeacher(detector)
        self.teacher_moves = "step" if self.teacher else None

    def training_step(self, batch: OpenBatch) -> dict[str, Tensor]:
        """Compute the losses of anchors and regions, each a mean over all views."""
        views = [*batch.weak, *batch.strong] if self.marvel.weak_strong else batch.weak
        features = self.detector.features(
            views
        )  # with FrozenBN and no dropout the weak half is what a pass alone gives
        weak = self._judged(features, batch.weak)
        chosen = self._choose(weak, [self._marked(each) for each in batch.targets])
        targets = chosen * (len(views) // len(batch.weak))
        keys = self._keys(batch.indices, len(views))
        losses, proposals = self.detector.anchor_losses(
            features, [each.plain() for each in targets], [anchor for anchor, _ in keys]
        )
        regions = [
            sample_regions(
                *pair,
                self.detector.settings,
                self.detector.num_classes,
                stratified=self.marvel.stratified,
                iou=self.marvel.roi_iou,
                seed=seed,
            )
            for pair, (_, seed) in zip(zip(proposals, targets, strict=True), keys, strict=True)
        ]
        return losses | self._region_losses(features, weak, regions)

    @torch.no_grad()
    def learned_boxes(self, features: Features, batch: OpenBatch) -> list[OpenTargets]:
        """Choose base boxes and candidates that a step would learn now, from features of the weak views."""
        return self._choose(self._judged(features, batch.weak), [self._marked(each) for each in batch.targets])

    def after_step(self, step: int) -> None:
        """Move the average, if there is one; until the end of the burn-in it is a copy."""
        if self.teacher:
            self.teacher.update(self.detector, 0.0 if self.is_burn_in else self.marvel.ema_keep_rate or 0.0)

    def product(self) -> OpenDetector:
        """Return the detector."""
        return self.detector

    @property
    def _judge(self) -> OpenDetector:
        """Return the network that judges candidates and regions."""
        return self.teacher.module if self.teacher else self.detector  # type: ignore[return-value]

    def _judged(self, features: Features, weak: list[Tensor]) -> Features:
        """Return the features of the weak views that candidates and regions are judged by."""
        if self.teacher is None:
            return _first(features, len(weak))
        with torch.no_grad():
            return self._judge.features(weak)

    @property
    def is_burn_in(self) -> bool:
        """Tell whether candidates are still chosen by their image–text score alone."""
        return self.marvel.mining and self.update <= self.marvel.burn_in_last_iter

    def _marked(self, targets: OpenTargets) -> OpenTargets:
        """Mark candidates of score 1 as base boxes, for parity with files that were made in half precision."""
        if not self.marvel.legacy_base_from_confidence:
            return targets
        return OpenTargets(
            boxes=targets.boxes,
            labels=targets.labels,
            is_base=targets.is_base | (targets.confidence >= 1),
            clip_scores=targets.clip_scores,
            confidence=targets.confidence,
        )

    def _choose(self, weak: Features, targets: list[OpenTargets]) -> list[OpenTargets]:
        """Choose the pseudo-labels of the step; base boxes always stay."""
        marvel = self.marvel
        if not marvel.mining:
            return targets
        if self.is_burn_in:
            keeps = [burn_in_keep(each.confidence, each.is_base, marvel.theta_burn) for each in targets]
            return [each.kept(keep) for each, keep in zip(targets, keeps, strict=True)]
        probabilities = self._judge.probabilities(weak, [each.boxes for each in targets])
        mined = [
            mine(
                scores,
                each.clip_scores,
                each.is_base,
                self.is_novel,
                clip_weight=marvel.clip_weight,
                threshold=marvel.delta,
                norm=marvel.novelty_norm,
                min_novelty=marvel.min_novelty,
            )
            for each, scores in zip(targets, probabilities.split([len(each) for each in targets]), strict=True)
        ]
        is_pseudo = ~torch.cat([each.is_base for each in targets])
        score, novel, keep = (
            torch.cat([getattr(each, name) for each in mined]) for name in ("score", "novelty", "keep")
        )
        self._log_mining(is_pseudo, keep, score, novel)
        return [each.kept(verdict.keep, verdict.score) for each, verdict in zip(targets, mined, strict=True)]

    def _log_mining(self, is_pseudo: Tensor, keep: Tensor, score: Tensor, novel: Tensor) -> None:
        kept, dropped = is_pseudo & keep, is_pseudo & ~keep
        values = [
            is_pseudo.sum(),
            kept.sum(),
            *((row * of).sum() for row, of in ((score, kept), (novel, kept), (novel, dropped))),
        ]
        candidates, count, score_sum, kept_sum, dropped_sum = torch.stack([each.float() for each in values]).tolist()
        self.metrics |= {
            "candidates": candidates,
            "mined": count,
            "mined_score": score_sum / max(count, 1),
            "mined_novelty": kept_sum / max(count, 1),
            "dropped_novelty": dropped_sum / max(candidates - count, 1),
        }

    def _keys(self, indices: Sequence[int], count: int) -> list[tuple[int, int]]:
        """Derive seeds of anchor and region sampling, a pair per view; weak and strong ones draw apart."""
        names = [(view // len(indices), indices[view % len(indices)]) for view in range(count)]
        return [
            (key("rpn", self.seed, self.step, index, view), key("roi", self.seed, self.step, index, view))
            for view, index in names
        ]

    def _region_losses(self, features: Features, weak: Features, regions: list[Regions]) -> dict[str, Tensor]:
        sampled = Regions.joined(regions)
        logits, deltas = self.detector.score_boxes(features, [each.boxes for each in regions])
        weights = self._weights(weak, regions, sampled, logits)
        counted = sampled.labels < self.detector.num_classes
        if self.marvel.box_loss_on == "base":
            counted = counted & ~sampled.is_pseudo
        encoded = self.detector.encode(sampled.boxes, sampled.matched)
        return {
            "loss_cls": classification_loss(logits, sampled.labels, weights),
            "loss_box_reg": box_loss(deltas, encoded, counted, weights if self.marvel.weight_box_loss else None),
        }

    def _weights(self, weak: Features, regions: list[Regions], sampled: Regions, logits: Tensor) -> Tensor:
        """Weigh the regions ``(R,)`` of all views by the labels and, from the weak view, by their background."""
        marvel = self.marvel
        is_adaptive = marvel.reweighting and (marvel.reweight_in_burn_in or not self.is_burn_in)
        if not (is_adaptive or marvel.add_novelty):
            return confidence_weights(sampled.confidence, sampled.is_pseudo)
        seen = self._weak_probabilities(weak, regions, logits)
        weights = (
            adaptive_weights(
                sampled.confidence,
                seen[:, -1],
                sampled.is_pseudo,
                score_weight=marvel.score_weight,
                scale=marvel.weight_scale,
            )
            if is_adaptive
            else confidence_weights(sampled.confidence, sampled.is_pseudo)
        )
        return weights + novelty(seen, self.is_novel) * sampled.is_pseudo if marvel.add_novelty else weights

    def _weak_probabilities(self, weak: Features, regions: list[Regions], logits: Tensor) -> Tensor:
        """Compute probabilities ``(R, K + 1)`` on the weak view; regions of weak views have theirs already."""
        count = len(weak.sizes)
        own = (
            logits[: sum(map(len, regions[:count]))].detach().softmax(dim=1)
            if self.teacher is None
            else self._judge.probabilities(weak, [each.boxes for each in regions[:count]])
        )
        if len(regions) == count:
            return own
        return torch.cat([own, self._judge.probabilities(weak, [each.boxes for each in regions[count:]])])


class ProposalLearner(Learner):
    """Supervised training of a class-agnostic generator on base boxes.

    Args:
        detector: The generator, of one class.
        seed: Key of the draws of anchors and regions.
    """

    def __init__(self, detector: Detector, seed: int = 0) -> None:
        super().__init__()
        self.detector = detector
        self.seed = seed
        self.is_selected = True

    def training_step(self, batch: OpenBatch) -> dict[str, Tensor]:
        """Compute the four detection losses, all base classes taken as one."""
        base = [each.kept(each.is_base) for each in batch.targets]
        targets = [Targets(boxes=each.boxes, labels=torch.full_like(each.labels, _ONE_CLASS)) for each in base]
        keys = [
            (key("rpn", self.seed, self.step, index), key("roi", self.seed, self.step, index))
            for index in batch.indices
        ]
        return self.detector.losses(self.detector.features(batch.weak), targets, keys)

    def product(self) -> Detector:
        """Return the generator."""
        return self.detector


def _first(features: Features, count: int) -> Features:
    """Return the first images of a batch of features, without gradient."""
    maps = {level: each[:count].detach() for level, each in features.maps.items()}
    return Features(maps=maps, sizes=features.sizes[:count])
