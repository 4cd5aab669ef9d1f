"""Masks behind the gate: of a segmenter from a bundle, or of another tool from a folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.ultrasound.data.formats.cines import stem_of
from pipelines.ultrasound.data.formats.folders import read_mask
from pipelines.ultrasound.weights.bundles import TASK, Frames, SegmentModel, load_network, quicken, raw_outputs
from vision_core.bundles import bundle
from vision_core.bundles.bundle import check_golden
from vision_core.bundles.card import CARD_FILE
from vision_core.errors import InputError, UsageError
from vision_core.images.reading import is_image_name
from vision_core.segmentation.postprocess import mean_of_members, to_mask

_FRAME = re.compile(r"(?P<name>.+?)(#(?P<number>\d+))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Masks of frames.

    Attributes:
        masks: ``(n, H, W)``, one region each or none.
        confidence: ``(n,)`` float32, mean probability in the region; NaN without one, or where it is not known.
        probabilities: ``(n, H, W)`` float32; None where they are not known.
    """

    masks: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None


class Masking(Protocol):
    """Source of masks; ``identity`` names it in results."""

    @property
    def identity(self) -> str:
        """Return a short name for results."""

    def __call__(self, frames: Frames, texts: Sequence[str]) -> Masks:
        """Make the masks of frames of one size; ``texts`` are their names.

        Raises:
            InputError: A frame is too small, or has no mask in the folder.
        """


class ModelMasks:
    """Masks of a segmenter, or of several: the largest component where their mean probability is above one half.

    Args:
        members: The segmenters.
        identity: Their name.
        trained_on: Hashes of the frames that they were trained on.
    """

    def __init__(
        self, *members: SegmentModel, identity: str = "this run", trained_on: frozenset[str | None] = frozenset()
    ) -> None:
        self.members, self.identity, self.trained_on = members, identity, trained_on

    def __call__(self, frames: Frames, texts: Sequence[str]) -> Masks:
        """Compute the masks of frames of one size."""
        return masks_of(mean_of_members([member(frames) for member in self.members]))


class FolderMasks:
    """Masks of another tool, as images named after the frames: ``cine_003.png`` is of frame 3 of ``cine.dcm``.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.identity = folder, f"masks in '{folder.name}'"

    def __call__(self, frames: Frames, texts: Sequence[str]) -> Masks:
        """Read the masks of frames; they are taken as they are."""
        masks = np.stack([self._read(text, image.shape) for text, image in zip(texts, frames.images, strict=True)])
        return Masks(masks=masks, confidence=np.full(len(masks), np.nan, np.float32))

    def _read(self, text: str, size: tuple[int, ...]) -> NDArray[np.bool_]:
        names = mask_names(text)
        there = [path for name in names if (path := self.folder / name).is_file()]
        if not there:
            raise InputError(f"segment='{self.folder}' has no '{names[0]}', the mask of '{text}'. Add it.")
        if len(there) > 1:
            raise InputError(
                f"segment='{self.folder}' has '{names[0]}' and '{names[1]}' of '{text}'. Keep one of them."
            )
        return read_mask(there[0], size)


def masks_of(probabilities: NDArray[np.float32]) -> Masks:
    """Make the masks of probabilities ``(n, H, W)``: the largest component above one half of each."""
    masks = np.stack([to_mask(each) for each in probabilities])
    return Masks(masks=masks, confidence=_means(probabilities, masks), probabilities=probabilities)


def open_masking(path: Path, device: torch.device) -> Masking:
    """Open a segmenter's bundle, the runs of several as an ensemble, or a folder of masks.

    Raises:
        CheckpointError: It is no sound bundle of a segmenter, or computes something else here.
        UsageError: The folder holds none of these.
    """
    if not path.is_dir() or (path / CARD_FILE).exists():
        return _of_bundles([path], device)
    if runs := sorted(card.parent for card in path.glob(f"*/model/{CARD_FILE}")):
        return _of_bundles(runs, device)
    if not any(is_image_name(each.name) for each in path.rglob("*")):
        raise UsageError(f"segment='{path}' holds neither {CARD_FILE}, runs, nor masks as images. Give one of these.")
    return FolderMasks(path)


def _of_bundles(paths: Sequence[Path], device: torch.device) -> ModelMasks:
    loaded = [load_network(path, device, "segmenter") for path in paths]
    for path, each in zip(paths, loaded, strict=True):  # the bundle of --checkpoint alone is proven by the verb
        check_golden(bundle.load(path, TASK), partial(raw_outputs, each.model))
        quicken(each.model)
    members = [each.model for each in loaded if isinstance(each.model, SegmentModel)]
    identity = loaded[0].card.identity()
    return ModelMasks(
        *members,
        identity=f"{identity} and {len(loaded) - 1} more" if len(loaded) > 1 else identity,
        trained_on=frozenset(each.card.trained_on.manifest for each in loaded),
    )


def mask_names(text: str) -> list[str]:
    """Name the mask of a frame as that of a training, but for the observer: ``a/cine.dcm#3`` has ``a/cine_003.png``.

    ``frame_0001_002`` has its own name, and a first frame may go without its number, as in a training: prediction calls
    that of a single one ``a/still.dcm``, a list ``a/still.dcm#0``.
    """
    found = _FRAME.fullmatch(text)
    assert found is not None
    folder, slash, name = found["name"].rpartition("/")
    stem = f"{folder}{slash}{stem_of(name)}"
    if found["number"] is None:
        return [f"{stem}.png", *([] if is_image_name(name) or stem == text else [f"{stem}_000.png"])]
    return [f"{stem}_{int(found['number']):03d}.png", *([] if int(found["number"]) else [f"{stem}.png"])]


def _means(probabilities: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    pairs = zip(probabilities, masks, strict=True)
    return np.array([each[mask].mean() if mask.any() else np.nan for each, mask in pairs], np.float32)
