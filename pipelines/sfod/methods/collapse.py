"""Detection of a collapsed teacher: from its pseudo labels, and from looks at a few images. No label is read."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.sfod.verdict.numbers import boxes_per_image, mirror_agreement
from pipelines.sfod.verdict.probing import Glance, Prober
from pipelines.sfod.verdict.rule import signs_of_harm
from vision_core.detection.model.detector import Detector
from vision_core.errors import NotFiniteError
from vision_core.training.mean_teacher import MeanTeacher

_COLLAPSE_FACTOR = 10
_FEWEST_BOXES = 10  # of the source on the images that are looked at: fewer come and go by chance
_NOT_KNOWN = -1.0  # as no number of boxes and no agreement is
_NOT_LOOKED_AT = -2.0  # nor will be: the run began before there were looks


@dataclass(frozen=True, kw_only=True)
class Looks:
    """When a run looks at its teacher, and on what.

    Attributes:
        every: Updates from one look to the next.
        load: Reads the images: name and ``(3, H, W)`` uint8 RGB of each, resized as in inference.
        operating_score: Detections from this score on count as boxes.
        noise_floor: How far the agreement with mirrored images may fall; None: it is not judged.
    """

    every: int
    load: Callable[[], Sequence[tuple[str, Tensor]]]
    operating_score: float
    noise_floor: float | None = None

    @cached_property
    def images(self) -> Sequence[tuple[str, Tensor]]:
        """Read the images, once."""
        return self.load()

    def at(self, detector: Detector) -> list[Glance]:
        """Look at a detector; raises ``NotFiniteError`` where an output is NaN or infinite."""
        prober = Prober(detector, self.operating_score)
        return [prober.glance(image, name) for name, image in self.images]


def describe_collapse(first: Tensor, now: Tensor) -> str:
    """Describe the collapse since the first epoch; empty if there is none.

    Args:
        first: ``(classes,)`` pseudo labels of the first epoch, by class.
        now: ``(classes,)`` those of the last epoch, on the same images.
    """
    before, after = int(first.sum()), int(now.sum())
    if before and after * _COLLAPSE_FACTOR <= before:
        return f"pseudo labels fell from {before} in the first epoch to {after}"
    had, has = int((first > 0).sum()), int((now > 0).sum())
    if had > 1 and has == 1 and int(first.max()) < before * (1 - 1 / _COLLAPSE_FACTOR):
        return f"all {after} pseudo labels are of one class, of {had} in the first epoch"
    return ""


class CollapseGuard(nn.Module):
    """Judge of pseudo labels by epoch, and of looks at the teacher, with a copy of the last healthy one.

    Counts and copy are buffers, so that checkpoints hold them. All processes look at the same images, and judge alike.

    Attributes:
        looks: When to look at the teacher; None: its pseudo labels alone are judged.
    """

    def __init__(self, teacher: MeanTeacher, num_classes: int) -> None:
        super().__init__()
        self.before = copy.deepcopy(teacher)
        self.looks: Looks | None = None
        self.first: Tensor
        self.now: Tensor
        self.healthy: Tensor
        self.source: Tensor
        self.register_buffer("first", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("now", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("healthy", torch.ones((), dtype=torch.bool))
        # Boxes an image of the source by class, and their agreement with those of the mirrored images.
        self.register_buffer("source", torch.full((num_classes + 1,), _NOT_KNOWN, dtype=torch.float64))
        self._has_begun = False

    @property
    def is_healthy(self) -> bool:
        """Whether no epoch and no look has found a collapse so far."""
        return bool(self.healthy)

    def count(self, per_class: Tensor) -> None:
        """Add the pseudo labels of a step, ``(classes,)``."""
        self.now += per_class.to(self.now.dtype)

    def begin(self, teacher: Detector) -> None:
        """Look at the source, which the teacher is until it first moves; does nothing later on."""
        if self._has_begun:
            return
        self._has_begun = True
        if self.looks and bool(self.source[0] == _NOT_KNOWN):
            glances = self.looks.at(teacher)
            agreement = mirror_agreement(glances)
            known = [*boxes_per_image(glances), _NOT_KNOWN if agreement is None else agreement]
            self.source.copy_(torch.tensor(known, dtype=torch.float64))

    def after_update(self, teacher: MeanTeacher, update: int) -> str:
        """Look at the teacher where that is due, and keep a healthy one; describe a fault the first time."""
        if self.looks is None or (update + 1) % self.looks.every:
            return ""
        fault = self.look(teacher)
        if self.is_healthy:
            self.keep(teacher)
        return fault

    def look(self, teacher: MeanTeacher) -> str:
        """Compare the teacher with the source; describe what speaks against it the first time."""
        if self.looks is None or not self.is_healthy:
            return ""
        *counts, agreement = self.source.tolist()
        if counts[0] < 0:
            return ""
        try:
            glances = self.looks.at(teacher.module)  # type: ignore[arg-type]
        except NotFiniteError:
            return self._fail("its outputs are not finite")
        before, after = np.array(counts), boxes_per_image(glances)
        if before.sum() * len(glances) < _FEWEST_BOXES:
            return ""
        agreements = None if agreement == _NOT_KNOWN else agreement, mirror_agreement(glances)
        return self._fail(" ".join(signs_of_harm((before, after), agreements, self.looks.noise_floor)).rstrip("."))

    def end_epoch(self, epoch: int) -> str:
        """Judge the pseudo labels of the last epoch; describe a collapse the first time it is seen."""
        if epoch == 1:
            self.first.copy_(self.now)
        fault = self._fail(describe_collapse(self.first, self.now)) if self.is_healthy else ""
        self.now.zero_()
        return fault

    def keep(self, teacher: MeanTeacher) -> None:
        """Copy the teacher's current weights."""
        self.before.load_state_dict(teacher.state_dict())

    def _fail(self, fault: str) -> str:
        if fault:
            self.healthy.fill_(False)
        return fault


def upgrade(state: dict[str, Tensor], prefix: str, num_classes: int) -> None:
    """Add what checkpoints lack that were written before there were looks: such a run goes on without."""
    if f"{prefix}healthy" in state:
        state.setdefault(f"{prefix}source", torch.full((num_classes + 1,), _NOT_LOOKED_AT, dtype=torch.float64))
