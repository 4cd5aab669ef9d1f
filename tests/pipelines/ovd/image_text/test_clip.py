"""Models of open_clip: the trap of the activation, local files, float32."""

from pathlib import Path

import pytest
import torch
from safetensors import torch as safetensors

from pipelines.ovd.image_text.clip import OpenClipModel
from vision_core.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.slow  # the import alone takes seconds


@pytest.mark.parametrize(
    ("name", "tag", "told"),
    [
        ("ViT-B-32", "openai", "Use 'ViT-B-32-quickgelu'"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "has no weights 'laion2b_s34b_b79k'"),
        ("ViT-B-33", "openai", "no configuration 'ViT-B-33'"),
    ],
)
def test_configuration__of_other_weights_is_refused_before_anything_is_built(name: str, tag: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        OpenClipModel(name, Path("nothing.safetensors"), tag)


def test_weights__from_a_local_file(tmp_path: Path) -> None:
    made = OpenClipModel()
    crops = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0)).byte()
    images, texts = made.encode_images(crops), made.encode_texts(["a cat", "word " * 200])
    assert images.dtype == texts.dtype == torch.float32
    assert images.shape == texts.shape == (2, 512)
    torch.testing.assert_close(torch.cat([images, texts]).norm(dim=1), torch.ones(4))
    file = tmp_path / "clip.safetensors"
    safetensors.save_file({name: each.contiguous() for name, each in made.network.state_dict().items()}, file)
    loaded = OpenClipModel(weights=file)
    torch.testing.assert_close(loaded.encode_images(crops), images)
    assert loaded.fingerprint() != made.fingerprint()
    damaged = {**safetensors.load_file(file), "logit_scale": torch.tensor(float("nan"))}
    safetensors.save_file(damaged, tmp_path / "damaged.safetensors")
    with pytest.raises(CheckpointError, match="not finite, in 'logit_scale'"):
        OpenClipModel(weights=tmp_path / "damaged.safetensors")
    with pytest.raises(CheckpointError, match="no file"):
        OpenClipModel(weights=tmp_path / "none.safetensors")
    safetensors.save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="holds no weights of this configuration"):
        OpenClipModel(weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize(("name", "told"), [("visual.positional_embedding", "145"), ("positional_embedding", "64")])
def test_weights__of_another_image_size_or_length_of_sentences(name: str, told: str, tmp_path: Path) -> None:
    """The library stretches both, and all scores change."""
    small = "ViT-S-32-alt"
    tensors = {key: each.contiguous() for key, each in OpenClipModel(small).network.state_dict().items()}
    tensors[name] = torch.zeros(int(told), tensors[name].shape[1])
    file = tmp_path / "clip.safetensors"
    safetensors.save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"'{name}' has {told} places there"):
        OpenClipModel(small, file, "own")


def test_normalisation__is_that_of_the_weights() -> None:
    clip, mobile = OpenClipModel(), OpenClipModel("MobileCLIP-S1", tag="datacompdr")
    assert clip.pixel_mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    assert (mobile.pixel_mean, mobile.pixel_std) == ((0, 0, 0), (1, 1, 1))
    assert mobile.fingerprint() != OpenClipModel("MobileCLIP-S1", tag="own").fingerprint()
