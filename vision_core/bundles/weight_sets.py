"""Sets of weights in one checkpoint: a network, its moving average, a teacher and a student."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

CONTAINERS = ("model", "state_dict", "model_state_dict", "net", "network", "weights", "params", "student")
_AVERAGE = re.compile(r"[Tt]eacher|EMA|Ema|(?<![a-z])(ema|swa|avg|averaged?)(?![a-z])", re.ASCII)
_NO_NETWORK = re.compile(r"optim|sched|scaler|grad|momentum|rng|hyper|config|args|meta", re.IGNORECASE)
_LEAST_SHARE = 0.3  # of the tensors of the largest set: an average may leave statistics out, a setting is no set
_MAX_DEPTH = 4
_FLAT = "ema_"
_SWAPPING = ("mmcv_version", "mmengine_version")


@dataclass(frozen=True, kw_only=True)
class WeightSets:
    """Named sets of tensors in a checkpoint.

    Attributes:
        by_name: Tensors of each set by its place in the file; the empty name is the file itself.
        chosen: Name of the set that is taken.
        averaged: Name of a set that its program has averaged although the name does not tell.
    """

    by_name: Mapping[str, dict[str, Tensor]]
    chosen: str
    averaged: str | None = None

    @property
    def is_chosen_averaged(self) -> bool:
        """Whether the chosen set is an average."""
        return self.chosen == self.averaged or (self.averaged is None and is_average(self.chosen))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the chosen set; empty where there is none."""
        return self.by_name.get(self.chosen, {})

    @property
    def has_choice(self) -> bool:
        """Whether an average stands beside another set."""
        kinds = {is_average(name) for name in self.by_name}
        return len(kinds) > 1

    def names(self) -> str:
        """List the names in quotes, for messages."""
        return ", ".join(f"'{name}'" for name in self.by_name)


def find_sets(content: object, preferred: Sequence[str] = ()) -> WeightSets:
    """Find the sets of weights in a checkpoint and choose one.

    The first of ``preferred`` that is there is chosen, else an average (``ema``, ``teacher``), else the usual
    containers (``model``, ``state_dict``), else the largest set.
    """
    everything = _with_flat_averages(_sets_below(content, 0))
    least = _LEAST_SHARE * max((len(tensors) for tensors in everything.values()), default=0)
    found = {name: tensors for name, tensors in everything.items() if len(tensors) >= least}
    named = [name for name in preferred if name in found]
    averages = [name for name in found if is_average(name)]
    swapped = [name for name in found if name not in averages] if averages and _is_swapped(content) else []
    averages = swapped or averages
    usual = [name for key in CONTAINERS for name in found if name.partition(".")[0] == key]
    by_size = sorted(found, key=lambda name: -len(found[name]))
    return WeightSets(
        by_name=found,
        chosen=next(iter([*named, *averages, *usual, *by_size]), ""),
        averaged=swapped[0] if swapped else None,
    )


def _is_swapped(content: object) -> bool:
    """Tell whether mmcv or mmengine wrote a checkpoint: they save the average under the network's own names."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return isinstance(meta, Mapping) and any(name in meta for name in _SWAPPING)


def _with_flat_averages(sets: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Take averages out of sets that hold them beside the weights, ``ema_layer_weight`` beside ``layer.weight``."""
    found = {}
    for name, tensors in sets.items():
        flat = {f"{_FLAT}{own.replace('.', '_')}": own for own in tensors}
        averages = {flat[there]: tensor for there, tensor in tensors.items() if there in flat}
        own = {there: tensor for there, tensor in tensors.items() if there not in flat}
        found[name] = own
        if averages:  # of the parameters alone: what is counted and not learned is shared
            found[f"{name}.ema" if name else "ema"] = own | averages
    return found


def is_average(name: str) -> bool:
    """Check whether a name is that of averaged weights."""
    return _AVERAGE.search(name) is not None


def _sets_below(content: object, depth: int) -> dict[str, dict[str, Tensor]]:
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return {}
    inner: dict[str, dict[str, Tensor]] = {}
    for name, value in content.items():
        if isinstance(name, str) and not _NO_NETWORK.search(name):
            below = _sets_below(value, depth + 1)
            inner |= {name if len(below) == 1 else f"{name}.{child}": each for child, each in below.items()}
    own = {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    has_usual = any(name.partition(".")[0] in CONTAINERS or is_average(name) for name in inner)
    return {"": own} if own and not has_usual else inner
