"""Training steps: a screen learns whether a frame shows the organ, a segmenter where it is."""

import torch.nn.functional as F
from torch import Tensor

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.items import Batch
from pipelines.ultrasound.screening.screen import Screen
from vision_core.segmentation.losses import segmentation_losses
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import SegmentationLoss
from vision_core.training import distributed
from vision_core.training.batch_norms import share_statistics
from vision_core.training.learner import Learner


class FrameLearner(Learner):
    """Learner of one network on frames of one size; the best epoch on validation is delivered.

    Args:
        network: Screen or segmenter with its initial weights.
    """

    def __init__(self, network: Screen | ResidualUNet) -> None:
        super().__init__()
        self.network = network
        self.is_selected = self.has_fixed_sizes = True
        self.ties_are_stale = True  # as published: only a strictly better score counts

    def product(self) -> Screen | ResidualUNet:
        """Return the network."""
        return self.network

    def after_step(self, step: int) -> None:
        """Share the running statistics among all processes."""
        share_statistics(self)


class ScreenLearner(FrameLearner):
    """Learner of a screen: cross-entropy of its logit against whether the organ is there."""

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the mean over the batch."""
        logits: Tensor = self.network(batch.frames)
        return {"loss_screen": F.binary_cross_entropy_with_logits(logits.float(), batch.present)}


class SegmentLearner(FrameLearner):
    """Learner of a segmenter: Dice over the batch, and with a frame-aware loss the presence of the organ.

    Args:
        network: Segmenter with its initial weights.
        loss: Settings of the loss.
    """

    def __init__(self, network: ResidualUNet, loss: SegmentationLoss) -> None:
        super().__init__(network)
        self.loss = loss

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms of the loss; Dice is over the frames of all processes."""
        assert batch.targets is not None
        total = distributed.total_with_gradient if distributed.world_size() > 1 else None
        terms = segmentation_losses(self.network(batch.frames), batch.targets, batch.present, self.loss, total)
        return {f"loss_{name}": value for name, value in terms.items()}


def make_learner(config: UltrasoundConfig, network: Screen | ResidualUNet) -> FrameLearner:
    """Make the learner of a configuration's method."""
    if isinstance(network, Screen):
        return ScreenLearner(network)
    return SegmentLearner(network, config.loss)
