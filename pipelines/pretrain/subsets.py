"""Few images of every class, for curves over the size of a training set: the same ones whatever is trained on them."""

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.index import Images
from vision_core.errors import DataError
from vision_core.randomness import key


def few_per_class(images: Images, per_class: int, seed: int) -> Images:
    """``per_class`` random images of every class, or all of a class that has fewer, in the order of the list.

    They follow from the seed and the names of the classes alone. A larger subset of the same seed contains a smaller
    one, so that a curve over sizes adds images and exchanges none.

    Raises:
        DataError: Images may have several labels, so that there is no such subset.
    """
    if images.is_multi_label:
        raise DataError(f"'{images.name}' has several labels an image: few images of each class cannot be chosen.")
    chosen = [_of_class(images, label, per_class, seed) for label in range(len(images.classes))]
    kept = np.sort(np.concatenate(chosen))
    scarce = [name for name, indices in zip(images.classes, chosen, strict=True) if len(indices) < per_class]
    notes = [f"classes with fewer than {per_class} images: {len(scarce)} of {len(images.classes)}"] if scarce else []
    return images.keep(kept, *notes)


def _of_class(images: Images, label: int, per_class: int, seed: int) -> NDArray[np.int64]:
    indices = np.flatnonzero(images.labels == label)
    order = np.random.default_rng(key("subset", seed, images.classes[label])).permutation(len(indices))
    return indices[order[:per_class]]
