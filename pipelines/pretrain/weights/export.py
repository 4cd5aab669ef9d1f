"""A classifier as other programs take it: normalised images in, probabilities out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.pretrain.weights.bundles import load_classifier
from vision_core.bundles.export import Exportable
from vision_core.errors import UsageError

_EXAMPLES = 2


class Probabilities(nn.Module):
    """A classifier with what makes probabilities of its logits.

    Args:
        network: Gives logits ``(B, classes)``.
        are_independent: Whether each class is a question of its own.
    """

    def __init__(self, network: nn.Module, *, are_independent: bool) -> None:
        super().__init__()
        self.network, self.are_independent = network, are_independent

    def forward(self, images: Tensor) -> Tensor:
        """Of normalised ``images`` ``(B, 3, H, W)``: ``(B, classes)``."""
        logits: Tensor = self.network(images)
        return logits.sigmoid() if self.are_independent else logits.softmax(dim=1)


def exportable(path: Path, size: int | None) -> Exportable:
    """What ``export`` writes of a bundle; any number of images of one size.

    Args:
        path: The bundle.
        size: Side of the images; None: as the card says.

    Raises:
        UsageError: The bundle has no classes.
        CheckpointError: It is no sound bundle of a classifier.
    """
    found = load_classifier(path)
    if not found.card.classes:
        raise UsageError(f"'{path}' is a backbone without classes; there are no probabilities to export.")
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
