"""For what the host waits in a step of each learner: how often, by operation and file of the line that waits.

The counts are what the made device counts, to the last one: a wait more, wherever it is, fails ``test_learners.py``,
and so does one less, which is then written here. ``elsewhere`` is the backward pass, in threads of autograd.
"""

from collections import Counter

_SCALAR, _COPY, _MASK, _NONZERO = "_local_scalar_dense", "copy to the CPU", "index by a mask", "nonzero"
_LEARNER, _METHODS = "pipelines/sfod/learners/mean_teacher.py", "pipelines/sfod/methods"
_DETECTOR, _LABELS = "vision_core/detection/model/detector.py", "vision_core/detection/pseudo_labels.py"
_MASKING, _PRETRAIN = "pipelines/wsi/mhim/masking.py", "pipelines/pretrain/learner.py"

# Whether all weights are finite, after every step since these runs write a checkpoint after every step.
_CHECKPOINT = Counter({f"{_COPY} vision_core/training/checkpoint.py": 1})
_LOOP = _CHECKPOINT + Counter({f"{_COPY} vision_core/training/loop.py": 1})  # the losses
# Two images; nearly all of it is detectron2's, called from the detector.
_LOSSES = Counter({
    f"{_SCALAR} {_DETECTOR}": 17,
    f"{_COPY} vision_core/detection/model/detectron2_parts.py": 4,
    f"{_MASK} {_DETECTOR}": 6,
    "index_put by a mask elsewhere": 2,
    f"nms {_DETECTOR}": 2,
    f"{_NONZERO} {_DETECTOR}": 11,
    f"repeat_interleave {_DETECTOR}": 1,
})  # fmt: skip
_TEACHER = Counter({
    f"{_SCALAR} {_DETECTOR}": 10,
    f"{_MASK} {_DETECTOR}": 4,
    f"nms {_DETECTOR}": 4,
    f"{_NONZERO} {_DETECTOR}": 6,
    f"repeat_interleave {_DETECTOR}": 1,
    f"{_NONZERO} {_LABELS}": 2,
    f"bincount {_LEARNER}": 1,
    f"{_COPY} {_METHODS}/label_watch.py": 2,  # at the ends of the first epoch and of the run
    f"{_SCALAR} {_METHODS}/collapse.py": 6,  # at the end of an epoch
})  # fmt: skip
_C4 = Counter({f"{_MASK} {_DETECTOR}": 12})  # one level of anchors
_C4_LESS = Counter({f"{_NONZERO} {_DETECTOR}": 12})  # pooling asks for the level of each box where there are several
_C4_WSCO_LESS = Counter({f"{_NONZERO} {_DETECTOR}": 20})  # proposals are pooled in both views, and pseudo labels
# The distillation itself asks for nothing; the regions that it chooses are pooled.
_DISTIL = Counter({
    f"{_NONZERO} {_METHODS}/lpld.py": 2,
    f"{_NONZERO} {_DETECTOR}": 4,
    f"repeat_interleave {_DETECTOR}": 1,
})  # fmt: skip
# Two images in the first epoch, each with a memory of its own before they share one.
_CONTRAST = Counter({
    f"{_COPY} pipelines/sfod/learners/wscol.py": 2,  # the ranges of distances
    f"{_COPY} {_METHODS}/uncertainty.py": 2,
    f"{_NONZERO} {_METHODS}/prototypes.py": 3,
    f"{_NONZERO} {_DETECTOR}": 8,  # proposals and pseudo labels are pooled
    f"repeat_interleave {_DETECTOR}": 2,
})  # fmt: skip
_VIEWS = Counter({
    f"{_NONZERO} pipelines/sfod/learners/wscol.py": 2,  # anchors
    f"{_NONZERO} {_DETECTOR}": 4,
    f"repeat_interleave {_DETECTOR}": 1,
})  # fmt: skip
_FIXED = Counter({f"{_COPY} {_METHODS}/fixed_labels.py": 1})
_UNGUARDED = Counter({f"{_SCALAR} {_METHODS}/collapse.py": 6})
_REGIONS = "pipelines/ovd/regions.py"
# Two images, in one view each; the losses of regions are our own.
_OPEN = Counter({
    f"{_SCALAR} {_DETECTOR}": 13,
    f"{_COPY} vision_core/detection/model/detectron2_parts.py": 4,
    f"{_MASK} {_DETECTOR}": 4,
    "index_put by a mask elsewhere": 2,
    f"nms {_DETECTOR}": 2,
    f"{_NONZERO} {_DETECTOR}": 6,
    f"repeat_interleave {_DETECTOR}": 1,
})  # fmt: skip
# A second view of each, candidates that are pooled and chosen, and regions of strong views pooled from the weak ones.
_MARVEL = Counter({
    f"{_SCALAR} {_DETECTOR}": 10,
    f"{_COPY} vision_core/detection/model/detectron2_parts.py": 4,
    f"nms {_DETECTOR}": 2,
    f"{_NONZERO} {_DETECTOR}": 8,
    f"repeat_interleave {_DETECTOR}": 2,
    f"{_NONZERO} {_REGIONS}": 2,
    f"{_COPY} pipelines/ovd/learner.py": 1,  # what is logged of mining
})  # fmt: skip
_MHIM = _LOOP + Counter({f"{_SCALAR} {_MASKING}": 1, f"{_NONZERO} {_MASKING}": 1})
_MASKED = _LOOP + Counter({f"{_COPY} {_PRETRAIN}": 2})
_NETWORKS = ("abmil", "dsmil", "transmil")

WAITS: dict[str, Counter[str]] = {
    "sfod-source": _LOOP + _LOSSES,
    "sfod-bn": _CHECKPOINT + Counter({f"{_COPY} vision_core/detection/model/frozen_norms.py": 1}),
    "sfod-mt": _LOOP + _LOSSES + _TEACHER,
    "sfod-lpld": _LOOP + _LOSSES + _TEACHER + _DISTIL,
    "sfod-lpld-c4": _LOOP + _LOSSES + _TEACHER + _DISTIL + _C4 - _C4_LESS,
    "sfod-fixed_pl": _LOOP + _LOSSES + _TEACHER + _FIXED - _UNGUARDED,
    "sfod-wscol_core": _LOOP + _LOSSES + _TEACHER + _CONTRAST,
    # The distillation pools nothing of its own.
    "sfod-wsco_full+lpld": _LOOP
    + _LOSSES
    + _TEACHER
    + _CONTRAST
    + _VIEWS
    + Counter({f"{_NONZERO} {_METHODS}/lpld.py": 2}),
    "sfod-wsco_full-c4": _LOOP + _LOSSES + _TEACHER + _CONTRAST + _VIEWS + _C4 - _C4_WSCO_LESS,
    **{f"wsi-plain-{network}": _LOOP for network in _NETWORKS},
    **{f"wsi-mhim_{version}-{network}": _MHIM for version in ("v1", "v2") for network in _NETWORKS},
    "ultrasound-screen": _LOOP,
    "ultrasound-segment": _LOOP,
    "ultrasound-segment_frame_aware": _LOOP,
    "ovd-marvel": _LOOP + _OPEN + _MARVEL,
    "ovd-vl_plm": _LOOP + _OPEN,
    "ovd-proposals": _LOOP + _LOSSES + Counter({f"{_NONZERO} {_REGIONS}": 2}),
    "pretrain-plain": _LOOP,
    "pretrain-policy": _MASKED,
    "pretrain-released": _MASKED,
    "pretrain-unlearned": _LOOP + Counter({f"{_COPY} {_PRETRAIN}": 1}),
}
