"""What a classifier may start on: images of a size and a kind that it can take."""

from pathlib import Path

import pytest
import torch

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.weights.bundles import load_classifier
from pipelines.pretrain.weights.initial import check_image_size, initial_classifier
from tests.bad_inputs import labelled_images as museum
from tests.pipelines.pretrain.test_predict import write_bundle
from tests.pipelines.pretrain.tiny import make_folders, words
from vision_core.backbones.networks import build_backbone
from vision_core.backbones.settings import BACKBONE_NAMES
from vision_core.config.loading import load_runs
from vision_core.errors import CheckpointError, ConfigError

NEED_32 = ("convnext_tiny", "densenet121", "densenet161")


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_check_image_size__what_strides_leave_nothing_of_is_refused(name: str) -> None:
    check_image_size(name, 32)
    if name not in NEED_32:
        check_image_size(name, 8)
        return
    with pytest.raises(ConfigError, match=rf"data\.image_px '31' is too small for a {name}\. Set it to 32 or more"):
        check_image_size(name, 31)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BACKBONE_NAMES if name != "densenet161"])
def test_check_image_size__allows_what_the_networks_take(name: str) -> None:
    side = 32 if name in NEED_32 else 8
    assert build_backbone(name, 2).train()(torch.randn(2, 3, side, side)).shape == (2, 2)


def config(data: Path, *more: str) -> PretrainConfig:
    return load_runs(PretrainConfig, None, words(data, *more))[""]


def test_initial_classifier__images_that_are_too_small_for_it(tmp_path: Path) -> None:
    small = config(make_folders(tmp_path), "classifier=convnext_tiny", "data.image_px=16", "mask.kernel=3")
    with pytest.raises(ConfigError, match="too small for a convnext_tiny"):
        initial_classifier(small, read_images(small.data, "train"))


@pytest.mark.parametrize("are_independent", [False, True])
def test_initial_classifier__of_images_of_another_kind_is_refused(are_independent: bool, tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz", labels=1 if are_independent else 3)
    bundle = write_bundle(tmp_path / "model", ("a", "b", "c"), are_independent=are_independent)
    words_ = ["data.format=medmnist", "data.classes=[a,b,c]", "method=finetune", f"source.weights={bundle}"]
    wanted = config(path, *words_)
    images = read_images(wanted.data, "train")
    with pytest.raises(CheckpointError, match=r"was trained on images of '.*', these have '.*'\. Give"):
        initial_classifier(wanted, images)
    moved = config(path, *words_, "method=transfer")
    assert initial_classifier(moved, images).notes[-1] == "The head 'fc' is new."


def test_initial_classifier__classes_in_another_order_keep_their_heads(tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data")
    bundle = write_bundle(tmp_path / "model", ("striped", "bright", "dark"))
    wanted = config(data, "method=finetune", f"source.weights={bundle}")
    start = initial_classifier(wanted, read_images(wanted.data, "train"))  # classes by the alphabet
    image = torch.rand(1, 3, 32, 32)
    [theirs], [ours] = load_classifier(bundle).network(image), start.module.eval()(image)
    torch.testing.assert_close(ours, theirs[[1, 2, 0]])
    assert start.notes[-1].startswith("Classes: the bundle has them in another order")
