"""Public names of DomainSight: the import path that researchers may rely on.

    from domainsight import ABMIL, MHIM, WsiPredictor, SfodPredictor, lpld_loss, NoiseMask, MeanTeacher, fit

Each name is imported when it is first used, so that ``import domainsight`` itself loads neither torch nor detectron2.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.ovd.predict import OvdPredictor
    from pipelines.pretrain.noise_mask.mask import NoiseMask
    from pipelines.pretrain.noise_mask.policy import NoisePolicy
    from pipelines.pretrain.predict import PretrainPredictor
    from pipelines.sfod.methods.lpld import lpld_loss
    from pipelines.sfod.methods.mapping import MappingNetwork
    from pipelines.sfod.methods.prototypes import ClassMemory
    from pipelines.sfod.methods.wscol import wscol_loss
    from pipelines.sfod.predict import SfodPredictor
    from pipelines.ultrasound.predict import UltrasoundPredictor
    from pipelines.wsi.config import MhimV1, MhimV2, Recycling
    from pipelines.wsi.mhim.student_teacher import MHIM
    from pipelines.wsi.models.abmil import ABMIL
    from pipelines.wsi.models.dsmil import DSMIL
    from pipelines.wsi.models.transmil import TransMIL
    from pipelines.wsi.predict import WsiPredictor
    from vision_core.detection.onnx_predictor import OnnxDetector
    from vision_core.images.augmentation import StrongView
    from vision_core.results import CineResult, ClassScores, Detections, SlideResult
    from vision_core.training.learner import Learner, Prepared
    from vision_core.training.loop import fit
    from vision_core.training.mean_teacher import MeanTeacher

__all__ = [
    "ABMIL",
    "DSMIL",
    "MHIM",
    "CineResult",
    "ClassMemory",
    "ClassScores",
    "Detections",
    "Learner",
    "MappingNetwork",
    "MeanTeacher",
    "MhimV1",
    "MhimV2",
    "NoiseMask",
    "NoisePolicy",
    "OnnxDetector",
    "OvdPredictor",
    "Prepared",
    "PretrainPredictor",
    "Recycling",
    "SfodPredictor",
    "SlideResult",
    "StrongView",
    "TransMIL",
    "UltrasoundPredictor",
    "WsiPredictor",
    "fit",
    "lpld_loss",
    "wscol_loss",
]

_MODULES = {
    "ABMIL": "pipelines.wsi.models.abmil",
    "DSMIL": "pipelines.wsi.models.dsmil",
    "MHIM": "pipelines.wsi.mhim.student_teacher",
    "CineResult": "vision_core.results",
    "ClassMemory": "pipelines.sfod.methods.prototypes",
    "ClassScores": "vision_core.results",
    "Detections": "vision_core.results",
    "Learner": "vision_core.training.learner",
    "MappingNetwork": "pipelines.sfod.methods.mapping",
    "MeanTeacher": "vision_core.training.mean_teacher",
    "MhimV1": "pipelines.wsi.config",
    "MhimV2": "pipelines.wsi.config",
    "NoiseMask": "pipelines.pretrain.noise_mask.mask",
    "NoisePolicy": "pipelines.pretrain.noise_mask.policy",
    "OnnxDetector": "vision_core.detection.onnx_predictor",
    "OvdPredictor": "pipelines.ovd.predict",
    "Prepared": "vision_core.training.learner",
    "PretrainPredictor": "pipelines.pretrain.predict",
    "Recycling": "pipelines.wsi.config",
    "SfodPredictor": "pipelines.sfod.predict",
    "SlideResult": "vision_core.results",
    "StrongView": "vision_core.images.augmentation",
    "TransMIL": "pipelines.wsi.models.transmil",
    "UltrasoundPredictor": "pipelines.ultrasound.predict",
    "WsiPredictor": "pipelines.wsi.predict",
    "fit": "vision_core.training.loop",
    "lpld_loss": "pipelines.sfod.methods.lpld",
    "wscol_loss": "pipelines.sfod.methods.wscol",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (a class or a function)
    if name not in _MODULES:
        raise AttributeError(f"module 'domainsight' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
