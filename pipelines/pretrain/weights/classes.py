"""Classes of bundles and of images, matched by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.index import Images
from pipelines.pretrain.data.reading import frozen_classes
from vision_core.errors import CheckpointError


def match_classes(path: Path, found: Sequence[str], wanted: Sequence[str], remedy: str) -> None:
    """Refuse classes that are not those of a bundle by name; their order may differ.

    Args:
        path: The bundle.
        found: Its classes.
        wanted: Classes of the images or of the settings.
        remedy: What to do about others.

    Raises:
        CheckpointError: A name is in one of them alone.
    """
    if strange := sorted(set(found) ^ set(wanted)):
        raise CheckpointError(
            f"'{path}' was trained on {len(found)} classes, the data has {len(wanted)} (first class of only one of "
            f"them: '{strange[0]}'). {remedy}"
        )


def scored_classes(config: PretrainConfig, classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the classes in which a list to score on is read, with notes.

    Those that a person states come before ``classes``, those of a model: numbers among the labels count in that order.
    """
    data = config.data
    is_listed = data.class_list is not None and data.class_list.is_file()
    stated = frozen_classes(data) if is_listed else data.classes
    if stated or data.format != "medmnist" or all(name.isdigit() for name in classes):
        return stated or classes, ()
    listing = ", ".join(f"{number} is '{name}'" for number, name in enumerate(classes))
    return classes, (
        f"The labels are numbers, and take the names of the model: {listing}; data.classes states others.",
    )


def relabelled(images: Images, classes: tuple[str, ...]) -> Images:
    """Number the labels of images by ``classes``, which name the same."""
    if images.classes == classes:
        return images
    if images.is_multi_label:
        labels = images.labels[:, [images.classes.index(name) for name in classes]]
    else:
        labels = np.array([classes.index(name) for name in images.classes], np.int64)[images.labels]
    return replace(images, classes=classes, labels=labels)


def in_order(tensors: Mapping[str, Tensor], head: str, theirs: Sequence[str], ours: Sequence[str]) -> dict[str, Tensor]:
    """Reorder the rows of a classifier's head from the class names ``theirs`` to ``ours``.

    Args:
        tensors: State dict of the classifier.
        head: Prefix of the entries of its head.
        theirs: Classes in the order of the rows.
        ours: Classes in the wanted order.
    """
    rows = torch.tensor([list(theirs).index(name) for name in ours])
    return {name: each[rows] if name.startswith(f"{head}.") else each for name, each in tensors.items()}
