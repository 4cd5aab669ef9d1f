"""Training steps: under masks that a policy draws, on clean images, and of a new head alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from pipelines.pretrain.config import POLICY_OPTIM, Alarm, Mixing, PretrainConfig, Reinforce, Released
from pipelines.pretrain.data.mixing import mix
from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.views import Batch
from pipelines.pretrain.noise_mask.alarm import PolicyAlarm
from pipelines.pretrain.noise_mask.beta import unlearned_cells
from pipelines.pretrain.noise_mask.history import MaskHistory
from pipelines.pretrain.noise_mask.mask import NoiseMask, SharedMasks, blend
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
from vision_core.backbones.networks import backbone_spec
from vision_core.config.schema import Optim
from vision_core.randomness import key
from vision_core.training import distributed
from vision_core.training.batch_norms import freeze_norms, share_statistics
from vision_core.training.distributed import own_rows
from vision_core.training.learner import Learner
from vision_core.training.optimizers import Trained


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Classification problem of a learner.

    Attributes:
        backbone: Name of the classifier's network.
        classes: Names in the order of the logits.
        are_independent: Whether an image may have several classes, or none.
        manifest: Hash over the training list.
    """

    backbone: str
    classes: tuple[str, ...]
    are_independent: bool = False
    manifest: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Settings that the learners of all stages share.

    Attributes:
        seed: Seed of mixing and masks.
        mixing: Mixing of pairs of images, and label smoothing.
        freeze_norms: Keep the statistics of all norms fixed.
        epochs: Epochs of the run.
        averaged_epochs: Number of last epochs whose weights are averaged; 0: none.
        is_selected: Whether the best epoch on validation is delivered, not the last.
    """

    seed: int = 0
    mixing: Mixing = field(default_factory=Mixing)
    freeze_norms: bool = False
    epochs: int = 1
    averaged_epochs: int = 0
    is_selected: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Masking:
    """Masks of the first stage, and the objective of their policy.

    Attributes:
        mask: Makes masks from cells.
        policy: Draws the cells; None: the unlearned mask.
        objective: Objective of classifier and policy.
        optim: Optimizer of the policy.
        alarm: Bounds beyond which the policy is stopped.
        concentration: Both Beta concentrations of the unlearned mask.
        history: Records the policy's masks during training.
    """

    mask: NoiseMask
    policy: NoisePolicy | None = None
    objective: Released | Reinforce = field(default_factory=Reinforce)
    optim: Optim = POLICY_OPTIM
    alarm: Alarm = field(default_factory=Alarm)
    concentration: float = 1.6
    history: MaskHistory | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Targets:
    """Targets of the logits.

    Attributes:
        values: ``(B,)`` int64 classes, or ``(B, classes)`` probabilities.
        are_independent: Whether an image may have several classes.
    """

    values: Tensor
    are_independent: bool


class CleanLearner(Learner):
    """Learner on clean images: baseline, fine-tuning, and transfer of the whole network.

    Args:
        classifier: Network with its initial weights: ``(B, 3, H, W)`` to logits ``(B, classes)``.
        goal: Classification problem.
        settings: Settings of the step; None: the defaults.
    """

    def __init__(self, classifier: nn.Module, goal: Goal, settings: StepSettings | None = None) -> None:
        super().__init__()
        self.classifier, self.goal, self.settings = classifier, goal, settings or StepSettings()
        self.is_selected = self.settings.is_selected
        self.has_fixed_sizes = True
        last = self.settings.averaged_epochs
        self.average = RunningMean(classifier, last, self.settings.epochs) if last else None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the mean cross-entropy of the batch."""
        images, targets = self._mixed(batch)
        return {"loss_classifier": self._costs(self.classifier(images), targets).mean()}

    def product(self) -> nn.Module:
        """Return the classifier, or the mean of its last epochs."""
        return self.average.mean(self.classifier) if self.average else self.classifier

    def train(self, mode: bool = True) -> "CleanLearner":
        """Set the training mode; norms keep their statistics where the settings say so."""
        super().train(mode)
        if self.settings.freeze_norms:
            freeze_norms(self)
        return self

    def after_step(self, step: int) -> None:
        """Share the running statistics among all processes."""
        share_statistics(self)

    def after_epoch(self, epoch: int) -> None:
        """Add the weights to the mean if this is one of the last epochs."""
        if self.average:
            self.average.after_epoch(self.classifier, epoch)

    def _mixed(self, batch: Batch) -> tuple[Tensor, _Targets]:
        """Normalise the images ``(B, 3, H, W)`` and mix pairs of them with their labels."""
        mixing, labels = self.settings.mixing, batch.labels
        images = batch.images if batch.images.is_floating_point() else normalise(batch.images)
        are_independent = labels.ndim == 2
        if mixing.mixup or mixing.cutmix:
            shares = (labels if are_independent else one_hot(labels, len(self.goal.classes))).to(images.dtype)
            images, labels = mix(images, shares, mixing, self._key("mixing", distributed.rank()))
        return images, _Targets(values=labels, are_independent=are_independent)

    def _costs(self, logits: Tensor, targets: _Targets) -> Tensor:
        """Compute the cost of each image ``(B,)``: cross-entropy, or its mean over independent classes."""
        smoothing = self.settings.mixing.label_smoothing
        if not targets.are_independent:
            return image_costs(logits, targets.values, smoothing)
        smooth = targets.values.float() * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits.float(), smooth, reduction="none").mean(dim=1)

    def _key(self, *parts: object) -> int:
        return key(*parts, self.settings.seed, self.step)


