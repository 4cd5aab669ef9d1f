"""The training steps: under masks that a policy draws, on clean images, and of a new head alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.mixing import mix
from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.views import Batch
from pipelines.pretrain.noise_mask.alarm import PolicyAlarm
from pipelines.pretrain.noise_mask.beta import unlearned_cells
from pipelines.pretrain.noise_mask.history import MaskHistory
from pipelines.pretrain.noise_mask.mask import MaskSource, NoiseMask, blend
from pipelines.pretrain.noise_mask.objectives import (
    CostBaseline,
    advantages,
    image_costs,
    mean_log_total_density,
    reinforce_losses,
    released_losses,
)
from pipelines.pretrain.noise_mask.policy import MaskSample, NoisePolicy, draw_unlearned
from pipelines.pretrain.weight_averaging import RunningMean
from vision_core.config.schema import Optim
from vision_core.randomness import key
from vision_core.training import distributed
from vision_core.training.batch_norms import freeze_norms, share_statistics
from vision_core.training.distributed import own_rows
from vision_core.training.learner import Learner
from vision_core.training.optimizers import Trained


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a classifier learns to tell apart.

    Attributes:
        backbone: Name of the classifier's network.
        classes: In the order of its logits.
        are_independent: Whether an image may have several, or none.
        manifest: Hash over the training list.
    """

    backbone: str
    classes: tuple[str, ...]
    are_independent: bool = False
    manifest: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Targets:
    """What the logits should say.

    Attributes:
        values: ``(B,)`` int64 classes, or ``(B, classes)`` shares.
        are_many: Whether each class is a question of its own, not one among all.
    """

    values: Tensor
    are_many: bool


class CleanLearner(Learner):
    """The classifier on clean images: the baseline, fine-tuning, and transfer of the whole network.

    Args:
        config: Mixing, averaging, norms; the seed.
        classifier: With its starting weights.
        goal: What it learns.
    """

    def __init__(self, config: PretrainConfig, classifier: nn.Module, goal: Goal) -> None:
        super().__init__()
        self.config, self.classifier, self.goal = config, classifier, goal
        self.is_selected = config.method == "transfer"
        last = config.averaging.last_epochs
        self.average = RunningMean(classifier, last, config.train.epochs) if last else None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """The mean cross-entropy of the batch."""
        images, targets = self._mixed(batch)
        return {"loss_classifier": self._costs(self.classifier(images), targets).mean()}

    def product(self) -> nn.Module:
        """The classifier, or the mean of its last epochs."""
        return self.average.mean(self.classifier) if self.average else self.classifier

    def train(self, mode: bool = True) -> "CleanLearner":
        """Training mode; norms keep their statistics where the settings say so."""
        super().train(mode)
        if self.config.freeze_norms:
            freeze_norms(self)
        return self

    def after_step(self, step: int) -> None:
        """All processes hold the same running statistics."""
        share_statistics(self)

    def after_epoch(self, epoch: int) -> None:
        """The last epochs are added to the mean."""
        if self.average:
            self.average.after_epoch(self.classifier, epoch)

    def _mixed(self, batch: Batch) -> tuple[Tensor, _Targets]:
        mixing, labels = self.config.mixing, batch.labels
        images = batch.images if batch.images.is_floating_point() else normalise(batch.images)
        are_many = labels.ndim == 2
        if mixing.mixup or mixing.cutmix:
            shares = (labels if are_many else one_hot(labels, len(self.goal.classes))).to(images.dtype)
            images, labels = mix(images, shares, mixing, self._key("mixing", distributed.rank()))
        return images, _Targets(values=labels, are_many=are_many)

    def _costs(self, logits: Tensor, targets: _Targets) -> Tensor:
        """Cost of each image ``(B,)``: cross-entropy, or the mean over its labels where it may have several."""
        smoothing = self.config.mixing.label_smoothing
        if not targets.are_many:
            return image_costs(logits, targets.values, smoothing)
        smooth = targets.values.float() * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits.float(), smooth, reduction="none").mean(dim=1)

    def _key(self, *parts: object) -> int:
        return key(*parts, self.config.train.seed, self.step)


class HeadLearner(CleanLearner):
    """Transfer by a linear probe: the head alone trains, on the features of the network at rest.

    Args:
        config: As for ``CleanLearner``.
        classifier: With its new head.
        goal: What it learns.
        head: Name of the head within it.
    """

    def __init__(self, config: PretrainConfig, classifier: nn.Module, goal: Goal, head: str) -> None:
        super().__init__(config, classifier.requires_grad_(False), goal)
        self.classifier.get_submodule(head).requires_grad_(True)

    def train(self, mode: bool = True) -> "HeadLearner":
        """Training mode of the head; all else stays in inference."""
        super().train(mode)
        self.classifier.eval()
        return self


