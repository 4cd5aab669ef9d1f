"""CLIP models of open_clip, from local weight files, computed in float32."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.ovd.image_text.model import ImageTextModel
from vision_core.config.loading import fingerprint
from vision_core.errors import CheckpointError, ConfigError
from vision_core.files import sha256
from vision_core.optional import require

_OF_NUMPY = (".npz", ".npy")  # which the library reads otherwise
_OWN = "own"  # of weights without a tag of open_clip
_WHY = "image–text models of the kind clip are built by it"


class OpenClipModel(ImageTextModel):
    """Model of open_clip; it never downloads anything.

    Weights of OpenAI were trained with another activation (quick GELU) than the plain configuration of the same name;
    with the wrong one all scores change and nothing fails. What the library knows of a tag is therefore compared with
    the configuration, and a difference is refused.

    Args:
        name: Configuration of open_clip, such as ``ViT-B-32-quickgelu``.
        weights: Local file, safetensors or a state dict; None: random numbers, for tests of shapes and speed.
        tag: Where the weights are from, by open_clip's name, such as ``openai``; ``own`` for others.

    Raises:
        ConfigError: The configuration is not known, or is not the one of these weights.
        CheckpointError: The file cannot be used.
        MissingDependencyError: open_clip is not installed.
    """

    def __init__(self, name: str = "ViT-B-32-quickgelu", weights: Path | None = None, tag: str = "openai") -> None:
        super().__init__()
        library: Any = require("open_clip", _WHY)
        settings = library.get_model_config(name)
        if settings is None:
            raise ConfigError(f"image_text.name: open_clip has no configuration '{name}'.")
        if weights is not None:
            _check_activation(library, name, tag, bool(settings.get("quick_gelu", False)))
        with warnings.catch_warnings(), _silent():
            warnings.filterwarnings("error", message=".*QuickGELU.*")
            self.network: Any = library.create_model(name, pretrained=None, precision="fp32")
        if weights is not None:
            _load(library, self.network, weights)
        self._tokenize = library.get_tokenizer(name)
        made_of = ["open_clip", name, "random" if weights is None else sha256(weights)]
        self.embed_dim = int(settings["embed_dim"])
        side = self.network.visual.image_size
        self.image_size = int(side[0] if isinstance(side, tuple) else side)
        trained = library.get_pretrained_cfg(name, tag) or {}  # few models were trained with other values than CLIP
        self.pixel_mean = tuple(trained.get("mean") or library.OPENAI_DATASET_MEAN)
        self.pixel_std = tuple(trained.get("std") or library.OPENAI_DATASET_STD)
        is_usual = self.pixel_mean == library.OPENAI_DATASET_MEAN and self.pixel_std == library.OPENAI_DATASET_STD
        self._fingerprint = fingerprint(made_of if is_usual else [*made_of, self.pixel_mean, self.pixel_std])
        self.requires_grad_(False).eval()

    def fingerprint(self) -> str:
        """Return a hash of configuration and weight file."""
        return self._fingerprint

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed normalised images ``(N, 3, S, S)`` as ``(N, D)``."""
        return self.network.encode_image(images)  # type: ignore[no-any-return]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences as ``(N, D)``; what is longer than the model's context is cut off."""
        return self.network.encode_text(self._tokenize(list(texts)).to(self.device))  # type: ignore[no-any-return]


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the library's warning that it has read no weights: they are read right after."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _check_activation(library: Any, name: str, tag: str, is_quick: bool) -> None:  # noqa: ANN401 (a module)
    """Refuse a configuration whose activation is not that of the weights."""
    if tag == _OWN:
        return
    known = library.get_pretrained_cfg(name, tag)
    if not known:
        tags = ", ".join(library.list_pretrained_tags_by_model(name)[:8]) or "none"
        raise ConfigError(f"image_text.tag: '{name}' has no weights '{tag}' (known: {tags}). For others give 'own'.")
    if bool(known.get("quick_gelu", False)) is not is_quick:
        base = name.removesuffix("-quickgelu")
        right = base if is_quick else f"{base}-quickgelu"
        raise ConfigError(
            f"image_text.name: '{name}' computes another activation than the weights '{tag}' were trained with, which "
            f"would change all scores. Use '{right}'."
        )


def _load(library: Any, network: torch.nn.Module, weights: Path) -> None:  # noqa: ANN401
    try:
        stretched = _stretched(library, network, weights)
        library.load_checkpoint(network, str(weights), strict=True, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"image_text.weights: there is no file '{weights}'.") from error
    except Exception as error:  # the library and unpickling raise errors of many kinds
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise CheckpointError(
            f"image_text.weights: '{weights}' holds no weights of this configuration: {first[:160]}. TorchScript "
            "archives, as OpenAI gave them out, are not opened; take the safetensors file of the same weights."
        ) from error
    if stretched:
        raise CheckpointError(
            f"image_text.weights: '{weights}' is for images of another size or sentences of another length: "
            f"{stretched}. Stretched to fit they would change all scores. Give image_text.name the configuration of "
            "these weights."
        )
    if strange := [key for key, each in network.state_dict().items() if not each.isfinite().all()]:
        raise CheckpointError(
            f"image_text.weights: '{weights}' has numbers that are not finite, in '{strange[0]}'. Fetch it again."
        )


def _stretched(library: Any, network: torch.nn.Module, weights: Path) -> str:  # noqa: ANN401
    """Name a position embedding that the library would stretch without a word; empty where there is none."""
    if weights.suffix in _OF_NUMPY:
        return ""
    read = library.factory.load_state_dict(str(weights), weights_only=True)
    given = library.factory.convert_state_dict(network, read)
    for name, ours in network.state_dict().items():
        theirs = given.get(name, given.get(name.removeprefix("text.")))  # files of before have no prefix
        if name.endswith("positional_embedding") and theirs is not None and len(theirs) != len(ours):
            return f"'{name}' has {len(theirs)} places there and {len(ours)} here"
    return ""
