"""Verb ``export-weights``: write the weights of a bundle as a state dict for other programs.

A record beside the file says which bundle they are of. By its sum an export is known that may be overwritten.
"""

import argparse
import json
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
from vision_core.files import atomic_path, sha256, write_atomic

Build = Callable[[], Any]
_MAKER = "DomainSight export-weights"
_SUFFIXES = (".pth", ".pt", ".safetensors")


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Rename the tensors of a bundle, print the key map, and write them."""
    out: Path = arguments.out
    if out.suffix not in _SUFFIXES:
        raise UsageError(f"--out '{out}' does not end in {', '.join(_SUFFIXES)}.")
    record = out.with_name(f"{out.name}.json")
    for path in (out, record):
        if path.exists() and not _is_own(out, record):
            raise UsageError(
                f"'{path}' exists and is no export of this package, so it is not replaced. Give another --out."
            )
    if out.exists() and not arguments.overwrite:
        raise UsageError(f"'{out}' exists; use --overwrite to replace that file, or another --out.")
    tensors, keys = rename_tensors(arguments.checkpoint, arguments.style)
    for line in keys.lines():
        say(line)
    if out.suffix == ".safetensors":
        write_atomic(out, safetensors.save(tensors))
    else:
        with atomic_path(out) as partial:
            torch.save(tensors, partial)
    card = bundle.read_card(arguments.checkpoint, TASK)
    about = {"bundle": card.identity(), "style": arguments.style, "limits": card.limits, "sha256": sha256(out)}
    write_atomic(record, json.dumps({"made_by": _MAKER, **about}, indent=1, ensure_ascii=False))
    say(f"Written to {out}: {len(tensors)} tensors, and what they are to {record.name}.")
    return 0


def _is_own(out: Path, record: Path) -> bool:
    """Tell whether both files are of an earlier export and unchanged since."""
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        return told["made_by"] == _MAKER and (not out.exists() or told["sha256"] == sha256(out))
    except (OSError, ValueError, LookupError, TypeError):
        return False


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
