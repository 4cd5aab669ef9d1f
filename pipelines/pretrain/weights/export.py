"""Export of a classifier for other programs: normalised images in, probabilities out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.pretrain.weights.bundles import GOLDEN_PIXELS, Classifier, load_classifier, prepare
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Tensors
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
        golden=_golden(path, found, side),
        card=found.card,
        preprocessing=f"Shorter side to {rules.resize_px} px, centre crop of {side} px, {rules.channel_order.upper()}, "
        f"values {rules.values}, minus {list(rules.mean)}, divided by {list(rules.std)}; one channel is repeated.",
    )


@torch.no_grad()
def _golden(path: Path, found: Classifier, side: int) -> tuple[Tensors, Tensors]:
    """Prepare the golden picture by the card, with the probabilities of its stored logits.

    At another size than the card's, the logits are those that the bundle computes for it.
    """
    content, rules = bundle.load(path), found.preprocessing
    inputs, logits = content.inputs(), content.outputs()["logits"]
    pixels = inputs.get(GOLDEN_PIXELS)
    if pixels is None:  # format 1: a picture that is prepared already
        image = nn.functional.interpolate(inputs["image"], size=(side, side), mode="nearest")
        is_stored = image.shape == inputs["image"].shape
    else:
        is_stored = side == rules.input_px
        image = prepare(pixels.numpy(), rules.model_copy(update={"input_px": side}))
    logits = logits if is_stored else found.network(image)
    return {"images": image}, {"probabilities": logits.sigmoid() if found.are_independent else logits.softmax(dim=1)}
