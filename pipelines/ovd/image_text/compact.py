"""Compact image–text model for machines without CLIP weights: three convolutions, and a frozen sentence encoder."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.ovd.image_text.minilm import WIDTH, SentenceEncoder
from pipelines.ovd.image_text.model import ImageTextModel
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Golden, Tensors
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError
from vision_core.randomness import key

METHOD = "image_text"  # on the card
_CHANNELS = (24, 48, 96)
_STRIDE = 2 ** len(_CHANNELS)
_FIRST_SCALE, _LARGEST_SCALE = 10.0, 100.0


class CompactModel(ImageTextModel):
    """Image–text model of some 180,000 trained numbers beside a frozen ``MiniLM``.

    The trained numbers alone are stored; ``MiniLM`` comes with its package.

    Args:
        text: The sentence encoder.
        embed_dim: Width of the embeddings.
        image_size: Side of the crops in pixels, a multiple of 8.

    Raises:
        ValueError: The side is no multiple of 8.
    """

    pixel_mean = (0.5, 0.5, 0.5)
    pixel_std = (0.25, 0.25, 0.25)

    def __init__(self, text: SentenceEncoder, *, embed_dim: int = 64, image_size: int = 32) -> None:
        super().__init__()
        if image_size % _STRIDE or image_size <= 0:
            raise ValueError(f"image_size is '{image_size}': expected a multiple of {_STRIDE}")
        self.embed_dim, self.image_size = embed_dim, image_size
        layers: list[nn.Module] = []
        for before, after in zip((3, *_CHANNELS), _CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        cells = (image_size // _STRIDE) ** 2
        self.image_tower = nn.Sequential(*layers, nn.Flatten(), nn.Linear(_CHANNELS[-1] * cells, embed_dim))
        self.text_projection = nn.Linear(WIDTH, embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
        self._text = [text]  # in a list, so that it is neither trained nor stored with this module

    def scale(self) -> Tensor:
        """Return the trained factor of the cosines, 100 at most."""
        return self.log_scale.clamp(max=math.log(_LARGEST_SCALE)).exp()

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed normalised images ``(N, 3, S, S)`` as ``(N, D)``."""
        return self.image_tower(images)  # type: ignore[no-any-return]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences as ``(N, D)``."""
        return self.project_texts(self.read_texts(texts))

    def read_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences by the frozen encoder alone: ``(N, 384)``."""
        return self._text[0].to(self.device)(texts)  # type: ignore[no-any-return]

    @torch.no_grad()
    def read_names(self, names: Sequence[str]) -> Tensor | None:
        """Embed plain names by the frozen encoder: trained on few names, the projection brings any word near one."""
        return self.read_texts(names).float().cpu()

    def project_texts(self, read: Tensor) -> Tensor:
        """Project sentences ``(N, 384)`` of the frozen encoder to ``(N, D)``."""
        return self.text_projection(read)  # type: ignore[no-any-return]

    def fingerprint(self) -> str:
        """Hash the trained numbers, and those of the frozen encoder."""
        digest = hashlib.sha256(f"compact {self._text[0].fingerprint}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def architecture(self) -> dict[str, object]:
        """Describe the module, for the card."""
        return {
            "kind": "compact",
            "embed_dim": self.embed_dim,
            "image_size": self.image_size,
            "text": f"MiniLM, weights {self._text[0].fingerprint}",
        }


def save_compact(folder: Path, model: CompactModel, card: Card) -> Card:
    """Write a compact model as a bundle; returns the card as written."""
    described = card.model_copy(
        update={
            "method": METHOD,
            "architecture": model.architecture,
            "preprocessing": {
                "crop": f"{model.image_size} x {model.image_size} px, bicubic, RGB",
                "mean": model.pixel_mean,
                "std": model.pixel_std,
                "values": "0 to 1",
            },
        }
    )
    text, shape = model._text[0], {"embed_dim": model.embed_dim, "image_size": model.image_size}

    def compute(tensors: Tensors, inputs: Tensors) -> Tensors:
        other = CompactModel(text, **shape)
        other.load_state_dict(tensors)
        return answer(other.eval(), inputs)

    generator = torch.Generator().manual_seed(key("golden"))
    inputs = {
        "crops": torch.randint(0, 256, (2, 3, model.image_size, model.image_size), generator=generator).byte(),
        "read": torch.randn(2, WIDTH, generator=generator),
    }
    return bundle.save(folder, model.state_dict(), described, Golden(inputs=inputs, answer=compute))


@torch.no_grad()
def answer(model: CompactModel, inputs: Mapping[str, Tensor]) -> Tensors:
    """Compute the golden outputs: embeddings of two crops, projections of two sentences."""
    read = model.project_texts(inputs["read"].to(model.device))
    return {"images": model.encode_images(inputs["crops"]).cpu(), "texts": read.cpu()}


def load_compact(path: Path, text: SentenceEncoder) -> CompactModel:
    """Load a compact model, ready to embed.

    Raises:
        CheckpointError: It is no sound bundle of one, or it was trained with other weights of the sentence encoder.
    """
    content = bundle.load(path)
    stated = content.card.architecture
    if stated.get("kind") != "compact":
        raise CheckpointError(
            f"'{path}' holds '{content.card.identity()}', no compact image–text model. Give image_text.weights one."
        )
    try:
        model = CompactModel(text, embed_dim=int(stated["embed_dim"]), image_size=int(stated["image_size"]))
        model.load_state_dict(content.tensors)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise CheckpointError(f"'{path}': the weights do not fit the card: {first[:160]}") from error
    if stated.get("text") != model.architecture["text"]:
        raise CheckpointError(
            f"'{path}' was trained with '{stated.get('text')}', installed is '{model.architecture['text']}'. Train it "
            "anew, or install the package of its lock file."
        )
    return model.requires_grad_(False).eval()
