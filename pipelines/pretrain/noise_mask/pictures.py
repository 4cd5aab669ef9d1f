"""Pictures of masks: of one image, and of the recorded images during training."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.pretrain.data.preprocessing import MEAN, STD
from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.history import MaskHistory
from pipelines.pretrain.noise_mask.mask import NoiseMask, blend
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.randomness import key

_GAP_PX = 4
_CAPTIONS = "captions.json"

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


def draw_history(history: MaskHistory, mask: NoiseMask, folder: Path) -> list[Path]:
    """Write one picture per recorded image, with captions.

    Its columns are the epochs: the mean mask, and below it the image under one sample.
    """
    recorded = history.recorded()
    if not recorded:
        return []
    captions, paths = {}, []
    for number, image in enumerate(history.images):
        shown = as_picture(image)
        columns = [_stacked(shown, np.full_like(shown, 255))]
        for cells in recorded.values():
            own = BetaCells(log_alpha=cells.log_alpha[[number]], log_beta=cells.log_beta[[number]])
            sample = mask(own.sample([key("shown mask", number)]))[0]
            columns.append(_stacked(as_grey(mask(own.mean())[0]), as_picture(blend(image, sample))))
        path = folder / f"masks-{number}.png"
        write_png(path, _joined(columns))
        paths.append(path)
        epochs = ", ".join(map(str, recorded))
        captions[path.name] = (
            f"Image {number}; its mean mask (above) and one sample over it (below) after epochs {epochs}, left to right"
        )
    add_captions(folder, captions)
    return paths


def draw_masks(image: Tensor, cells: BetaCells, mask: NoiseMask, seed: int = 0) -> Picture:
    """Draw an image, its mean mask, the image under that, and the image under one sample, side by side.

    Args:
        image: ``(3, H, W)``, normalised.
        cells: ``(1, grid²)``.
        mask: Makes masks from cells.
        seed: Seed of the sample.
    """
    mean, sample = mask(cells.mean())[0], mask(cells.sample([key("shown mask", seed)]))[0]
    return _joined([as_picture(image), as_grey(mean), as_picture(blend(image, mean)), as_picture(blend(image, sample))])


def as_picture(image: Tensor) -> Picture:
    """Convert a normalised image ``(3, H, W)`` to bytes."""
    values = (image.detach().cpu() * STD + MEAN).clamp(0, 1) * 255
    return values.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def as_grey(mask: Tensor) -> Picture:
    """Convert a mask ``(1, H, W)`` to grey values, black for 0 and white for 1."""
    values = (mask.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return values.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def add_captions(folder: Path, captions: Mapping[str, str]) -> None:
    """Add captions to those of the folder."""
    path = folder / _CAPTIONS
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_atomic(path, json.dumps({**known, **captions}, indent=1, ensure_ascii=False))


def _joined(panels: list[Picture]) -> Picture:
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def _stacked(above: Picture, below: Picture) -> Picture:
    gap = np.full((_GAP_PX, above.shape[1], 3), 255, np.uint8)
    return np.concatenate([above, gap, below])
