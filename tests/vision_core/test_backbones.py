import timm
import torch

from vision_core.assets import lite0_weights
from vision_core.backbones import LITE0_MEAN, LITE0_STD, lite0_features, lite0_imagenet


def test_lite0_imagenet__fills_every_tensor_of_the_classifier() -> None:
    network = timm.create_model("tf_efficientnet_lite0")
    missing, unexpected = network.load_state_dict(lite0_imagenet(), strict=False)
    assert len(lite0_imagenet()) == 247
    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)


def test_lite0_imagenet__renamed_in_order() -> None:
    stored = torch.load(lite0_weights(), map_location="cpu", weights_only=True)
    tensors = lite0_imagenet()
    for theirs, ours in {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_var": "bn1.running_var",
        "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
        "_fc.bias": "classifier.bias",
    }.items():
        assert torch.equal(stored[theirs], tensors[ours]), ours


def test_lite0_features__maps_by_stride() -> None:
    image = torch.full((1, 3, 64, 64), 100.0)
    normalised = (image - torch.tensor(LITE0_MEAN).view(3, 1, 1)) / torch.tensor(LITE0_STD).view(3, 1, 1)
    network = lite0_features(pretrained=True).eval()
    with torch.no_grad():
        maps = network(normalised)
    assert [tuple(each.shape[1:]) for each in maps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    assert all(each.isfinite().all() for each in maps)


def test_lite0_features__pretrained_is_the_shipped_file() -> None:
    pretrained = lite0_features(pretrained=True).state_dict()
    expected = lite0_imagenet()
    assert torch.equal(pretrained["blocks.6.0.conv_pw.weight"], expected["blocks.6.0.conv_pw.weight"])
