"""Key maps from the entries of other programs' weights files to those of our backbones.

Recognised: prefixes of wrappers (``module.``, ``_orig_mod.``, ``backbone.`` and so on), networks that were converted to
a sequence (``backbone.4.0.conv1.weight`` for ``layer1.0.conv1.weight``, as in RadImageNet's PyTorch files), and heads
under other names.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vision_core.backbones.networks import BackboneSpec

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "classifier_network.", "network.", "net.")
_HEADS = ("fc", "classifier", "head", "head.fc", "linear", "output", "last_linear", "fc.1", "classifier.1", "dense",
          "class_layers.out")  # fmt: skip
_RESNET_SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_DENSENET_SEQUENCE = {"0": "features"}

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Map from the entries of a file to those of a backbone.

    Attributes:
        ours: Our name of each entry that fits, by its name in the file.
        unused: Entries of the file that have no counterpart.
        missing: Our entries, without heads and counters, that the file lacks.
        head: Number of rows of the classifier in the file; 0 without one.
        share: Share of our entries that the file has.
    """

    ours: Mapping[str, str]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    head: int
    share: float

    def lines(self) -> list[str]:
        """Describe the map: a line for each pair of parts, with the number of their entries."""
        pairs = Counter(_parts(there, here) for there, here in self.ours.items())
        told = [f"key map: '{there}' -> '{here}' ({count} tensors)" for (there, here), count in pairs.items()]
        return [*told, *(f"unused: '{name}'" for name in self.unused), *(f"missing: '{name}'" for name in self.missing)]


def map_keys(found: Mapping[str, Tensor], own: _Shapes, spec: BackboneSpec) -> KeyMap:
    """Map the entries of a file to those of a backbone.

    Args:
        found: Tensors of the file by name.
        own: Shapes of ``build_backbone(spec.name, 0)``, by name.
        spec: The backbone.
    """
    candidates = _renamed(list(found), spec)
    ours = {there: here for there, here in candidates.items() if own.get(here) == tuple(found[there].shape)}
    heads = _heads(found, {name: each for name, each in candidates.items() if name not in ours}, spec)
    unused = tuple(name for name in found if name not in ours and name not in heads)
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    missing = wanted - set(ours.values())
    rows = next((found[there].shape[0] for there, here in heads.items() if here.endswith("weight")), 0)
    return KeyMap(
        ours=ours | heads,
        unused=unused,
        missing=tuple(name for name in own if name in missing),
        head=rows,
        share=1 - len(missing) / len(wanted),
    )


def sequential_name(name: str, spec: BackboneSpec) -> str:
    """Rename an entry as in RadImageNet's PyTorch files, networks converted to a sequence; heads keep their names."""
    for number, part in _sequence(spec).items():
        if name.startswith(f"{part}."):
            return f"backbone.{number}.{name.removeprefix(f'{part}.')}"
    return name


def _renamed(names: list[str], spec: BackboneSpec) -> dict[str, str]:
    """Rename entries in our style, whether they fit or not."""
    shown = {name: _bare(name) for name in names}
    if spec.name.startswith("densenet"):
        shown = {name: _dense_name(each) for name, each in shown.items()}
    sequence = _sequence(spec)
    for name, each in shown.items():
        first, _, rest = each.partition(".")
        if first in sequence:
            shown[name] = f"{sequence[first]}.{rest}"
        elif spec.name.startswith("densenet") and first in {"conv0", "norm0", "norm5"} | _dense_parts():
            shown[name] = f"features.{each}"
    return shown


def _dense_name(name: str) -> str:
    """Remove MONAI's ``layers.`` inside a dense layer, and the points of torchvision's oldest files (``norm.1``)."""
    return re.sub(r"(denselayer\d+\.)(?:layers\.)?(norm|conv)\.?(\d)\.", r"\1\2\3.", name)


def _bare(name: str) -> str:
    """Remove all prefixes of wrappers from a name; none of ours begins with one."""
    while prefix := next((each for each in _PREFIXES if name.startswith(each)), ""):
        name = name.removeprefix(prefix)
    return name


def _heads(found: Mapping[str, Tensor], candidates: Mapping[str, str], spec: BackboneSpec) -> dict[str, str]:
    """Map the linear layer on the backbone's features to our head, whatever its name."""
    for stem in _HEADS:
        weights = [there for there, here in candidates.items() if here == f"{stem}.weight"]
        weights = [each for each in weights if found[each].ndim == 2 and found[each].shape[1] == spec.dim]
        if weights:
            biases = [there for there, here in candidates.items() if here == f"{stem}.bias"]
            heads = dict.fromkeys(weights, f"{spec.classifier}.weight")
            return heads | dict.fromkeys(biases, f"{spec.classifier}.bias")
    return {}


def _sequence(spec: BackboneSpec) -> Mapping[str, str]:
    if spec.name in ("resnet18", "resnet50"):
        return _RESNET_SEQUENCE
    return _DENSENET_SEQUENCE if spec.name.startswith("densenet") else {}


def _dense_parts() -> set[str]:
    return {f"{part}{number}" for part in ("denseblock", "transition") for number in range(1, 5)}


def _parts(there: str, here: str) -> tuple[str, str]:
    """Return the parts in which two names differ: ``backbone.4`` and ``layer1`` of ``backbone.4.0.bn1.bias``."""
    if there == here:
        return (here.partition(".")[0],) * 2
    one, other = there.split("."), here.split(".")
    while len(one) > 1 and len(other) > 1 and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return ".".join(one), ".".join(other)
