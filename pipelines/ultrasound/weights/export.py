"""Export of a screen or segmenter for other programs: prepared frames in, probabilities out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.ultrasound.data.views import fitted, screen_view, segmenter_view
from pipelines.ultrasound.weights.bundles import GOLDEN_PIXELS, Loaded, Network, ScreenModel, load_network
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Tensors
from vision_core.bundles.export import Exportable

_EXAMPLES, _SIDE = 2, 128


class Probabilities(nn.Module):
    """Networks with their mean probability as output: of each frame ``(B,)``, or of each pixel ``(B, 1, H, W)``.

    Args:
        networks: Screen or segmenter, or several.
    """

    def __init__(self, *networks: Network) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the probabilities of prepared frames ``(B, 1, H, W)``."""
        found = [network(frames).sigmoid() for network in self.networks]
        return torch.stack(found).mean(0) if len(found) > 1 else found[0]


def exportable(path: Path, size: int | None) -> Exportable:
    """Prepare a network for ``export``, for any number of frames of one size.

    Args:
        path: Bundle of the network.
        size: Side of the frames; None: what the bundle resizes frames to, else 128.

    Raises:
        CheckpointError: It is no sound bundle of this task.
    """
    found = load_network(path)
    height, width = (size, size) if size else _own_size(found)
    is_screen = isinstance(found.model, ScreenModel)
    values = "values from 0 to 1" if is_screen else "each frame minus its mean, divided by its deviation (of n - 1)"
    generator = torch.Generator().manual_seed(0)
    shape = (_EXAMPLES, 1, height, width)
    frames = torch.rand(shape, generator=generator) if is_screen else torch.randn(shape, generator=generator)
    return Exportable(
        module=Probabilities(*found.model.networks),
        inputs={"frames": frames},
        outputs=("probabilities",),
        dynamic={"frames": {0: "batch"}},
        golden=_golden(path, found, (height, width)),
        card=found.card,
        preprocessing=f"Grey frames, resized to {height} x {width} pixels, {values}.",
    )


def _own_size(found: Loaded) -> tuple[int, int]:
    if isinstance(found.model, ScreenModel):
        side = found.model.side_px or _SIDE
        return side, side
    least = max(_SIDE, found.model.least_side)
    return found.model.size_px or (least, least)


@torch.no_grad()
def _golden(path: Path, found: Loaded, size: tuple[int, int]) -> tuple[Tensors, Tensors]:
    """Prepare the golden frame at the size of the file, with the probabilities that the bundle has for it.

    Where it is the size that the bundle itself gives the frame, these are of the stored logits.
    """
    content = bundle.load(path)
    pixels = content.inputs()[GOLDEN_PIXELS].numpy()
    image = fitted(pixels, size)
    view = screen_view(image, 255.0) if isinstance(found.model, ScreenModel) else segmenter_view(image)
    own = found.model.side_px if isinstance(found.model, ScreenModel) else None
    is_stored = size in (pixels.shape, found.model.size_px if not isinstance(found.model, ScreenModel) else (own, own))
    logits = content.outputs()["logits"] if is_stored else found.model.logits(view[None])
    return {"frames": view[None]}, {"probabilities": logits.sigmoid()}
