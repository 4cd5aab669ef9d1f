"""Released weights of MHIM-MIL v1, renamed for the networks of this package.

TransMIL was not released, and a released DSMIL carries a classifier that nothing uses. The gated ABMIL of the TCGA runs
keeps its gate here; the released code dropped it without a message.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipelines.wsi.config import AbmilSettings, DsmilSettings, EmbeddingSettings, ModelSettings
from pipelines.wsi.models.build import build_model
from vision_core.bundles.bundle import check_finite, check_numbers
from vision_core.bundles.foreign_weights import read_weights
from vision_core.bundles.weight_sets import is_average
from vision_core.errors import CheckpointError

_MARK = "patch_to_emb.0.weight"  # a tensor that every released network has
_TRANSMIL = "online_encoder.layer1."
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
_ANSWERING = ("patch_to_emb.", "online_encoder.", "predictor.")
_UNUSED = ("predictor.",)  # a released DSMIL carries this classifier, which nothing uses


@dataclass(frozen=True, kw_only=True)
class Released:
    """A released network.

    Attributes:
        settings: Its architecture, inferred from the names and shapes of its tensors.
        feature_dim: Width of the tile features that it takes.
        num_classes: Number of classes.
        tensors: State dict of the network with these settings.
        dropped: Entries of the file that this network does not have.
        notes: Which of several sets of weights was taken.
    """

    settings: ModelSettings
    feature_dim: int
    num_classes: int
    tensors: dict[str, Tensor]
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Describe what was inferred, one line for each fact."""
        gate = ", gated" if self.settings.abmil.gated else ""
        told = f"network: {self.settings.name}{gate}, {self.settings.embedding.dim} wide, relu"
        features = f"features: {self.feature_dim} a tile; classes: {self.num_classes}"
        left = (f"left out: {', '.join(self.dropped)}",) if self.dropped else ()
        return (*self.notes, told, features, *left)


def read_released(file: Path, *, trust: bool = False, key: str | None = None) -> Released:
    """Read and rename the tensors of a released file; of several sets of weights, the average (the teacher).

    Args:
        file: What ``torch.save`` wrote, or safetensors.
        trust: Also read checkpoints with unknown classes, in a restricted way.
        key: Name of another set (``source.weights_key``), or of a prefix in one.

    Raises:
        CheckpointError: As for ``read_weights`` and ``import_released``; or whole numbers, NaN or infinity in the
            tensors.
    """
    found = read_weights(file, trust=trust, key=key)
    tensors, picks = _one_network(found.tensors, key)
    try:
        released = import_released(tensors)
    except CheckpointError as error:
        raise CheckpointError([f"'{file}': {problem}" for problem in error.problems]) from error
    check_numbers(released.tensors, f"'{file}'")
    check_finite(released.tensors, f"'{file}'")
    return replace(released, notes=(*found.notes, *picks))


def _one_network(tensors: Mapping[str, Tensor], key: str | None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Take the tensors of one network without their prefix; of several, those under ``key``, else the average's."""
    prefixes = [name.removesuffix(_MARK) for name in tensors if name.endswith(_MARK)]
    if prefixes in ([], [""]):
        return dict(tensors), ()
    asked = [each for each in prefixes if key and f".{each}".find(f".{key}.") >= 0]
    averages = [each for each in prefixes if is_average(each)]
    chosen = [*asked, *averages, *prefixes][0]
    taken = {name.removeprefix(chosen): each for name, each in tensors.items() if name.startswith(chosen)}
    if len(prefixes) == 1:
        return taken, ()
    listed = ", ".join(f"'{each}'" for each in prefixes)
    average = " (the average)" if is_average(chosen) else ""
    return taken, (f"weights: took '{chosen}'{average} of {listed}; source.weights_key=NAME takes another",)


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
    unused = _UNUSED if names is _DSMIL else ()
    if strange := [key for key in dropped if key.startswith(_ANSWERING) and not key.startswith(unused)]:
        raise CheckpointError(
            f"The file holds {len(strange)} tensors of a network that is not built here, first '{strange[0]}': without "
            "them its answers would differ. Give one of the released .pt files."
        )
    return _checked(tensors, tuple(dropped))


def _names(state: Mapping[str, Tensor]) -> dict[str, str]:
    layers = {key.rpartition(".")[0] for key in state}
    for names in (_PLAIN, _GATED, _DSMIL):
        if layers.issuperset(names):
            return names
    if any(name.startswith(_TRANSMIL) for name in state):
        raise CheckpointError(
            "The file holds a TransMIL; AB-MIL and DSMIL are read. Train one here: model.name=transmil."
        )
    first = next(iter(state), "nothing")
    raise CheckpointError(
        f"The file's first entry is '{first}'; expected a released MHIM-MIL v1 of AB-MIL or DSMIL, "
        f"which has '{_MARK}'. Give one of the released .pt files."
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
