import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from vision_core.detection.model.detector import Detector, Targets
from vision_core.detection.model.vgg import DropoutHead, Vgg16, convolutions
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import ConfigError

CLASSES = ("car", "bus")
SMALL = {
    "backbone": "vgg16",
    "head_channels": 16,
    "anchor_sizes": ((16, 32),),
    "rpn_post_nms_train": 20,
    "rpn_post_nms_test": 10,
    "roi_batch": 8,
    "pixel_std": (60.0, 60.0, 60.0),
}


def test_settings__of_vgg_are_its_published_head() -> None:
    found = DetectorSettings(backbone="vgg16")
    assert (found.neck, found.pool_size, found.head_channels) == ("none", 7, 4096)
    assert (found.channel_order, found.pixel_std, found.freeze_at) == ("bgr", (1.0, 1.0, 1.0), 2)
    assert DetectorSettings.model_validate(found.model_dump(mode="json")) == found
    assert DetectorSettings(backbone="vgg16", head_channels=32).head_channels == 32


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"backbone": "vgg16", "neck": "fpn"}, r"detector\.neck: 'vgg16' has no fpn; .* Set detector\.neck=none"),
        ({"backbone": "r50", "neck": "none"}, r"detector\.neck: 'r50' needs a neck\. Set detector\.neck=fpn"),
    ],
)
def test_detector__backbone_and_neck_must_fit(values: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Detector(DetectorSettings.model_validate(values), CLASSES)


def test_vgg__layers_have_the_places_of_torchvision() -> None:
    theirs = make_layers(cfgs["D"], batch_norm=False)[:30]  # without pool5
    ours = Vgg16(0)
    assert [type(each) for each in ours.features] == [type(each) for each in theirs]
    ours.features.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.rand(1, 3, 50, 70)  # not divisible by 16
    with torch.no_grad():
        found = ours(image)["conv5"]
        assert torch.equal(found, theirs(image))
    assert found.shape == (1, 512, 3, 4)
    assert convolutions()["conv1_1"] == 0
    assert convolutions()["conv5_3"] == 28
    assert len(convolutions()) == 13


@pytest.mark.parametrize(("freeze_at", "first"), [(0, "features.0.weight"), (2, "features.10.weight")])
def test_vgg__freezes_the_first_stages(freeze_at: int, first: str) -> None:
    trained = [name for name, parameter in Vgg16(freeze_at).named_parameters() if parameter.requires_grad]
    assert trained[0] == first


def test_head__drops_half_in_training_alone_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    head = DropoutHead(ShapeSpec(channels=2, height=7, width=7), conv_dims=[], fc_dims=[4000])
    maps = torch.rand(1, 2, 7, 7)
    whole = head.eval()(maps)
    dropped = head.train()(maps)
    alive = whole[0] > 0
    gone = (dropped[0] == 0) & alive
    assert (gone.sum() / alive.sum()).item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(dropped[0][alive & ~gone], 2 * whole[0][alive & ~gone])


def test_head__a_seed_drops_the_same_numbers_beside_any_other_image() -> None:
    torch.manual_seed(0)
    head = DropoutHead(ShapeSpec(channels=2, height=7, width=7), conv_dims=[], fc_dims=[64, 64]).train()
    maps = torch.rand(5, 2, 7, 7)

    def embedded(rows: Tensor, *draws: tuple[int, int]) -> Tensor:
        head.draws = draws
        found: Tensor = head(rows)
        return found

    both = embedded(maps, (2, 7), (3, 8))
    torch.testing.assert_close(embedded(maps[:2], (2, 7)), both[:2])  # a product's last bits depend on its size
    torch.testing.assert_close(embedded(maps[2:], (3, 8)), both[2:])
    assert (embedded(maps[:2], (2, 9)) == 0).ne(both[:2] == 0).any()
    assert not torch.equal(head(maps[:2]), head(maps[:2])), "seeds are of one call alone"


def test_detector__trains_and_gives_what_methods_ask_for() -> None:
    torch.manual_seed(0)
    detector = Detector(DetectorSettings.model_validate(SMALL), CLASSES)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    assert detector.map_shape == (512, 7, 7)
    assert detector.embedded_dim == 16
    features = detector.train().features([image])
    targets = [Targets(boxes=torch.tensor([[8.0, 8, 40, 50]]), labels=torch.tensor([1]))]
    losses = detector.losses(features, targets, [(1, 2)])
    sum(losses.values(), torch.zeros(())).backward()
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
    detector.freeze()
    with torch.no_grad():
        features = detector.features([image])
        boxes = detector.propose(features)[0].boxes
        pooled = detector.pool(features, [boxes])
        assert pooled.shape == (len(boxes), 512, 7, 7)
        assert detector.embed(pooled).shape == (len(boxes), 16)
        # The pooled region is that of the map: what detectron2 pools by its scale of 1/16, torchvision does too.
        expected = torchvision.ops.roi_align(features.maps["conv5"], [boxes], 7, 1 / 16, 0, aligned=True)
        torch.testing.assert_close(pooled, expected)
