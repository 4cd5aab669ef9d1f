"""Weights of encoders from local files: read without running anything in them, and complete or refused."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vision_core.bundles.bundle import check_finite
from vision_core.errors import CheckpointError

Tensors = dict[str, Tensor]
_IN_FOLDER = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
_CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "student")
_WRAPPERS = ("module.", "_orig_mod.")
_COUNTER = "num_batches_tracked"


def weights_file(path: Path) -> Path:
    """The file of weights at ``path``, which may be a folder as the hubs lay it out.

    Raises:
        CheckpointError: There is none.
    """
    if path.is_file():
        return path
    found = [path / name for name in _IN_FOLDER if (path / name).is_file()]
    if not found:
        what = f"holds none of {', '.join(_IN_FOLDER)}" if path.is_dir() else "is not a file"
        raise CheckpointError(f"encoder.weights: '{path}' {what}. Give the file of weights.")
    return found[0]


def read_tensors(path: Path) -> Tensors:
    """The tensors of a file by name, on the CPU, mapped where the format allows it.

    ``state_dict``, ``model`` and the like are looked into, and the prefix ``module.`` is taken off.

    Raises:
        CheckpointError: Damaged, a pickle of objects, without tensors, or with NaN or infinity in them.
    """
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    tensors = _without_wrappers(_tensors(content))
    if not tensors:
        raise CheckpointError(f"'{path}' holds no tensors by name. Give a file with a state dict.")
    check_finite(tensors, f"'{path}'")
    return tensors


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, dropped: tuple[str, ...] = ()) -> None:
    """Load tensors into a network: every entry of the network, and none besides but those under ``dropped``.

    Args:
        network: What is filled.
        tensors: By the names of the network.
        path: Where they come from, for messages.
        dropped: Prefixes of what the network does without, such as a classifier.

    Raises:
        CheckpointError: Says which entries are missing, unknown, or of another shape.
    """
    own = network.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if name in own or not name.startswith(dropped or ("\0",))}
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


def _load_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is damaged or no safetensors file: {error}.") from error


def _load_torch(path: Path) -> object:
    is_zip = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else []
        asks = f"it asks for '{', '.join(names)}'" if names else "it is an old file, or a pickle"
        raise CheckpointError(
            f"'{path}' could run code when it is read: {asks}. If you know where it comes from, convert it once: "
            f"python -m pipelines.pretrain import-weights {path} --out BUNDLE --i-trust-this-file."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise CheckpointError(f"'{path}' is damaged or no PyTorch file: {reason}.") from error


def _tensors(content: Any) -> Tensors:  # noqa: ANN401 (whatever was in the file)
    if not isinstance(content, Mapping):
        return {}
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping):
            return _tensors(content[key])
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def _without_wrappers(tensors: Tensors) -> Tensors:
    for wrapper in _WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors
