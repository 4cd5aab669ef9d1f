"""Released weights of MHIM-MIL v1, renamed for the networks of this package.

TransMIL was not released, and a released DSMIL carries a classifier that nothing uses. The gated ABMIL of the TCGA runs
keeps its gate here; the released code dropped it without a message.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipelines.wsi.config import AbmilSettings, DsmilSettings, EmbeddingSettings, ModelSettings
from pipelines.wsi.models.build import build_model
from vision_core.bundles.bundle import check_finite
from vision_core.bundles.foreign_weights import read_state_dict
from vision_core.errors import CheckpointError

_EMBEDDING = {"patch_to_emb.0": "embedding.linear"}
_ATTENTION = "online_encoder.attention.attention"
_PLAIN = _EMBEDDING | {
    f"{_ATTENTION}.0": "attention.hidden",
    f"{_ATTENTION}.2": "attention.score",
    "predictor": "classifier",
}
_GATED = _EMBEDDING | {
    f"{_ATTENTION}_a.0": "attention.hidden",
    f"{_ATTENTION}_b.0": "attention.gate",
    f"{_ATTENTION}_c": "attention.score",
    "predictor": "classifier",
}
_BAG = "online_encoder.b_classifier"
_DSMIL = _EMBEDDING | {
    "online_encoder.i_classifier.0": "instance_classifier",
    f"{_BAG}.q.0": "query.0",
    f"{_BAG}.q.2": "query.2",
    f"{_BAG}.v.1": "value.0",
    f"{_BAG}.fcc": "bag_classifier",
}


@dataclass(frozen=True, kw_only=True)
class Released:
    """A released network.

    Attributes:
        settings: Its architecture, inferred from the names and shapes of its tensors.
        feature_dim: Width of the tile features that it takes.
        num_classes: Number of classes.
        tensors: State dict of the network with these settings.
        dropped: Entries of the file that this network does not have.
    """

    settings: ModelSettings
    feature_dim: int
    num_classes: int
    tensors: dict[str, Tensor]
    dropped: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """Describe what was inferred, one line for each fact."""
        gate = ", gated" if self.settings.abmil.gated else ""
        told = f"network: {self.settings.name}{gate}, {self.settings.embedding.dim} wide, relu"
        features = f"features: {self.feature_dim} a tile; classes: {self.num_classes}"
        left = (f"left out: {', '.join(self.dropped)}",) if self.dropped else ()
        return (told, features, *left)


def read_released(file: Path) -> Released:
    """Read and rename the tensors of a released file; of student and teacher, the student's.

    Raises:
        CheckpointError: As for ``read_state_dict`` and ``import_released``; or NaN or infinity in the tensors.
    """
    unsafe = "Give a released .pt file, which holds tensors alone."
    state = read_state_dict(file, unsafe=unsafe, preferred=("model", "student"))
    released = import_released(state)
    check_finite(released.tensors, f"'{file}'")
    return released


def import_released(state: Mapping[str, Tensor]) -> Released:
    """Rename the tensors of a released state dict and infer its architecture.

    Raises:
        CheckpointError: The state is of another network, lacks a tensor or has one of an unexpected shape.
    """
    names = _names(state)
    tensors: dict[str, Tensor] = {}
    dropped = []
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        if layer in names:
            tensors[f"{names[layer]}.{kind}"] = tensor
        else:
            dropped.append(key)
    return _checked(tensors, tuple(dropped))


def _names(state: Mapping[str, Tensor]) -> dict[str, str]:
    layers = {key.rpartition(".")[0] for key in state}
    for names in (_PLAIN, _GATED, _DSMIL):
        if layers.issuperset(names):
            return names
    first = next(iter(state), "nothing")
    raise CheckpointError(
        f"The file's first entry is '{first}'; expected a released MHIM-MIL v1 of AB-MIL or DSMIL, "
        "which has 'patch_to_emb.0.weight'. Give one of the released .pt files."
    )


def _checked(tensors: dict[str, Tensor], dropped: tuple[str, ...]) -> Released:
    dim, feature_dim = tensors["embedding.linear.weight"].shape
    head = "bag_classifier" if "bag_classifier.weight" in tensors else "classifier"
    num_classes = len(tensors[f"{head}.weight"])
    settings = _settings(tensors, dim)
    with torch.device("meta"):
        expected = build_model(settings, feature_dim, num_classes).state_dict()
    problems = [
        f"'{name}' has the shape {_shape(tensors.get(name))}; expected {_shape(expected.get(name))}."
        for name in sorted(expected.keys() | tensors.keys())
        if _shape(tensors.get(name)) != _shape(expected.get(name))
    ]
    if problems:
        raise CheckpointError([f"{problem} Give a released file as it is." for problem in problems])
    return Released(
        settings=settings, feature_dim=feature_dim, num_classes=num_classes, tensors=tensors, dropped=dropped
    )


def _settings(tensors: Mapping[str, Tensor], dim: int) -> ModelSettings:
    embedding = EmbeddingSettings(dim=dim)
    if "query.0.weight" in tensors:
        return ModelSettings(
            name="dsmil", embedding=embedding, dsmil=DsmilSettings(query=len(tensors["query.0.weight"]))
        )
    attention = AbmilSettings(hidden=len(tensors["attention.hidden.weight"]), gated="attention.gate.weight" in tensors)
    return ModelSettings(name="abmil", embedding=embedding, abmil=attention)


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
