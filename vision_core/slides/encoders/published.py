"""Published encoders of histology, rebuilt from their descriptions; users bring the weights.

UNI: ViT-L/16 with layer scale, class token (Chen et al., Nature Medicine 2024). PLIP: the image tower of CLIP ViT-B/32
with its projection (Huang et al., Nature Medicine 2023). CONCH: ViT-B/16 with an attention pool of one query, before
the contrastive projection and not normalised (Lu et al., Nature Medicine 2024).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from vision_core.bundles.bundle import Tensors

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True, kw_only=True)
class Published:
    """Description of a published encoder.

    Attributes:
        mean: Mean per channel, of values from 0 to 1.
        std: Standard deviation, likewise.
        mpp: Microns per pixel of the tiles that it was trained on, where published.
        source: Place from which its owner gives out the weights.
        dropped: Prefixes of entries of its file that are not used.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mpp: float | None
    source: str
    dropped: tuple[str, ...] = ()


PUBLISHED: Mapping[str, Published] = {
    "uni": Published(
        mean=_IMAGENET[0], std=_IMAGENET[1], mpp=0.5, source="MahmoodLab/UNI on the Hugging Face hub (gated)"
    ),
    "conch": Published(
        mean=_CLIP[0],
        std=_CLIP[1],
        mpp=0.5,
        source="MahmoodLab/CONCH on the Hugging Face hub (gated)",
        dropped=("text.", "text_decoder.", "logit_scale", "attn_pool_caption.", "ln_caption.", "proj_contrast"),
    ),
    "plip": Published(
        mean=_CLIP[0],
        std=_CLIP[1],
        mpp=None,
        source="vinid/plip on the Hugging Face hub",
        dropped=("text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids"),
    ),
}


def build_published(name: str) -> nn.Module:
    """Build a published encoder, from normalised images to ``(B, D)``, with uninitialised parameters."""
    with torch.device("meta"):  # initialising a large transformer takes many times longer than loading it
        network = {"uni": _uni, "conch": _Conch, "plip": _plip}[name]()
    return network.to_empty(device="cpu")


def own_names(name: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Rename the tensors of a published file for our network."""
    if name == "plip":
        return _from_hub_clip(tensors)
    if name == "conch":
        return {entry.removeprefix("visual."): tensor for entry, tensor in tensors.items()}
    return dict(tensors)


class _Conch(nn.Module):
    """Image tower of CONCH: normalised images ``(B, 3, H, W)`` to ``(B, 512)``.

    Designed for 448 px; for other sizes the position embedding is resampled. The attention pool is that of open_clip's
    CoCa (Yu et al. 2022): one learned query over all tokens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = timm.create_model(
            "vit_base_patch16_224", num_classes=0, global_pool="", img_size=448, dynamic_img_size=True
        )
        self.attn_pool_contrast = _AttentionPool(512, 768)
        self.ln_contrast = nn.LayerNorm(512)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features ``(B, 512)`` of images ``(B, 3, H, W)``."""
        return self.ln_contrast(self.attn_pool_contrast(self.trunk(images)))  # type: ignore[no-any-return]


class _AttentionPool(nn.Module):
    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, dim))
        self.attn = nn.MultiheadAttention(dim, 8, kdim=context_dim, vdim=context_dim, batch_first=True)
        self.ln_q = nn.LayerNorm(dim)
        self.ln_k = nn.LayerNorm(context_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool tokens ``(B, T, context_dim)`` to ``(B, dim)``."""
        tokens = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)  # (B, 1, dim)
        pooled: Tensor = self.attn(query, tokens, tokens, need_weights=False)[0]
        return pooled[:, 0]


def _uni() -> nn.Module:
    network: nn.Module = timm.create_model(
        "vit_large_patch16_224", num_classes=0, init_values=1e-5, dynamic_img_size=True
    )
    return network


def _plip() -> nn.Module:
    network: nn.Module = timm.create_model(
        "vit_base_patch32_clip_quickgelu_224", num_classes=512, dynamic_img_size=True
    )
    return network


def _from_hub_clip(tensors: Mapping[str, Tensor]) -> Tensors:
    """Rename CLIP's image tower from the names of the model hubs (``vision_model.…``) to timm's."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        if name.startswith("vision_model.encoder.layers."):
            number, _, entry = name.removeprefix("vision_model.encoder.layers.").partition(".")
            for theirs, ours in _LAYER.items():
                entry = entry.replace(theirs, ours)
            renamed[f"blocks.{number}.{entry}"] = tensor
        else:
            renamed[_OUTSIDE.get(name, name)] = tensor
    return _finished(renamed)


_LAYER = {
    "self_attn.out_proj": "attn.proj",
    "self_attn.": "attn.",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
}
_OUTSIDE = {
    "vision_model.embeddings.class_embedding": "cls_token",
    "vision_model.embeddings.position_embedding.weight": "pos_embed",
    "vision_model.embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "vision_model.pre_layrnorm.weight": "norm_pre.weight",  # spelt so in the files
    "vision_model.pre_layrnorm.bias": "norm_pre.bias",
    "vision_model.post_layernorm.weight": "norm.weight",
    "vision_model.post_layernorm.bias": "norm.bias",
    "visual_projection.weight": "head.weight",
}


def _finished(tensors: Tensors) -> Tensors:
    """Join queries, keys and values, shape embeddings as in timm, and add a projection bias of 0."""
    for name in [name for name in tensors if ".attn.q_proj." in name]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(part in tensors for part in parts):
            tensors[name.replace("q_proj", "qkv")] = torch.cat([tensors.pop(part) for part in parts])
    if "cls_token" in tensors:
        tensors["cls_token"] = tensors["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in tensors:
        tensors["pos_embed"] = tensors["pos_embed"][None]
    if "head.weight" in tensors:
        tensors["head.bias"] = torch.zeros(len(tensors["head.weight"]))
    return tensors