class PretrainLearner(CleanLearner):
    """Classifier and policy learn together: the policy hides, the classifier names what is left.

    Symbols of the step: ``f`` the policy's features, ``m`` the sampled cells, ``x m̃`` the masked images.

    Args:
        config: Objective, mask, bases; ``policy`` is not ``none``.
        classifier: With its starting weights.
        goal: What it learns.
        probes: Images ``(K, 3, H, W)``, normalised, whose masks are kept through training; may be none.
    """

    def __init__(self, config: PretrainConfig, classifier: nn.Module, goal: Goal, probes: Tensor | None = None) -> None:
        super().__init__(config, classifier, goal)
        self.mask = NoiseMask(config.mask, config.data.image_px)
        self.noise = NoisePolicy(config) if config.policy in ("released", "reinforce") else None
        self.baseline = CostBaseline(config.reinforce)
        self.alarm = PolicyAlarm(config.alarm)
        self.history = MaskHistory(config, probes) if self.noise and probes is not None else None
        if self.history and self.noise:
            self.history.record(self.noise, epoch=0)

    def trained(self, optim: Optim) -> Sequence[Trained]:
        """Classifier and policy, each with an optimizer and a schedule of its own."""
        parts = [Trained(name="classifier", module=self.classifier, optim=optim)]
        if self.noise:
            parts.append(Trained(name="policy", module=self.noise.network, optim=self.config.policy_optim))
        return parts

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of classifier and policy; of the classifier alone without a policy, or after it was stopped."""
        images, targets = self._mixed(batch)
        seeds = [self._key("mask", index) for index in batch.indices.tolist()]
        if self.noise and not self.alarm.is_stopped:
            losses = self._learn_both(self.noise, images, targets, seeds)
            if losses:
                return losses
        return self._learn_unlearned(images, targets, seeds)

    def after_epoch(self, epoch: int) -> None:
        """As on clean images; and the masks of the probes are kept."""
        super().after_epoch(epoch)
        if self.history and self.noise and not self.alarm.is_stopped:
            self.history.record(self.noise, epoch)

    def hiding(self) -> MaskSource:
        """How the bases alone hide an image; those of the control where there is no policy."""
        if self.noise and not self.alarm.is_stopped:
            cells = self.noise.bases.current().bounded()
        else:
            row = self.mask.spread.new_empty(1)
            cells = unlearned_cells(self.config.mask.unlearned_concentration, row, self.mask.grid**2)
        return MaskSource(cells=cells, mask=self.mask)

    def _learn_both(
        self, noise: NoisePolicy, images: Tensor, targets: _Targets, seeds: Sequence[int]
    ) -> dict[str, Tensor]:
        """A step of both; nothing when the policy has failed in it."""
        drawn = noise.draw(images, seeds, self.mask)
        costs = self._costs(self.classifier(blend(images, drawn.masks)), targets)
        losses = self._released(drawn, costs) if self.config.policy == "released" else self._reinforced(drawn, costs)
        return {} if self._has_failed(drawn, costs, losses) else losses

    def _released(self, drawn: MaskSample, costs: Tensor) -> dict[str, Tensor]:
        densities = drawn.cells.log_density(drawn.sample)
        everywhere = None
        if distributed.world_size() > 1:
            rows = torch.stack([costs, densities.logsumexp(dim=1)], dim=1).detach()
            mean_cost, mean_density = distributed.gather(rows).mean(dim=0)
            everywhere = mean_cost, mean_density
        return released_losses(
            costs.mean(),
            mean_log_total_density(densities),
            everywhere,
            scale_classifier=self.config.released.scale_classifier,
        )

    def _reinforced(self, drawn: MaskSample, costs: Tensor) -> dict[str, Tensor]:
        settings = self.config.reinforce
        gather_objects = distributed.gather(costs.detach())
        gains = advantages(gather_objects, self.baseline(gather_objects), normalise=settings.normalise)
        self.baseline.update(gather_objects)
        densities = drawn.cells.log_density(drawn.sample)
        return reinforce_losses(costs, drawn.cells, densities, own_rows(gains, len(costs)), settings)

    def _learn_unlearned(self, images: Tensor, targets: _Targets, seeds: Sequence[int]) -> dict[str, Tensor]:
        drawn = draw_unlearned(images, seeds, self.mask, self.config.mask.unlearned_concentration)
        cost = self._costs(self.classifier(blend(images, drawn.masks)), targets).mean()
        if self.config.policy == "released" and self.config.released.scale_classifier:
            # After an alarm the classifier keeps the learning rate that it had in effect.
            cost = cost * mean_log_total_density(drawn.cells.log_density(drawn.sample))
        return {"loss_classifier": cost}

    def _has_failed(self, drawn: MaskSample, costs: Tensor, losses: dict[str, Tensor]) -> bool:
        """Whether any process has to stop its policy; then all do. One look at the device for all that is asked."""
        has_reward = costs.isfinite().all() & losses["loss_policy"].isfinite()
        facts = torch.stack([drawn.entropy().double(), *(each.double() for each in (
            drawn.is_finite, has_reward, drawn.num_moved, costs.mean(), drawn.cells.mean().mean()
        ))]).tolist()  # fmt: skip
        entropy, is_finite, is_rewarded, moved, cost, mean_cell = facts
        reason = self.alarm.reason(entropy, is_finite=bool(is_finite), has_reward=bool(is_rewarded))
        if distributed.any_of([bool(reason)], costs.device)[0]:
            self._stop(reason or "it failed in another process")
            return True
        self.metrics = {"policy_entropy": entropy, "cost": cost, "mean_cell": mean_cell, "moved_entries": moved}
        return False

    @torch.no_grad()
    def _stop(self, reason: str) -> None:
        self.alarm.is_stopped = True
        # Several processes touch every parameter in every step, and NaN times 0 is NaN.
        for parameter in self.noise.network.parameters() if self.noise else ():
            parameter.copy_(torch.where(parameter.isfinite(), parameter, 0.0))
        self.metrics = {}
        self.notes.append(
            f"ALARM: the policy was stopped at step {self.step}: {reason}. From there on the classifier learnt under "
            "the unlearned mask: this run says nothing of the policy. Lower policy_optim.lr, or choose another policy."
        )
