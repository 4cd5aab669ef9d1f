"""Which encoder gives how many features a tile."""

from collections.abc import Mapping
from pathlib import Path

from vision_core.errors import InputError
from vision_core.slides.features.files import Features

_LOOK_LIKE = {
    192: "HIPT or ViT-T",
    320: "the last map of EfficientNet-Lite0",
    384: "ViT-S (Lunit DINO)",
    512: "PLIP, CONCH or ResNet-18",
    768: "CTransPath, CHIEF, CONCH v1.5 or Phikon",
    1024: "ResNet-50 truncated (CLAM), UNI or Phikon-v2",
    1280: "EfficientNet-Lite0 (lite0)",
    1536: "UNI2-h, Prov-GigaPath or H-optimus",
    2048: "ResNet-50",
    2560: "Virchow or Virchow2",
}


def check_dim(features: Features, expected: int, path: Path) -> None:
    """Refuse features of another width than a model takes.

    Raises:
        InputError: Names the encoder that the file says, else those that give such features.
    """
    if features.dim == expected:
        return
    raise InputError(
        f"'{path}' has {features.dim} features a tile, the model takes {expected}: {_source(features)}, "
        f"the model expects {described(expected)}. Extract features with the encoder that the model was trained on."
    )


def described(dim: int) -> str:
    """The encoders known to give so many features, with the number."""
    return f"{_LOOK_LIKE[dim]} ({dim})" if dim in _LOOK_LIKE else f"an unknown encoder ({dim})"


def _source(features: Features) -> str:
    encoder = features.attributes.get("encoder")
    if isinstance(encoder, Mapping) and "name" in encoder:
        return f"they are of '{encoder['name']}' ({features.dim})"
    return f"features look like {described(features.dim)}"
