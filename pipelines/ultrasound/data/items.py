"""Training sets of frames: each item is a frame, or a subject of which every epoch sees another frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.frames import Frame, one_a_subject
from pipelines.ultrasound.data.lists import FrameList
from pipelines.ultrasound.data.observers import is_present, target
from pipelines.ultrasound.data.views import fitted, screen_view, training_view
from vision_core.randomness import key


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Frames of one step.

    Attributes:
        frames: ``(B, 1, H, W)`` float32 as the network sees them.
        targets: ``(B, 1, H, W)`` float32 in [0, 1]; None for a screen.
        present: ``(B,)`` float32 of 0 and 1: whether the organ is there.
    """

    frames: Tensor
    targets: Tensor | None
    present: Tensor


class TrainingFrames:
    """Frames for training; all draws follow from (seed, epoch, index).

    Args:
        frames: The list.
        indices: Frames of it to train on.
        config: Configuration of the run.
    """

    def __init__(self, frames: FrameList, indices: Sequence[int], config: UltrasoundConfig) -> None:
        self.frames, self.indices, self.config = frames, tuple(indices), config
        rule = config.data.frames_per_subject
        self.is_one_a_subject = rule == "one_random" or (rule == "auto" and frames.has_subjects)
        self._of_epoch = lru_cache(2)(self._drawn)

    def __len__(self) -> int:
        return len(self._of_epoch(0))

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        number = self._of_epoch(epoch)[index]
        frame = self.frames.read(number)
        present = torch.tensor([float(is_present(frame.masks, self.config.labels.presence))])
        if self.config.is_screen:
            view = screen_view(frame.image, frame.white, self.config.screen.side_px)
            return Batch(frames=view[None], targets=None, present=present)
        image, goal = self._pair(frame, (self.config.train.seed, epoch, number))
        return Batch(frames=image[None], targets=goal[None], present=present)

    def names(self, indices: Sequence[int]) -> list[str]:
        """Name frames, or subjects, for messages."""
        names = [self.frames.names[self._of_epoch(0)[index]] for index in indices]
        return [str(each.subject) if self.is_one_a_subject else each.text for each in names]

    def collate(self, items: list[Batch]) -> Batch:
        """Join frames of one size into a batch."""
        targets = [each.targets for each in items if each.targets is not None]
        return Batch(
            frames=torch.cat([each.frames for each in items]),
            targets=torch.cat(targets) if targets else None,
            present=torch.cat([each.present for each in items]),
        )

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_of_epoch"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._of_epoch = lru_cache(2)(self._drawn)

    def _drawn(self, epoch: int) -> list[int]:
        if not self.is_one_a_subject:
            return list(self.indices)
        return one_a_subject(self.frames, self.indices, self.config.train.seed, epoch)

    def _pair(self, frame: Frame, draw: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        labels, size = self.config.labels, self.config.data.size_px
        rng = np.random.default_rng(key("label", *draw))
        goal = target(frame.masks, labels.sampling, rng, labels.consensus_share)
        if size is not None:
            goal = np.asarray(cv2.resize(goal, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
        return training_view(fitted(frame.image, size), goal, self.config.augment, draw)
