"""Weights of encoders from local files: complete, or refused."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vision_core.bundles.bundle import Tensors, check_finite
from vision_core.bundles.foreign_weights import read_state_dict
from vision_core.console import command_line
from vision_core.errors import CheckpointError

_IN_FOLDER = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
_WRAPPERS = ("module.", "_orig_mod.")
_COUNTER = "num_batches_tracked"


def weights_file(path: Path) -> Path:
    """Find the file of weights at ``path``, a file or a folder in the layout of the model hubs.

    Raises:
        CheckpointError: The folder holds none, or the file does not exist.
    """
    if path.is_file():
        return path
    found = [path / name for name in _IN_FOLDER if (path / name).is_file()]
    if not found:
        what = f"holds none of {', '.join(_IN_FOLDER)}" if path.is_dir() else "is not a file"
        raise CheckpointError(f"encoder.weights: '{path}' {what}. Give the file of weights.")
    return found[0]


def read_tensors(path: Path) -> Tensors:
    """Read the tensors of a file by name, without the prefixes of wrappers such as ``module.``.

    Raises:
        CheckpointError: As for ``read_state_dict``; or NaN or infinity in the tensors.
    """
    unsafe = (
        "Save its state dict alone with torch 2; or, if you know where it comes from, convert it once: "
        f"python -m pipelines.pretrain import-weights {command_line([str(path)])} --out BUNDLE --i-trust-this-file."
    )
    tensors = read_state_dict(path, unsafe=unsafe)
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    check_finite(tensors, f"'{path}'")
    return tensors


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, dropped: tuple[str, ...] = ()) -> None:
    """Load tensors into a network, strictly but for the entries under ``dropped``.

    Args:
        network: Changed in place.
        tensors: Weights under the names of the network.
        path: File of the weights, for messages.
        dropped: Prefixes of entries that the network lacks on purpose, such as a classifier.

    Raises:
        CheckpointError: Names the entries that are missing, unknown, or of another shape.
    """
    own = network.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if name in own or not name.startswith(dropped)}
    missing = [name for name in own if name not in given and not name.endswith(_COUNTER)]
    unknown = [name for name in given if name not in own]
    misfits = [f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
               for name in own if name in given and given[name].shape != own[name].shape]  # fmt: skip
    problems = [
        f"{len(names)} entries {what}, first '{names[0]}'"
        for what, names in (("are missing", missing), ("are unknown", unknown), ("have another shape", misfits))
        if names
    ]
    if problems:
        raise CheckpointError(f"'{path}' does not fit this encoder: {'; '.join(problems)}. Give its own weights.")
    network.load_state_dict({name: given.get(name, tensor) for name, tensor in own.items()})