class HeadLearner(CleanLearner):
    """Learner of a linear probe: only the head trains, on features of the network in inference mode.

    Args:
        classifier: Network with its new head.
        goal: Classification problem.
        head: Name of the head within the network.
        settings: Settings of the step; None: the defaults.
    """

    def __init__(self, classifier: nn.Module, goal: Goal, head: str, settings: StepSettings | None = None) -> None:
        super().__init__(classifier.requires_grad_(False), goal, settings)
        self.classifier.get_submodule(head).requires_grad_(True)

    def train(self, mode: bool = True) -> "HeadLearner":
        """Set the training mode; the network stays in inference mode."""
        super().train(mode)
        self.classifier.eval()
        return self


class PretrainLearner(CleanLearner):
    """Learner of classifier and policy: the policy draws masks, the classifier learns on the masked images.

    The equations of a step stand in ``NoisePolicy`` (1) to (3), ``NoiseMask`` (4), (5), and ``noise_mask.objectives``
    (6), (7).

    Args:
        classifier: Network with its initial weights: ``(B, 3, H, W)`` to logits ``(B, classes)``.
        goal: Classification problem.
        masking: Masks, policy and objective.
        settings: Settings of the step; None: the defaults.
    """

    def __init__(
        self, classifier: nn.Module, goal: Goal, masking: Masking, settings: StepSettings | None = None
    ) -> None:
        super().__init__(classifier, goal, settings)
        self.masking = masking
        self.mask, self.noise = masking.mask, masking.policy
        self.baseline = CostBaseline(masking.objective if isinstance(masking.objective, Reinforce) else Reinforce())
        self.alarm = PolicyAlarm(masking.alarm)
        self.history = masking.history
        if self.history and self.noise:
            self.history.record(self.noise, epoch=0)

    def trained(self, optim: Optim) -> Sequence[Trained]:
        """List classifier and policy, each with its own optimizer and schedule."""
        parts = [Trained(name="classifier", module=self.classifier, optim=optim)]
        if self.noise:
            parts.append(Trained(name="policy", module=self.noise.network, optim=self.masking.optim))
        return parts

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of classifier and policy; without a sound policy, that of the classifier alone."""
        images, targets = self._mixed(batch)
        seeds = [self._key("mask", index) for index in batch.indices.tolist()]
        objective = self.masking.objective
        if self.noise and not self.alarm.is_stopped:
            drawn = self.noise.draw(images, seeds)
            costs = self._costs(self.classifier(blend(images, self.mask(drawn.sample))), targets)
            if isinstance(objective, Released):
                losses = self._released_losses(drawn, costs, objective)
            else:
                losses = self._reinforce_losses(drawn, costs, objective)
            if not self._has_failed(drawn, costs, losses):
                return losses
            del drawn, costs, losses  # their graph would be held through the second forward pass
        unlearned = draw_unlearned(images, seeds, self.mask.grid, self.masking.concentration)
        cost = self._costs(self.classifier(blend(images, self.mask(unlearned.sample))), targets).mean()
        if isinstance(objective, Released) and objective.scale_classifier:
            # After an alarm the classifier keeps its effective learning rate.
            cost = cost * mean_log_total_density(unlearned.log_density())
        return {"loss_classifier": cost}

    def after_epoch(self, epoch: int) -> None:
        """Add the weights to the mean, and record the masks of the probes."""
        super().after_epoch(epoch)
        if self.history and self.noise and not self.alarm.is_stopped:
            self.history.record(self.noise, epoch)

    def shared_masks(self) -> SharedMasks:
        """Return the masks of the running bases; without a sound policy, the unlearned ones."""
        if self.noise and not self.alarm.is_stopped:
            cells = self.noise.bases.cells().clamped()
        else:
            row = self.mask.matrix.new_empty(1)
            cells = unlearned_cells(self.masking.concentration, row, self.mask.grid**2)
        return SharedMasks(cells=cells, mask=self.mask)

    def _released_losses(self, drawn: MaskSample, costs: Tensor, settings: Released) -> dict[str, Tensor]:
        log_densities = drawn.log_density()
        global_means = None
        if distributed.world_size() > 1:
            rows = torch.stack([costs, log_densities.logsumexp(dim=1)], dim=1).detach()
            mean_cost, mean_density = distributed.gather(rows).mean(dim=0)
            global_means = mean_cost, mean_density
        density = mean_log_total_density(log_densities)
        return released_losses(costs.mean(), density, global_means, scale_classifier=settings.scale_classifier)

    def _reinforce_losses(self, drawn: MaskSample, costs: Tensor, settings: Reinforce) -> dict[str, Tensor]:
        gathered = distributed.gather(costs.detach())
        gains = advantages(gathered, self.baseline(gathered), normalise=settings.normalise)
        self.baseline.update(gathered)
        return reinforce_losses(costs, drawn.cells, drawn.log_density(), own_rows(gains, len(costs)), settings)

    def _has_failed(self, drawn: MaskSample, costs: Tensor, losses: dict[str, Tensor]) -> bool:
        """Stop the policy on all processes if it has failed on one.

        All values are read from the device at once.
        """
        has_finite_loss = costs.isfinite().all() & losses["loss_policy"].isfinite()
        values = torch.stack([drawn.entropy().double(), *(each.double() for each in (
            drawn.is_finite, has_finite_loss, drawn.num_clamped, costs.mean(), drawn.cells.mean().mean()
        ))]).tolist()  # fmt: skip
        entropy, is_output_finite, is_loss_finite, clamped, cost, mean_cell = values
        reason = self.alarm.stop_reason(
            entropy, is_output_finite=bool(is_output_finite), is_loss_finite=bool(is_loss_finite)
        )
        if distributed.any_of([bool(reason)], costs.device)[0]:
            self._stop(reason or "it failed in another process")
            return True
        self.metrics = {"policy_entropy": entropy, "cost": cost, "mean_cell": mean_cell, "moved_entries": clamped}
        return False

    @torch.no_grad()
    def _stop(self, reason: str) -> None:
        self.alarm.is_stopped = True
        # Several processes touch every parameter in every step, and NaN times 0 is NaN.
        for parameter in self.noise.network.parameters() if self.noise else ():
            parameter.copy_(torch.where(parameter.isfinite(), parameter, 0.0))
        self.metrics = {}
        self.notes.append(
            f"ALARM: the policy was stopped at step {self.step}: {reason}. From there on the classifier was trained "
            "under the unlearned mask: this run is no evidence about the policy. Lower policy_optim.lr, or choose "
            "another policy."
        )


def make_learner(
    config: PretrainConfig, classifier: nn.Module, goal: Goal, probes: Tensor | None = None
) -> CleanLearner:
    """Make the learner of a configuration's stage.

    Args:
        config: Configuration of one run.
        classifier: Network with its initial weights.
        goal: Classification problem.
        probes: Images ``(K, 3, H, W)``, normalised, whose masks are recorded during training.
    """
    settings = StepSettings(
        seed=config.train.seed,
        mixing=config.mixing,
        freeze_norms=config.freeze_norms,
        epochs=config.train.epochs,
        averaged_epochs=config.averaging.last_epochs,
        is_selected=config.method == "transfer",
    )
    if config.method == "transfer" and config.transfer.parts == ("linear",):
        return HeadLearner(classifier, goal, backbone_spec(goal.backbone).classifier, settings)
    if not config.is_masked:
        return CleanLearner(classifier, goal, settings)
    grid, policy, history = config.mask.grid, None, None
    if config.policy != "unlearned":
        policy = NoisePolicy(grid, config.policy_input, share=config.bases.share, keep_rate=config.bases.keep_rate)
        history = MaskHistory(probes, grid, config.train.epochs) if probes is not None else None
    masking = Masking(
        mask=NoiseMask.from_settings(config.mask, config.data.image_px),
        policy=policy,
        objective=config.released if config.policy == "released" else config.reinforce,
        optim=config.policy_optim,
        alarm=config.alarm,
        concentration=config.mask.unlearned_concentration,
        history=history,
    )
    return PretrainLearner(classifier, goal, masking, settings)
