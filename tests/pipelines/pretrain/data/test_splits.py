"""Whether lists fit the steps of a run, and what is said of them."""

import re
from pathlib import Path

import pytest

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.index import Images
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data.splits import check_steps, check_training_list, few_per_class, remarks, with_new_statistics
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.pipeline import PretrainPipeline
from tests.bad_inputs import labelled_images as museum
from tests.pipelines.pretrain.tiny import make_folders, words
from vision_core.backbones.networks import build_backbone
from vision_core.config.loading import load_runs
from vision_core.errors import ConfigError, DataError


def config(data: Path, *more: str) -> PretrainConfig:
    return load_runs(PretrainConfig, None, words(data, *more))[""]


def test_check_training_list__one_class_has_nothing_to_be_told_from(tmp_path: Path) -> None:
    alone = config(make_folders(tmp_path / "one", ("alone",)))
    with pytest.raises(DataError, match="one:train' has '1' class, 'alone': there is nothing to tell apart"):
        PretrainPipeline().prepare(alone)
    several = museum.medmnist(tmp_path / "set.npz", labels=2)
    wanted = config(several, "data.format=medmnist")
    check_training_list(wanted, read_images(wanted.data, "train"))


def test_check_steps__an_epoch_without_a_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"5 images make no step of '6' with train\.drop_last"):
        check_steps(config(tmp_path), 5)
    check_steps(config(tmp_path, "train.drop_last=false"), 5)


@pytest.mark.parametrize(
    ("more", "is_refused"),
    [
        ([], True),
        (["freeze_norms=true"], True),
        (["freeze_norms=true", "reinforce.baseline=batch_mean"], True),
        (["freeze_norms=true", "reinforce.baseline=ema"], False),
        (["freeze_norms=true", "reinforce.baseline=none", "reinforce.normalise=true"], True),
        (["reinforce.baseline=ema"], True),
        (["classifier=vit_small", "policy=unlearned"], False),
        (["classifier=vit_small", "policy=released"], True),
        (["classifier=vit_small", "policy=none"], False),
        (["method=transfer", "transfer.parts=[linear]"], False),
        (["method=transfer", "transfer.parts=[full]"], True),
    ],
)
def test_check_steps__one_image_alone_where_nothing_needs_two(
    more: list[str], is_refused: bool, tmp_path: Path
) -> None:
    wanted = config(tmp_path, *more, "train.drop_last=false")
    if not is_refused:
        check_steps(wanted, 7)
        return
    with pytest.raises(ConfigError, match="of 7 images would have '1' for a process, fewer than 2"):
        check_steps(wanted, 7)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["policy=none", "train.batch_size=64", "optim.lr=0.1"], r"0\.1, .* to 64 it would be 0\.025"),
        (["policy=none", "train.batch_size=64", "train.accumulate=4", "optim.lr=0.1"], ""),
        (["policy=none", "train.batch_size=64", "optim.lr=0.025"], ""),
        (["method=finetune", "train.batch_size=128", "optim.lr=0.001"], r"0\.001, .* to 128 it would be 0\.0005"),
        (["method=transfer"], ""),
    ],
)  # fmt: skip
def test_remarks__the_rate_of_another_batch(more: list[str], told: str, tmp_path: Path) -> None:
    found = [line for line in remarks(config(tmp_path, *more)) if "published optim.lr" in line]
    assert len(found) == bool(told)
    assert all(re.search(told, line) for line in found)


def test_with_new_statistics__tells_the_number_of_images_there_were(tmp_path: Path) -> None:
    few = config(make_folders(tmp_path), "train.batch_size=256", "averaging.reestimate_norms=3")
    told = with_new_statistics(build_backbone("resnet10t", 3), few)
    assert told == "Statistics of the norms were computed anew over 3 batches of 18 images."


def _images(root: Path) -> Images:
    counts = {"train": {"a": 12, "b": 3, "c": 7}}
    return read_images(PretrainData(root=museum.folders(root, counts), cache=None), "train")


def _names(images: Images) -> list[str]:
    return [images[index].name for index in range(len(images))]


def test_few__so_many_of_each_class_in_the_order_of_the_list(tmp_path: Path) -> None:
    images = _images(tmp_path)
    few = few_per_class(images, 5, seed=0)
    assert few.class_counts.tolist() == [5, 3, 5]
    assert _names(few) == [name for name in _names(images) if name in set(_names(few))]
    assert few.notes[-1] == "classes with fewer than 5 images: 1 of 3"


def test_few__follow_from_the_seed_and_grow_by_addition(tmp_path: Path) -> None:
    images = _images(tmp_path)
    assert _names(few_per_class(images, 4, 1)) == _names(few_per_class(images, 4, 1))
    assert _names(few_per_class(images, 4, 1)) != _names(few_per_class(images, 4, 2))
    assert set(_names(few_per_class(images, 2, 1))) < set(_names(few_per_class(images, 4, 1)))


def test_few__several_labels_an_image(tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz", labels=14)
    images = read_images(PretrainData(root=path, format="medmnist", cache=None), "train")
    with pytest.raises(DataError, match="several labels an image"):
        few_per_class(images, 2, 0)
