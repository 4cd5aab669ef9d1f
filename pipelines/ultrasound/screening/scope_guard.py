"""Scope guard: tells frames that are unlike those that a network was trained on, before any result is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.lists import FrameList
from pipelines.ultrasound.weights.bundles import Frames, Model
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError, NotFiniteError
from vision_core.evaluation.scope import Scope, fit_scope, outside

Guard = tuple[Scope, ...]  # of each network of a bundle
MEMBERS = "members"  # in the card of several networks
MOST_FRAMES = 256  # of a list, evenly spaced: neighbours of a cine are alike, and a large network takes long
_AT_ONCE = 16
_AXES = 16  # with four, CT slices of a head lie among the frames of a phantom

OUTSIDE_NOTE = "unlike the B-mode frames that the model was trained on, and not segmented"


def guard_record(model: Model, training: FrameList, held_out: FrameList) -> dict[str, Any]:
    """Fit the guard of a network for its card: features of training frames, the threshold on held-out ones.

    Frames of a subject are alike, so the share of false alarms that the record states is no guarantee for new subjects.

    Raises:
        NotFiniteError: The network has diverged.
    """
    known, new = (_features(model, frames) for frames in (training, held_out))
    for frames, found in ((training, known), (held_out, new)):
        if not np.isfinite(found).all():
            raise NotFiniteError(f"features of the list '{frames.name}'")
    return fit_scope(known, new, num_axes=_AXES).to_record()


def guard_of(card: Card) -> Guard:
    """Read the guard of a card; empty where it has none, as bundles of earlier versions.

    Raises:
        CheckpointError: It is damaged.
    """
    if not card.scope:
        return ()
    return tuple(Scope.from_record(each) for each in card.scope.get(MEMBERS, [card.scope]))


def outside_frames(guard: Guard, features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which frames ``(n,)`` with features ``(n, D)`` lie outside; none without a guard.

    Of several networks, whose features follow each other, at least half must say so: each of them has learned from
    frames of its own, and sets its threshold on others.

    Raises:
        CheckpointError: The guard is of other features than the network's.
    """
    if not guard:
        return np.zeros(len(features), bool)
    ends = np.cumsum([len(each.mean) for each in guard])
    if features.shape[1] != ends[-1]:
        raise CheckpointError(
            f"The card's scope is of '{ends[-1]}' features, the network has {features.shape[1]}. Train it again."
        )
    parts = np.split(features, ends[:-1], axis=1)
    votes = np.sum([outside(each, part) for each, part in zip(guard, parts, strict=True)], axis=0)
    return np.asarray(2 * votes >= len(guard))


def _features(model: Model, frames: FrameList) -> NDArray[np.float32]:
    count = min(len(frames), MOST_FRAMES)
    places = [each * len(frames) // count for each in range(count)]
    found = []
    for start in range(0, count, _AT_ONCE):
        read = [frames.read(place) for place in places[start : start + _AT_ONCE]]
        for size in dict.fromkeys(each.image.shape for each in read):
            alike = [each for each in read if each.image.shape == size]
            seen = Frames(images=[each.image for each in alike], white=[each.white for each in alike])
            found.append(model.with_features(seen)[1])
    return np.concatenate(found)
