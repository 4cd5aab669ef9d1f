"""Import of released classifiers, such as RadImageNet's: recognise the backbone, rename and check the tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.pretrain.weights.keymaps import KeyMap, map_keys
from vision_core.backbones.networks import BACKBONES, BackboneSpec, build_backbone
from vision_core.bundles.bundle import check_finite
from vision_core.bundles.foreign_weights import read_weights
from vision_core.errors import CheckpointError
from vision_core.files import sha256
from vision_core.training.batch_norms import extreme_statistics

_LEAST_SHARE = 0.95
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Released:
    """Released classifier of another program.

    Attributes:
        network: Network with its weights; without a head where the file has none.
        backbone: Name of the backbone.
        classes: Names in the order of the logits; empty without a head.
        origin: Name and sha256 of the file, as a description of its training data.
        notes: The key map and all inferred facts, a line each.
    """

    network: nn.Module
    backbone: str
    classes: tuple[str, ...]
    origin: str
    notes: tuple[str, ...]


def read_released(
    path: Path, classes: tuple[str, ...] = (), *, trust: bool = False, weights_key: str | None = None
) -> Released:
    """Read a file of weights and infer to which backbone they belong.

    Args:
        path: ``.pt``, ``.pth`` or ``.safetensors``; a state dict, or one under ``model`` or ``state_dict``.
        classes: Names in the order of its logits; empty: numbered.
        trust: Also read pickles, in a restricted way.
        weights_key: Name of the set of weights, where the file holds several; empty: the average.

    Raises:
        CheckpointError: Unreadable, not finite, of an unknown architecture, of two networks at once, or with another
            number of classes.
    """
    foreign = read_weights(path, trust=trust, key=weights_key)
    found = foreign.tensors
    check_finite(found, f"'{path}'")
    spec, keys = _recognise(found, path)
    names = _class_names(keys.head, classes, path)
    network = build_backbone(spec.name, keys.head)
    given = {here: found[there] for there, here in keys.ours.items()}
    lacks_bias = keys.head > 0 and f"{spec.classifier}.bias" not in given
    if lacks_bias:
        given[f"{spec.classifier}.bias"] = torch.zeros(keys.head)
    network.load_state_dict({name: given.get(name, each) for name, each in network.state_dict().items()}, strict=True)
    return Released(
        network=network.eval(),
        backbone=spec.name,
        classes=names,
        origin=f"unknown: imported from '{path.name}' (sha256 {sha256(path)})",
        notes=(
            *foreign.notes,
            *keys.lines(),
            *([f"the head has no bias: '{spec.classifier}.bias' is set to 0"] if lacks_bias else []),
            *_facts(spec, keys, classes),
            *_extremes(found),
        ),
    )


def _recognise(found: Mapping[str, Tensor], path: Path) -> tuple[BackboneSpec, KeyMap]:
    """Find the backbone that has the largest share of its entries in the file."""
    maps = {name: map_keys(found, _shapes(name), spec) for name, spec in BACKBONES.items()}
    best = max(maps, key=lambda name: (maps[name].share, -len(maps[name].unused)))
    keys = maps[best]
    if min(keys.share, 1 - len(keys.unused) / len(found)) < _LEAST_SHARE:
        lacking = ", ".join(f"'{name}'" for name in keys.missing[:_SHOWN]) or "none"
        strange = ", ".join(f"'{name}'" for name in keys.unused[:_SHOWN]) or "none"
        raise CheckpointError(
            f"'{path}' has '{keys.share:.0%}' of the tensors of {best}, the most similar network, and "
            f"{len(keys.unused)} of its {len(found)} have no place there; {_LEAST_SHARE:.0%} are needed of both. "
            f"Missing, for example: {lacking}; without a counterpart: {strange}. "
            f"Known networks: {', '.join(BACKBONES)}."
        )
    _refuse_whole_numbers(found, keys, path)
    _refuse_other_shapes(found, best, keys, path)
    if keys.missing:
        strange = f" (without a counterpart: '{keys.unused[0]}')" if keys.unused else ""
        raise CheckpointError(
            f"'{path}' lacks {len(keys.missing)} of the tensors of a {best}, first '{keys.missing[0]}'{strange}: they "
            "would stay random, and every answer with them. Save the whole network."
        )
    _refuse_two_networks(keys, path)
    _refuse_other_bias(found, keys, BACKBONES[best], path)
    return BACKBONES[best], keys


def _refuse_whole_numbers(found: Mapping[str, Tensor], keys: KeyMap, path: Path) -> None:
    """Refuse quantised weights, which need scales that the file does not have."""
    whole = [there for there in keys.ours if not found[there].is_floating_point()]
    whole = [there for there in whole if not there.endswith("num_batches_tracked")]
    if whole:
        kind = str(found[whole[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"'{path}': {len(whole)} tensors, first '{whole[0]}', hold '{kind}' and no scales: quantised weights. Give "
            "the file from before quantisation (float32 or float16)."
        )


def _refuse_other_shapes(found: Mapping[str, Tensor], name: str, keys: KeyMap, path: Path) -> None:
    """Refuse entries of a known name with another shape; they would stay random."""
    shapes = _shapes(name)
    for here in keys.missing:
        for there in keys.unused:
            if there == here or there.endswith(f".{here}"):
                raise CheckpointError(
                    f"'{path}': '{there}' has the shape {tuple(found[there].shape)}, in a {name} '{here}' has "
                    f"{shapes[here]}. Give weights of a network with three input channels and the usual widths."
                )


def _refuse_two_networks(keys: KeyMap, path: Path) -> None:
    """Refuse two entries for one of ours: a teacher beside its student, or heads of two tasks."""
    before: dict[str, str] = {}
    for there, here in keys.ours.items():
        if here in before:
            one, other = (_prefix(each, here) for each in (before[here], there))
            raise CheckpointError(
                f"'{path}' holds two networks, under '{one}' and '{other}': '{before[here]}' and '{there}' are both "
                f"'{here}' here. Save one of them in a file of its own."
            )
        before[here] = there


def _prefix(there: str, here: str) -> str:
    """Return the part of a file's name before ours, or its first part if it ends in another name."""
    return there.removesuffix(here) if there.endswith(here) else there.partition(".")[0] + "."


