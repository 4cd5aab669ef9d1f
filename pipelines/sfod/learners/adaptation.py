"""The choice of the learner that adapts a detector, and what to be warned of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.sfod.config import CONTRASTING, SUPERVISED, TEACHING, SfodConfig, Wscol
from pipelines.sfod.learners.fixed_labels import FixedLabelsLearner
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from pipelines.sfod.learners.statistics import StatisticsLearner
from pipelines.sfod.learners.wscol import WscolLearner
from pipelines.sfod.methods.collapse import Looks
from pipelines.sfod.methods.thresholds import read_sure_score
from pipelines.sfod.verdict.numbers import Source
from pipelines.sfod.verdict.source import read_source
from vision_core.bundles.bundle import read_card
from vision_core.detection.model.detector import LOSS_NAMES, Detector
from vision_core.detection.predictor import DRAWN_SCORE
from vision_core.detection.weights.bundles import prepare
from vision_core.images.reading import read_noted_image
from vision_core.training import distributed
from vision_core.training.learner import Learner
from vision_core.training.loaders import Steps

CURVE_NAMES = {
    **LOSS_NAMES,
    "loss_lpld": "Loss: distillation of unsure boxes",
    "loss_consistency": "Loss: teacher and student agree",
    "loss_contrast": "Loss: classes lie apart",
    "loss_instance": "Loss: objects lie apart",
    "loss_gradient": "Loss: gradients agree",
    "hpl_per_image": "Pseudo labels an image",
    "lpl_per_image": "Unsure boxes distilled an image",
}
_LOOKS = 20  # at the teacher in a run, at most
_LOOK_EVERY = 20  # updates at least: a look costs as much as two steps of two images
_LOOKED_AT = 8  # images
_LABELS_UNREAD = "Adaptation reads images alone; annotation files beside them are not opened."
_FEW_IMAGES = 100
_ORACLE = "oracle trains on labels of the target: an upper bound for tables, no adaptation without labels."


def adaptation_learner(
    config: SfodConfig,
    detector: Detector,
    source: Path | None = None,
    *,
    num_images: int = 1,
    looked_at: Sequence[Path] = (),
) -> Learner:
    """Build the learner of an adaptation method.

    Args:
        config: Method and settings.
        detector: The source; it is adapted in place.
        source: Bundle that it comes from.
        num_images: Images of the training list, by which ``fixed_pl`` keeps labels and WSCoL knows its first epochs.
        looked_at: Images of the target on which a run now and then looks at its teacher.
    """
    if config.method == "bn":
        return StatisticsLearner(detector)
    seed, teacher, pseudo_labels = config.train.seed, config.teacher, config.pseudo_labels
    lpld = config.lpld if config.method in {"lpld", "wsco_full+lpld"} else None
    if config.method in CONTRASTING:
        learner: MeanTeacherLearner = WscolLearner(
            detector,
            wscol=config.wscol or Wscol(),
            steps_per_epoch=Steps(num_images, config.train, world_size=distributed.world_size()).per_epoch,
            teacher=teacher,
            pseudo_labels=pseudo_labels,
            lpld=lpld,
            seed=seed,
        )
    elif config.method == "fixed_pl":
        learner = FixedLabelsLearner(
            detector, num_images=num_images, teacher=teacher, pseudo_labels=pseudo_labels, seed=seed
        )
    else:
        learner = MeanTeacherLearner(detector, teacher=teacher, pseudo_labels=pseudo_labels, lpld=lpld, seed=seed)
    learner.watch.sure_score = read_sure_score(source)
    if learner.guard:
        updates = Steps(num_images, config.train, world_size=distributed.world_size()).total_updates
        learner.guard.looks = _looks(detector, source, looked_at, updates)
    return learner


def _looks(detector: Detector, source: Path | None, images: Sequence[Path], updates: int) -> Looks | None:
    """Plan the looks at the teacher: some 20 in a run, and none in a run too short to be stopped by one."""
    if updates < _LOOK_EVERY or not images:
        return None
    known = read_source(read_card(source))[0] if source else Source(operating_score=DRAWN_SCORE)
    places = np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).round().astype(int))
    settings = detector.settings
    return Looks(
        every=max(_LOOK_EVERY, -(-updates // _LOOKS)),
        load=lambda: [(images[at].name, prepare(read_noted_image(images[at])[0], settings)) for at in places],
        operating_score=known.operating_score,
        noise_floor=known.noise_floor,
    )


def few_images_note(config: SfodConfig, num_images: int) -> list[str]:
    """Point to the short settings where a few images meet those that were published for thousands."""
    is_few = num_images < _FEW_IMAGES and config.method in TEACHING and config.teacher.every == "epoch"
    if not is_few or config.preset:
        return []
    return [
        f"{num_images} images under settings that were published for thousands: the teacher moves once an epoch, "
        f"{config.train.epochs} times at most. preset=small is a short run for a few dozen images."
    ]


def warnings_of(config: SfodConfig) -> list[str]:
    """Warn of settings with which a method is not what its name says."""
    if config.method in SUPERVISED:
        return [_ORACLE] if config.method == "oracle" else []
    found = [] if config.data.filter_empty else [_LABELS_UNREAD]
    if config.method == "bn":
        found.append("bn assumes that the statistics in the weights are of the source images, not of ImageNet.")
    if config.method in TEACHING and config.teacher.keep_rate == 1:
        found.append("warning: teacher.keep_rate is 1: the teacher never moves, and the result is the source model.")
    if config.method in TEACHING - {"fixed_pl"} and config.teacher.keep_rate == 0:
        found.append("warning: teacher.keep_rate is 0: there is no average; the teacher jumps to the student.")
    return found
