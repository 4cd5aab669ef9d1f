"""Masks as pictures: what a policy hides in an image, once, and through training."""

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
    """One picture an image: above its mean masks at the epochs reached, below a sample of each laid over the image."""
    reached = history.reached()
    if not reached:
        return []
    captions, paths = {}, []
    for number, image in enumerate(history.images):
        columns = [_column(image, _one(cells, number), mask, number) for cells in reached.values()]
        path = folder / f"masks-{number}.png"
        write_png(path, beside([_first(image), *columns]))
        paths.append(path)
        epochs = ", ".join(map(str, reached))
        captions[path.name] = (
            f"Image {number}; its mean mask (above) and one sample over it (below) after epochs {epochs}, left to right"
        )
    add_captions(folder, captions)
    return paths


def draw_masks(image: Tensor, cells: BetaCells, mask: NoiseMask, seed: int = 0) -> Picture:
    """An image beside its mean mask, the image under that, and the image under one sample.

    Args:
        image: ``(3, H, W)``, normalised.
        cells: ``(1, grid²)``.
        mask: Makes masks.
        seed: Of the sample.
    """
    mean, sample = mask(cells.mean())[0], mask(cells.sample([key("shown mask", seed)]))[0]
    return beside([as_picture(image), as_grey(mean), as_picture(blend(image, mean)), as_picture(blend(image, sample))])


def as_picture(image: Tensor) -> Picture:
    """A normalised image ``(3, H, W)`` as bytes."""
    values = (image.detach().cpu() * STD + MEAN).clamp(0, 1) * 255
    return values.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def as_grey(mask: Tensor) -> Picture:
    """A mask ``(1, H, W)`` from black for 0 to white for 1."""
    values = (mask.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return values.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def beside(panels: list[Picture]) -> Picture:
    """Pictures of equal height in a row."""
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def add_captions(folder: Path, captions: Mapping[str, str]) -> None:
    """Write captions beside those that the folder has."""
    path = folder / _CAPTIONS
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_atomic(path, json.dumps({**known, **captions}, indent=1, ensure_ascii=False))


def _column(image: Tensor, cells: BetaCells, mask: NoiseMask, number: int) -> Picture:
    sample = mask(cells.sample([key("shown mask", number)]))[0]
    return _stacked(as_grey(mask(cells.mean())[0]), as_picture(blend(image, sample)))


def _first(image: Tensor) -> Picture:
    shown = as_picture(image)
    return _stacked(shown, np.full_like(shown, 255))


def _stacked(above: Picture, below: Picture) -> Picture:
    gap = np.full((_GAP_PX, above.shape[1], 3), 255, np.uint8)
    return np.concatenate([above, gap, below])


def _one(cells: BetaCells, number: int) -> BetaCells:
    return BetaCells(log_alpha=cells.log_alpha[number : number + 1], log_beta=cells.log_beta[number : number + 1])
