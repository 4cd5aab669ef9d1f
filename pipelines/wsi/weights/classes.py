"""Classes of bundles and of data, matched by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.models.build import build_model
from pipelines.wsi.weights.bundles import model_settings
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError


def match_classes(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse classes that are not those of a bundle by name; their order may differ.

    Args:
        path: The bundle.
        found: Its classes.
        wanted: Classes of the data or of the settings.

    Raises:
        CheckpointError: A name is in one of them alone.
    """
    strange = [f"'{name}'" for name in (*wanted, *found) if (name in wanted) != (name in found)]
    if strange:
        raise CheckpointError(
            f"'{path}' has the classes {', '.join(found)}, the data {', '.join(wanted)}: {', '.join(strange[:3])} "
            f"stand in one of them alone. Give labels, or data.classes=[{', '.join(found)}], by the bundle's names."
        )


def relabelled(records: Sequence[SlideRecord], theirs: Sequence[str], ours: Sequence[str]) -> tuple[SlideRecord, ...]:
    """Renumber labels that index the classes ``theirs`` to index ``ours``, which names the same."""
    return tuple(replace(record, label=list(ours).index(theirs[record.label])) for record in records)


def in_order(card: Card, tensors: Mapping[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    """Put the weights of a bundle's network, rows and columns of classes, into the order of ``classes``.

    Args:
        card: Card of the bundle, which names the same classes.
        tensors: State dict of its aggregator.
        classes: Classes in the wanted order.
    """
    order = torch.tensor([card.classes.index(name) for name in classes])
    with torch.device("meta"):
        wider = build_model(model_settings(card), int(card.architecture["feature_dim"]), len(classes) + 1).state_dict()
    ordered = dict(tensors)
    for name, tensor in tensors.items():
        for axis, (size, other) in enumerate(zip(tensor.shape, wider[name].shape, strict=True)):
            if size != other:  # it grows with the classes
                ordered[name] = ordered[name].index_select(axis, order)
    return ordered
