"""A detector as other programs take it: one image of a fixed size in, boxes out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from vision_core.bundles.export import Exportable
from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.bundles import load_detector
from vision_core.errors import UsageError
from vision_core.randomness import key

_SIDE_PX, _LEAST_PX = 512, 64
_BLOCKS = (2, 8, 32)  # an example is noise of that many cells a side, enlarged


class Boxes(nn.Module):
    """A detector with its normalisation, for an image that has its size already."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes ``(K, 4)``, scores ``(K,)`` and labels ``(K,)`` of an RGB image ``(3, side, side)``, 0 to 255."""
        [found] = self.detector.detect(self.detector.features([image]))
        return found.boxes, found.scores, found.labels


def exportable_detector(path: Path, task: str, size: int | None) -> Exportable:
    """What ``export`` writes of a detector's bundle, for ONNX alone.

    Args:
        path: The bundle.
        task: The pipeline that wants it.
        size: Side of the square image; None: the shortest edge of the bundle's settings, or 512 px.

    Raises:
        UsageError: Too small an image.
        CheckpointError: As for ``load_detector``.
    """
    detector, card = load_detector(path, task)
    side = size or detector.settings.shortest_edge_px or _SIDE_PX
    if side < _LEAST_PX:
        raise UsageError(f"--size '{side}': an image of at least {_LEAST_PX} px is expected.")
    first, *others = ({"image": _example(side, cells)} for cells in _BLOCKS)
    return Exportable(
        module=Boxes(detector),
        inputs=first,
        outputs=("boxes", "scores", "labels"),
        dynamic={name: {0: "found"} for name in ("boxes", "scores", "labels")},
        others=tuple(others),
        is_traced=True,
        card=card,
        preprocessing=f"One RGB image, float32, values 0 to 255, resized or padded to {side} x {side} px; boxes are "
        "x1, y1, x2, y2 in its pixels (--size N fixes another side).",
    )


def _example(side: int, cells: int) -> Tensor:
    generator = torch.Generator().manual_seed(key("export", cells))
    noise = torch.randint(0, 256, (1, 3, cells, cells), generator=generator).float()
    return nn.functional.interpolate(noise, size=(side, side), mode="nearest")[0]
