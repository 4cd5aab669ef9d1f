"""The choice of the learner that adapts a detector, and what to be warned of."""

from pathlib import Path

from pipelines.sfod.config import CONTRASTING, SUPERVISED, TEACHING, SfodConfig, Wscol
from pipelines.sfod.learners.fixed_labels import FixedLabelsLearner
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from pipelines.sfod.learners.statistics import StatisticsLearner
from pipelines.sfod.learners.wscol import WscolLearner
from pipelines.sfod.methods.thresholds import read_sure_score
from vision_core.detection.model.detector import LOSS_NAMES, Detector
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
_LABELS_UNREAD = "Adaptation reads images alone; annotation files beside them are not opened."
_ORACLE = "oracle trains on labels of the target: an upper bound for tables, no adaptation without labels."


def adaptation_learner(
    config: SfodConfig, detector: Detector, source: Path | None = None, *, num_images: int = 1
) -> Learner:
    """Build the learner of an adaptation method.

    Args:
        config: Method and settings.
        detector: The source; it is adapted in place.
        source: Bundle that it comes from.
        num_images: Images of the training list, by which ``fixed_pl`` keeps labels and WSCoL knows its first epochs.
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
    return learner


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
