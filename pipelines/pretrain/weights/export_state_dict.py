"""Verb ``export-weights``: write the weights of a bundle as a state dict for other programs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor

from pipelines.pretrain.weights.bundles import TASK
from pipelines.pretrain.weights.keymaps import KeyMap, sequential_name
from vision_core.backbones.bundles import is_classifier
from vision_core.backbones.networks import backbone_spec
from vision_core.bundles import bundle
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.errors import CheckpointError, UsageError
from vision_core.files import atomic_path, write_atomic

Build = Callable[[], Any]
_SUFFIXES = (".pth", ".pt", ".safetensors")


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Rename the tensors of a bundle, print the key map, and write them."""
    out: Path = arguments.out
    if out.suffix not in _SUFFIXES:
        raise UsageError(f"--out '{out}' does not end in {', '.join(_SUFFIXES)}.")
    if out.exists() and not arguments.overwrite:
        raise UsageError(f"{out} exists; use --overwrite to replace it, or another --out.")
    tensors, keys = rename_tensors(arguments.checkpoint, arguments.style)
    for line in keys.lines():
        say(line)
    if out.suffix == ".safetensors":
        write_atomic(out, safetensors.save(tensors))
    else:
        with atomic_path(out) as partial:
            torch.save(tensors, partial)
    say(f"Written to {out}: {len(tensors)} tensors.")
    return 0


def rename_tensors(path: Path, style: str) -> tuple[dict[str, Tensor], KeyMap]:
    """Rename the tensors of a classifier; returns them with the key map.

    Args:
        path: Bundle of the classifier.
        style: ``torchvision``: the names of the bundle. ``radimagenet``: those of a network cut into a sequence.

    Raises:
        CheckpointError: It is no sound bundle of a classifier.
    """
    content = bundle.load(path, TASK)
    if not is_classifier(content.card):
        raise CheckpointError(f"'{path}' holds no classifier. Give the folder 'model' of a run.")
    spec = backbone_spec(content.card.architecture["backbone"])
    names = {name: sequential_name(name, spec) if style == "radimagenet" else name for name in content.tensors}
    keys = KeyMap(ours=names, unused=(), missing=(), head=len(content.card.classes), share=1.0)
    return {names[name]: tensor for name, tensor in content.tensors.items()}, keys
