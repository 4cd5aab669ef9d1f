import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from vision_core.backbones.networks import build_backbone, lite0_imagenet
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Golden
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import CheckpointError, ConfigError, InputError
from vision_core.slides.encoders.encoder import Encoder, EncoderNetwork
from vision_core.slides.encoders.networks import build_encoder
from vision_core.slides.encoders.published import build_published
from vision_core.slides.features.files import Features, check_dim
from vision_core.slides.settings import EncoderSettings

IMAGENET_MEAN, IMAGENET_STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def tiles(count: int = 2, side: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def normalised(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    return ((torch.from_numpy(pixels) / 255 - IMAGENET_MEAN) / IMAGENET_STD).permute(0, 3, 1, 2)


def settings(name: str, weights: Path | None = None, **other: Any) -> EncoderSettings:  # noqa: ANN401
    return EncoderSettings(name=name, weights=weights, **({"input_px": 64} | other))


def test_lite0__what_the_shipped_classifier_reads() -> None:
    encoder = build_encoder(settings("lite0"), precision="off")
    network: Any = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(lite0_imagenet(), strict=False)
    pixels = tiles()
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) - 127.0) / 128.0
    with torch.inference_mode():
        expected = network.eval().forward_features(images).mean((2, 3))
    found = encoder.encode(pixels)
    assert encoder.dim == 1280 and found.shape == (2, 1280) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.std(0).max() > 0.01


def test_encode__single_tile_and_no_tile() -> None:
    encoder = build_encoder(settings("lite0"), precision="off")
    both = encoder.encode(tiles())
    torch.testing.assert_close(encoder.encode(tiles()[1:])[0], both[1], atol=1e-4, rtol=1e-4)
    assert encoder.encode(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 1280)
    with pytest.raises(ValueError, match="expected uint8"):
        encoder.encode(tiles().astype(np.float32))


def test_encode__leaves_no_gradient_and_is_always_in_evaluation() -> None:
    encoder = build_encoder(settings("lite0"), precision="off")
    before = encoder.encode(tiles())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.train()
    torch.testing.assert_close(encoder.encode(tiles()), before, atol=0, rtol=0)


