import pytest
import torch

from pipelines.pretrain.config import Mixing
from pipelines.pretrain.data.mixing import Box, cut_box, cutmix, mix, mixup
from tests.pipelines.pretrain.example import close

IMAGES = torch.stack([torch.full((3, 8, 8), value) for value in (0.0, 1.0, 2.0)])
TARGETS = torch.eye(3)


def test_mixup__shares_of_image_and_target() -> None:
    images, targets = mixup(IMAGES, TARGETS, 0.75)
    close(images[:, 0, 0, 0], [0.5, 0.75, 1.75])  # partners are 2, 0, 1
    close(targets, [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]])


def test_cutmix__partner_in_the_box_and_targets_by_area() -> None:
    images, targets = cutmix(IMAGES, TARGETS, Box(top=2, bottom=6, left=0, right=4))
    assert (images[0, :, 2:6, :4] == 2).all()
    assert images[0].sum() == 2 * 3 * 16
    close(targets[0], [0.75, 0, 0.25])
    assert (IMAGES[0] == 0).all()


def test_cut_box__area_and_border() -> None:
    assert cut_box((8, 16), 0.75, (4, 8)) == Box(2, 6, 4, 12)
    assert cut_box((8, 8), 0.75, (0, 7)) == Box(0, 2, 5, 8)
    assert cut_box((8, 8), 1.0, (3, 3)) == Box(3, 3, 3, 3)


def test_mix__off_returns_the_batch_itself() -> None:
    images, targets = mix(IMAGES, TARGETS, Mixing(), 0)
    assert images is IMAGES
    assert targets is TARGETS


@pytest.mark.parametrize("settings", [Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(mixup=0.4, cutmix=1.0)])
def test_mix__what_is_switched_on_acts_and_follows_from_the_seed(settings: Mixing) -> None:
    images, targets = mix(IMAGES, TARGETS, settings, 5)
    again, _ = mix(IMAGES, TARGETS, settings, 5)
    assert torch.equal(images, again)
    assert not torch.equal(images, IMAGES)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), targets @ torch.tensor([0.0, 1, 2]))


def test_mix__both_switched_on_take_turns() -> None:
    mixed = [mix(IMAGES, TARGETS, Mixing(mixup=1, cutmix=1), seed)[0][0] for seed in range(20)]
    assert any(image.amax() > image.amin() for image in mixed)  # cutmix makes edges
    assert any(0 < image.amin() == image.amax() < 2 for image in mixed)  # mixup makes a new, even grey