def _refuse_other_bias(found: Mapping[str, Tensor], keys: KeyMap, spec: BackboneSpec, path: Path) -> None:
    ours = {here: there for there, here in keys.ours.items()}
    weight, bias = ours.get(f"{spec.classifier}.weight"), ours.get(f"{spec.classifier}.bias")
    if weight and bias and tuple(found[bias].shape) != (keys.head,):
        shapes = tuple(found[bias].shape), tuple(found[weight].shape)
        raise CheckpointError(
            f"'{path}': '{bias}' has the shape {shapes[0]}, '{weight}' {shapes[1]}: they are not of one head; "
            f"({keys.head},) is expected. Save the network again."
        )


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in build_backbone(name, 0).state_dict().items()}


def _class_names(rows: int, classes: tuple[str, ...], path: Path) -> tuple[str, ...]:
    if classes and len(classes) != rows:
        raise CheckpointError(
            f"'{path}' has {rows} rows in its head, data.classes lists {len(classes)}. "
            "Give the names in the order of its logits, or none."
        )
    return classes or tuple(f"class_{number}" for number in range(rows))


def _facts(spec: BackboneSpec, keys: KeyMap, classes: tuple[str, ...]) -> list[str]:
    head = f"a head of {keys.head} classes" if keys.head else "no head: only method=transfer or finetune can use it"
    named = "" if classes or not keys.head else "; their names are not in the file, give data.classes"
    return [
        f"architecture: {spec.name}, {keys.share:.1%} of its tensors found; {head}{named}",
        "normalisation: not in the file; the card has that of this task (mean 0.3162, std 0.3213 of 0 to 1)",
    ]


def _extremes(found: Mapping[str, Tensor]) -> list[str]:
    extreme = extreme_statistics(found)
    if not extreme:
        return []
    worst = max(extreme, key=lambda name: extreme[name])
    return [
        f"warning: '{worst}' holds a running variance of {extreme[worst]:,.0f} ({len(extreme)} layers beyond 10,000): "
        "statistics of other preprocessing, or of constant images. Compute them anew on your images: import again with "
        "averaging.reestimate_norms=200 and data.root=IMAGES, or set that in a later stage."
    ]