@pytest.mark.parametrize(("side", "input_px"), [(256, 224), (100, 128), (96, 40)])
def test_prepare__resizes_as_pillow_does(side: int, input_px: int) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    built = EncoderNetwork(name="mean", network=network, weights="", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels = tiles(1, side)
    found = Encoder(built, input_px, precision="off").prepare(torch.from_numpy(pixels))
    expected = Image.fromarray(pixels[0]).resize((input_px, input_px), Image.Resampling.BILINEAR)
    assert np.abs(found[0].permute(1, 2, 0).numpy() - np.asarray(expected, np.float32)).max() <= 1


def test_bf16__close_to_float32_and_told_apart() -> None:
    plain, half = (build_encoder(settings("lite0"), precision=each) for each in ("off", "bf16"))
    a, b = plain.encode(tiles()), half.encode(tiles())
    assert b.dtype == torch.float32 and not torch.equal(a, b)
    assert functional.cosine_similarity(a, b).min() > 0.99
    assert plain.identity == half.identity | {"precision": "off"}


def test_identity__follows_weights_and_preprocessing(tmp_path: Path) -> None:
    first = build_encoder(settings("lite0")).identity
    assert first == build_encoder(settings("lite0")).identity
    assert (first["name"], first["dim"], first["input_px"], first["mean"]) == ("lite0", 1280, 64, [127.0] * 3)
    assert len(first["weights"]) == 64
    torch.save(lite0_imagenet() | {"bn1.bias": torch.zeros(32)}, tmp_path / "other.pth")
    other = build_encoder(settings("lite0", tmp_path / "other.pth")).identity
    assert {name for name in first if first[name] != other[name]} == {"weights"}
    assert build_encoder(settings("lite0", input_px=96)).identity["input_px"] == 96


def test_resnet50__ends_after_the_third_stage(tmp_path: Path) -> None:
    network = torchvision.models.resnet50(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet50.pth")
    encoder = build_encoder(settings("resnet50", tmp_path / "resnet50.pth"), precision="off")
    maps: list[Tensor] = []
    network.layer3.register_forward_hook(lambda *given: maps.append(given[2]))
    with torch.inference_mode():
        network(normalised(tiles()))
    assert encoder.dim == 1024
    torch.testing.assert_close(encoder.encode(tiles()), maps[0].mean((2, 3)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv_stem.weight": None}, "1 entries are missing, first 'conv_stem.weight'"),
        ({"backbone.bn1.weight": torch.ones(1)}, "1 entries are unknown, first 'backbone.bn1.weight'"),
        ({"bn1.bias": torch.ones(3)}, r"another shape, first 'bn1.bias \(3,\) instead of \(32,\)'"),
        ({"classifier.bias": None, "classifier.weight": torch.ones(1)}, ""),
    ],
)
def test_weights__strict_but_for_what_is_dropped(tmp_path: Path, change: dict[str, Tensor | None], reason: str) -> None:
    changed = {name: tensor for name, tensor in {**lite0_imagenet(), **change}.items() if tensor is not None}
    torch.save({"model": changed}, tmp_path / "w.pth")
    if not reason:
        assert build_encoder(settings("lite0", tmp_path / "w.pth")).dim == 1280
        return
    with pytest.raises(CheckpointError, match=reason):
        build_encoder(settings("lite0", tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"])
def test_timm__what_its_classifier_reads(tmp_path: Path, name: str) -> None:
    network: Any = timm.create_model(name, num_classes=10).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    px = 224 if "vit" in name else 64
    encoder = build_encoder(settings(f"timm:{name}", tmp_path / "w.safetensors", input_px=px), precision="off")
    pixels = tiles(2, px)
    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(images), pre_logits=True)
    torch.testing.assert_close(encoder.encode(pixels), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_torchvision__without_its_last_linear_layer(tmp_path: Path, name: str) -> None:
    network = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "w.pt"
    )
    encoder = build_encoder(settings(f"torchvision:{name}", tmp_path / "w.pt"), precision="off")
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    last.register_forward_hook(lambda *given: seen.append(given[1][0]))
    with torch.inference_mode():
        network(normalised(tiles()))
    assert encoder.dim == last.in_features
    torch.testing.assert_close(encoder.encode(tiles()), seen[0], atol=1e-4, rtol=1e-4)


def _hub_clip(blocks: int = 12, width: int = 768) -> dict[str, Tensor]:
    """Random tensors in the layout of the hub's CLIP model, ViT-B/32, with a piece of the text tower."""
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, 32, 32),
        "vision_model.embeddings.position_embedding.weight": (50, width),
        "visual_projection.weight": (512, width),
        "text_model.embeddings.token_embedding.weight": (3, 4),
        "text_projection.weight": (3, 4),
        "logit_scale": (),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"vision_model.{norm}.weight": (width,), f"vision_model.{norm}.bias": (width,)}
    for block in range(blocks):
        layer = f"vision_model.encoder.layers.{block}"
        for part, (out, into) in {
            **{f"self_attn.{each}": (width, width) for each in ("q_proj", "k_proj", "v_proj", "out_proj")},
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes |= {f"{layer}.{part}.weight": (out, into), f"{layer}.{part}.bias": (out,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{norm}.weight": (width,), f"{layer}.{norm}.bias": (width,)}
    tensors = {name: 0.05 * torch.randn(shape) for name, shape in shapes.items()}
    return tensors | {"vision_model.embeddings.position_ids": torch.arange(50)[None]}


def _clip_by_hand(tensors: dict[str, Tensor], images: Tensor) -> Tensor:
    """The image tower of CLIP (Radford et al. 2021), written out."""

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (768,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-5)

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    patches = functional.conv2d(images, tensors["vision_model.embeddings.patch_embedding.weight"], stride=32)
    tokens = patches.flatten(2).transpose(1, 2)
    first = tensors["vision_model.embeddings.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([first, tokens], 1) + tensors["vision_model.embeddings.position_embedding.weight"]
    x = norm("vision_model.pre_layrnorm", x)
    for block in range(12):
        layer = f"vision_model.encoder.layers.{block}"
        y = norm(f"{layer}.layer_norm1", x)
        heads = [linear(f"{layer}.self_attn.{each}_proj", y).unflatten(2, (12, 64)).transpose(1, 2) for each in "qkv"]
        attended = ((heads[0] / 8) @ heads[1].transpose(2, 3)).softmax(-1) @ heads[2]
        x = x + linear(f"{layer}.self_attn.out_proj", attended.transpose(1, 2).flatten(2))
        y = linear(f"{layer}.mlp.fc1", norm(f"{layer}.layer_norm2", x))
        x = x + linear(f"{layer}.mlp.fc2", y * torch.sigmoid(1.702 * y))
    return norm("vision_model.post_layernorm", x[:, 0]) @ tensors["visual_projection.weight"].T


@pytest.mark.slow
def test_plip__the_image_tower_of_clip(tmp_path: Path) -> None:
    tensors = _hub_clip()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    encoder = build_encoder(settings("plip", tmp_path, input_px=224), precision="off")
    pixels = tiles(2, 224)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    assert encoder.dim == 512 and encoder.notes(0.25) == ()
    torch.testing.assert_close(encoder.encode(pixels), _clip_by_hand(tensors, images), atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_conch__before_the_projection_and_not_normalised(tmp_path: Path) -> None:
    network: Any = build_published("conch").eval()
    for tensor in network.state_dict().values():
        tensor.normal_(std=0.05)
    for name in ("attn_pool_contrast.ln_q", "attn_pool_contrast.ln_k", "ln_contrast"):
        nn.init.ones_(network.get_submodule(name).weight)
        nn.init.zeros_(network.get_submodule(name).bias)
    nn.init.zeros_(network.attn_pool_contrast.attn.in_proj_bias)
    nn.init.zeros_(network.attn_pool_contrast.attn.out_proj.bias)
    tensors = {f"visual.{name}": tensor for name, tensor in network.state_dict().items()}
    extra = {"visual.proj_contrast": torch.ones(512, 512), "text.cls_emb": torch.ones(1), "logit_scale": torch.ones(())}
    torch.save(tensors | extra, tmp_path / "pytorch_model.bin")
    encoder = build_encoder(settings("conch", tmp_path, input_px=96), precision="off")
    pool: Any = network.attn_pool_contrast
    with torch.inference_mode():
        tokens = network.trunk(encoder.prepare(torch.from_numpy(tiles(1, 96))))
        keys = functional.layer_norm(tokens, (768,))
        query = functional.linear(functional.layer_norm(pool.query, (512,)), pool.attn.q_proj_weight)
        weights = (
            (query.view(8, 1, 64) / 8)
            @ functional.linear(keys[0], pool.attn.k_proj_weight).view(-1, 8, 64).permute(1, 2, 0)
        ).softmax(-1)
        values = functional.linear(keys[0], pool.attn.v_proj_weight).view(-1, 8, 64).transpose(0, 1)
        pooled = functional.linear((weights @ values).transpose(0, 1).reshape(1, 512), pool.attn.out_proj.weight)
    assert tokens.shape == (1, 37, 768) and encoder.dim == 512
    expected = functional.layer_norm(pooled, (512,))
    torch.testing.assert_close(encoder.encode(tiles(1, 96)), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_uni__class_token_of_a_large_transformer(tmp_path: Path) -> None:
    with torch.device("meta"):
        network: Any = timm.create_model("vit_large_patch16_224", num_classes=0, init_values=1e-5).eval()
    for tensor in network.to_empty(device="cpu").state_dict().values():
        tensor.normal_(std=0.05)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    encoder = build_encoder(settings("uni", tmp_path, input_px=224), precision="off")
    with torch.inference_mode():
        expected = network.forward_features(normalised(tiles(1, 224)))[:, 0]
    torch.testing.assert_close(encoder.encode(tiles(1, 224)), expected, atol=1e-3, rtol=1e-3)
    assert encoder.notes(0.5) == () and "trained on tiles of 0.5 microns" in encoder.notes(0.25)[0]


def _save_bundle(folder: Path, **changes: Any) -> dict[str, Tensor]:  # noqa: ANN401
    network = build_backbone("resnet10t", 3).eval()
    fields: dict[str, Any] = {
        "task": "pretrain",
        "method": "plain",
        "config": {},
        "architecture": {"backbone": "resnet10t", "num_classes": 3},
        "preprocessing": {"mean": (0.5, 0.4, 0.3), "std": 0.25, "channel_order": "bgr"},
        "classes": ("a", "b", "c"),
        "trained_on": TrainedOn(description="noise", synthetic=True),
    }
    golden = Golden(inputs={"x": torch.ones(1)}, answer=lambda tensors, inputs: {"y": torch.zeros(1)})
    bundle.save(folder, network.state_dict(), Card(**fields | changes), golden)
    return network.state_dict()


def test_bundle__backbone_and_preprocessing_of_the_card(tmp_path: Path) -> None:
    tensors = _save_bundle(tmp_path / "model")
    encoder = build_encoder(settings("bundle", tmp_path / "model"), precision="off")
    network: Any = build_backbone("resnet10t", 3)
    network.load_state_dict(tensors)
    mean = torch.tensor([0.5, 0.4, 0.3])
    images = ((torch.from_numpy(tiles()[..., ::-1].copy()) / 255 - mean) / 0.25).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network.eval().forward_features(images).mean((2, 3))
    torch.testing.assert_close(encoder.encode(tiles()), expected, atol=1e-4, rtol=1e-4)
    card = bundle.read_card(tmp_path / "model")
    assert encoder.identity["weights"] == card.hashes["weights.safetensors"]


def test_bundle__refused_when_it_is_no_backbone(tmp_path: Path) -> None:
    _save_bundle(tmp_path / "unsaid", architecture={"name": "x"})
    _save_bundle(tmp_path / "unknown", architecture={"backbone": "x", "num_classes": 3})
    _save_bundle(tmp_path / "unseen", preprocessing={"size": 3})
    for name in ("unsaid", "unknown", "unseen"):
        with pytest.raises(CheckpointError, match=name):
            build_encoder(settings("bundle", tmp_path / name))


class Running:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (Path("ran"),)


def test_weights__a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": torch.ones(1), "x": Running()}, tmp_path / "my new.pth")
    (tmp_path / "my old.pth").write_bytes(pickle.dumps(Running(), protocol=2))
    for name in ("my new.pth", "my old.pth"):
        with pytest.raises(CheckpointError, match=r"could run code .* import-weights '.*' .* --i-trust-this-file"):
            build_encoder(settings("resnet50", tmp_path / name))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lite1", "'lite1' is not known. Give one of lite0, resnet50, bundle, timm:NAME"),
        (
            "resnet50",
            r"a local file of weights; none is downloaded. On a machine with internet access: python -c",
        ),
        ("timm:resnet18", r"timm.create_model\('resnet18', pretrained=True\)"),
        ("timm:hf-hub:a/b", "timm has no 'hf-hub:a/b'"),
        ("timm:nothing", "timm has no 'nothing'"),
        ("torchvision:resnet18", "models.get_model.'resnet18', weights='DEFAULT'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no classifier"),
        ("hub:a", "'hub:a' is not known"),
        ("uni", r"Ask its authors for them: MahmoodLab/UNI"),
        ("conch", "MahmoodLab/CONCH"),
        ("plip", "vinid/plip"),
        ("bundle", "the bundle is missing"),
    ],
)
def test_build_encoder__says_how_to_get_it(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_encoder(settings(name))


def test_weights__missing_empty_or_not_finite(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.pth").touch()
    (tmp_path / "empty.safetensors").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    save_file({"conv1.weight": torch.full((1,), torch.nan)}, tmp_path / "nan.safetensors")
    for name, reason in {
        "missing.pth": "is not a file",
        "folder": "holds none of model.safetensors",
        "empty.pth": "damaged or no PyTorch file",
        "empty.safetensors": "damaged or no safetensors file",
        "list.pth": "no tensors by name",
        "nan.safetensors": "NaN or infinity in 1 tensors, first 'conv1.weight'",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            build_encoder(settings("resnet50", tmp_path / name))


def test_build_encoder__a_size_that_the_network_cannot_take(tmp_path: Path) -> None:
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"another shape, first 'pos_embed \(1, 197, 192\)"):
        build_encoder(settings("timm:vit_tiny_patch16_224", tmp_path / "w.safetensors", input_px=64))
    built = EncoderNetwork(name="vit", network=timm.create_model("vit_tiny_patch16_224", num_classes=0), weights="")
    with pytest.raises(ConfigError, match=r"encoder.input_px: 'vit' cannot take tiles of 64 px"):
        Encoder(built, 64)
    with pytest.raises(ConfigError, match="not one row a tile"):
        Encoder(EncoderNetwork(name="conv", network=nn.Conv2d(3, 2, 1), weights=""), 64)


def test_check_dim__names_the_likely_encoder() -> None:
    features = Features(features=np.ones((2, 1536), np.float32))
    check_dim(features, 1536, Path("a.h5"))
    with pytest.raises(InputError, match=r"1536 features a tile, .* 1024: features look like UNI2-h.*\(1536\)"):
        check_dim(features, 1024, Path("a.h5"))
    known = Features(features=np.ones((2, 7), np.float32), attributes={"encoder": {"name": "ours"}})
    with pytest.raises(InputError, match=r"they are of 'ours' \(7\), the model expects an unknown encoder \(8\)"):
        check_dim(known, 8, Path("a.h5"))
