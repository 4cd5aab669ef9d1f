"""Export of a classifier for other programs: normalised images in, probabilities out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.pretrain.weights.bundles import load_classifier
from vision_core.bundles.export import Exportable
from vision_core.errors import UsageError

_EXAMPLES = 2


class Probabilities(nn.Module):
    """Classifier with probabilities as output: sigmoid or softmax of its logits.

    Args:
        network: ``(B, 3, H, W)`` to logits ``(B, classes)``.
        are_independent: Whether an image may have several classes.
    """

    def __init__(self, network: nn.Module, *, are_independent: bool) -> None:
        super().__init__()
        self.network, self.are_independent = network, are_independent

    def forward(self, images: Tensor) -> Tensor:
        """Compute the probabilities ``(B, classes)`` of normalised ``images`` ``(B, 3, H, W)``."""
        logits: Tensor = self.network(images)
        return logits.sigmoid() if self.are_independent else logits.softmax(dim=1)


def exportable(path: Path, size: int | None) -> Exportable:
    """Prepare a classifier for ``export``, for any number of images of one size.

    Args:
        path: Bundle of the classifier.
        size: Side of the images; None: that of the card.

    Raises:
        UsageError: The bundle has no classes.
        CheckpointError: It is no sound bundle of a classifier.
    """
    found = load_classifier(path)
    if not found.card.classes:
        raise UsageError(f"'{path}' is a backbone without classes; it has no probabilities to export.")
    rules = found.preprocessing
    side = size or rules.input_px
    generator = torch.Generator().manual_seed(0)
    return Exportable(
        module=Probabilities(found.network, are_independent=found.are_independent),
        inputs={"images": torch.randn(_EXAMPLES, 3, side, side, generator=generator)},
        outputs=("probabilities",),
        dynamic={"images": {0: "batch"}},
        card=found.card,
        preprocessing=f"Shorter side to {rules.resize_px} px, centre crop of {side} px, {rules.channel_order.upper()}, "
        f"values {rules.values}, minus {list(rules.mean)}, divided by {list(rules.std)}; one channel is repeated.",
    )
