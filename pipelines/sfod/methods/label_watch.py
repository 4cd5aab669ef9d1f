"""Watch over a teacher that finds nothing: the student would learn that every image is background. No label is read."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision_core.console import note, say
from vision_core.errors import TrainingError

_LOOK_STEPS = 20  # steps between two looks: each reads from the device once
_WINDOW_IMAGES = 200


class LabelWatch(nn.Module):
    """Count of pseudo labels in windows of 200 images, with an alarm for windows without one.

    A run is judged from its first steps on: without any pseudo label it gets an alarm after 20 steps, and ends after
    200 images, its first epoch, or its last step, whichever comes first. A later window without one is an alarm alone:
    objects may be rare, and ``CollapseGuard`` judges a teacher that loses what it found. Counts are buffers, so that
    checkpoints hold them.

    Args:
        threshold: Score that pseudo labels exceed.
        stops: Whether a run without any ends; else it goes on with an alarm.

    Attributes:
        sure_score: Score from which on nine of ten detections of the source are right on its validation list, if known.
        status: Boxes an image, in words.
    """

    window: Tensor
    past: Tensor

    def __init__(self, threshold: float, *, stops: bool = True) -> None:
        super().__init__()
        self.threshold, self.stops = threshold, stops
        self.sure_score: float | None = None
        self.register_buffer("window", torch.zeros(3))  # images, images with a pseudo label, highest score
        self.register_buffer("past", torch.zeros(2))  # windows that are over, and those of them without a pseudo label
        self.status = ""
        self._own = [0, 0]  # images and pseudo labels that this process has seen, for the progress
        self._has_warned = False

    def see(self, num_labels: int, num_images: int) -> None:
        """Add the pseudo labels of a step of this process to what the progress shows."""
        images, labels = self._own if self._own[0] < _WINDOW_IMAGES else (0, 0)
        self._own = [images + num_images, labels + num_labels]
        self.status = f"{self._own[1] / self._own[0]:.1f} pseudo labels an image"

    def count(self, counts: Tensor, step: int) -> None:
        """Add a step, and look at the window every 20 steps.

        Args:
            counts: ``(processes, 3)``: images, images with a pseudo label, highest score.
            step: Number of the step.

        Raises:
            TrainingError: No image so far had a pseudo label, and the settings stop such a run.
        """
        self.window[:2] += counts[:, :2].sum(dim=0)
        self.window[2] = torch.maximum(self.window[2], counts[:, 2].amax())
        if (step + 1) % _LOOK_STEPS == 0:
            self._look()

    def end_epoch(self, epoch: int) -> None:
        """Judge a run whose first epoch has fewer images than a window; raises as ``count``."""
        if epoch == 1:
            self._look(is_end=True)

    def conclude(self) -> str:
        """Describe the windows without a pseudo label at the end of a run, empty without one; raises as ``count``."""
        return self._look(is_end=True)

    def _look(self, *, is_end: bool = False) -> str:
        images, labelled, best, over, empty = torch.cat([self.window, self.past]).tolist()
        is_over = images >= _WINDOW_IMAGES
        if is_over:
            self.past += self.past.new_tensor([1, not labelled])
            self.window.zero_()
            over, empty = over + 1, empty + (not labelled)
        is_first = over == is_over
        alarm = ""
        if is_first and images and not labelled:
            alarm = self._no_label(images, best)
            if self.stops and (is_over or is_end):
                more = "pseudo_labels.on_nothing=continue goes on without, as the published code does."
                raise TrainingError(f"{alarm} {more}")
            alarm = f"ALARM: {alarm}"
        elif empty:
            alarm = (
                f"ALARM: {empty:.0f} of {over:.0f} windows of {_WINDOW_IMAGES} images had no detection above "
                f"pseudo_labels.threshold {self.threshold:g}: there the student learnt that all is background."
            )
        if alarm and not is_end and (is_first or (is_over and not labelled)):
            (note if self._has_warned else say)(alarm)
            self._has_warned = True
        return alarm

    def _no_label(self, images: float, best: float) -> str:
        return (
            f"pseudo_labels.threshold {self.threshold:g} is too high: no detection passed it on the first {images:.0f} "
            f"images, the highest score was {best:.3f}. {self._advice(best)}"
        )

    def _advice(self, best: float) -> str:
        other = "give a source model that fits the target better."
        if self.sure_score is None:
            return f"Set pseudo_labels.threshold below that, or {other}"
        known = f"{self.sure_score:.3f}, from where on the source is right nine times of ten on its validation list"
        if self.sure_score < min(best, self.threshold):
            return f"Set pseudo_labels.threshold=auto ({known}), or {other}"
        return f"pseudo_labels.threshold=auto would be {known}, and find nothing either: {other}"


def upgrade(state: dict[str, Tensor], prefix: str, name: str) -> None:
    """Rename what checkpoints held before there were windows: the counts of the first 200 images."""
    first = state.pop(f"{prefix}first_images", None)
    if first is not None:
        is_over = bool(first[0] >= _WINDOW_IMAGES)
        state[f"{prefix}{name}.window"] = torch.zeros_like(first) if is_over else first
        state[f"{prefix}{name}.past"] = first.new_tensor([float(is_over), 0.0])


def counts_of(labels: Sequence[Tensor], scores: Sequence[Tensor]) -> Tensor:
    """Count images, images with a pseudo label, and the highest score of a step: ``(3,)``.

    Args:
        labels: Classes of each image's pseudo labels.
        scores: Scores of each image's detections, highest first.
    """
    best = torch.stack([each[:1].sum() for each in scores]).amax().float()
    found = best.new_tensor([len(labels), sum(len(each) > 0 for each in labels)])
    return torch.cat([found, best[None]])
