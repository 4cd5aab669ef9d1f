import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data.views import Batch, CentreViews, TrainingViews, random_box, training_view
from pipelines.pretrain.data_settings import Augmentation, Policy, PretrainData
from tests.bad_inputs import labelled_images as museum
from vision_core.errors import InputError
from vision_core.training.loaders import EpochBatches, batches


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _views(root: Path, **changes: object) -> TrainingViews:
    data = PretrainData.model_validate({"root": museum.folders(root), "cache": None, "image_px": 16, **changes})
    return TrainingViews(read_images(data, "train"), data, seed=3)


def test_training_view__cut_and_resized_as_torchvision_does() -> None:
    image, augment = _noise(90, 130), Augmentation(flip=0)
    left, top, right, bottom = random_box((90, 130), augment.crop_area, augment.crop_aspect, random.Random(7))
    place = (top, left, bottom - top, right - left)
    expected = F.resized_crop(Image.fromarray(image), *place, [32, 32], InterpolationMode.BILINEAR, antialias=True)
    np.testing.assert_array_equal(training_view(image, 32, augment, 7), np.array(expected))


def test_training_view__tensor_path_of_torchvision_differs_by_two_at_most() -> None:
    image, augment = _noise(90, 130), Augmentation(flip=0)
    left, top, right, bottom = random_box((90, 130), augment.crop_area, augment.crop_aspect, random.Random(7))
    tensor = torch.from_numpy(image[top:bottom, left:right].transpose(2, 0, 1).copy())
    expected = F.resize(tensor, [32, 32], InterpolationMode.BILINEAR, antialias=True).numpy().transpose(1, 2, 0)
    difference = training_view(image, 32, augment, 7).astype(int) - expected
    assert np.abs(difference).max() <= 2


def test_training_view__flip_is_the_mirror_image() -> None:
    image = _noise(40, 40)
    plain, mirrored = (training_view(image, 32, Augmentation(flip=flip), 5) for flip in (0, 1))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_random_box__areas_and_proportions_are_as_asked() -> None:
    draw = random.Random(0)
    boxes = np.array([random_box((224, 224), (0.08, 1.0), (3 / 4, 4 / 3), draw) for _ in range(3000)])
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    area, aspect = width * height / 224**2, width / height
    assert boxes.min() >= 0
    assert boxes.max() <= 224
    assert 0.075 < area.min() < 0.09
    assert area.max() > 0.95
    assert 0.7 < aspect.min() < 0.78
    assert 1.28 < aspect.max() < 1.43
    assert abs(np.log(aspect).mean()) < 0.01
    assert abs((boxes[:, 0] + boxes[:, 2]).mean() / 2 - 112) < 2


@pytest.mark.parametrize(("size", "box"), [((1, 1), (0, 0, 1, 1)), ((20, 1000), (487, 0, 513, 20))])
def test_random_box__where_nothing_fits_the_middle_is_taken(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    found = random_box(size, (1.0, 1.0), (3 / 4, 4 / 3), random.Random(0))
    assert np.abs(np.array(found) - box).max() <= 1


def test_items__follow_from_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    views = _views(tmp_path)
    first = views[0, 2].images
    assert first.shape == (1, 3, 16, 16)
    assert first.dtype == torch.uint8
    random.seed(99)
    torch.manual_seed(99)
    assert torch.equal(views[0, 2].images, first)
    assert not torch.equal(views[1, 2].images, first)
    again = TrainingViews(views.images, views.data, seed=4)
    assert not torch.equal(again[0, 2].images, first)


@pytest.mark.parametrize("workers", [1, 2])
def test_items__workers_and_resume_change_nothing(workers: int, tmp_path: Path) -> None:
    views = _views(tmp_path)
    order = EpochBatches(num_items=6, batch_size=4, epochs=2)
    alone: list[Batch] = list(batches(views, order))
    shared: list[Batch] = list(batches(views, replace(order, start_step=1), workers=workers))
    assert len(shared) == len(alone) - 1
    for ours, theirs in zip(shared, alone[1:], strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert ours.indices.tolist() == theirs.indices.tolist()
        assert ours.labels.tolist() == [views.images.labels[index] for index in ours.indices]


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment", "augmix", "autoaugment"])
def test_policies__change_the_image_by_their_seed_and_leave_torch_alone(policy: Policy) -> None:
    image = _noise(64, 64)
    augment = Augmentation(policy=policy)
    before = torch.get_rng_state()
    views = [training_view(image, 32, augment, seed) for seed in (*range(8), *range(8))]
    assert torch.equal(torch.get_rng_state(), before)
    plain = [training_view(image, 32, Augmentation(), seed) for seed in range(8)]
    for first, second in zip(views[:8], views[8:], strict=True):
        np.testing.assert_array_equal(first, second)
    assert any((view != other).any() for view, other in zip(views, plain, strict=False))


def test_erase__one_rectangle_becomes_the_mean_grey() -> None:
    view = training_view(np.zeros((64, 64, 3), np.uint8), 64, Augmentation(erasing=1), 1)
    rows, columns = np.nonzero(view[..., 0])
    area = len(rows) / 64**2
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert 0.015 < area < 0.35
    assert set(np.unique(view)) == {0, 81}


def test_erasing__is_off_unless_asked_for() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    assert not any(training_view(image, 32, Augmentation(), seed).any() for seed in range(20))
    assert all(training_view(image, 32, Augmentation(erasing=1), seed).any() for seed in range(20))


def test_erasing__follows_from_the_seed_and_leaves_torch_and_the_crop_alone() -> None:
    image, augment = _noise(64, 64), Augmentation(erasing=0.5)
    before = torch.get_rng_state()
    views = [training_view(image, 32, augment, seed) for seed in (*range(12), *range(12))]
    assert torch.equal(torch.get_rng_state(), before)
    changed = []
    for seed, (first, second) in enumerate(zip(views[:12], views[12:], strict=True)):
        np.testing.assert_array_equal(first, second)
        different = (first != training_view(image, 32, Augmentation(), seed)).any(axis=2)
        assert (first[different] == 81).all()
        changed.append(different.any())
    assert 0 < sum(changed) < 12


def test_centre_views__the_same_in_every_epoch_and_named(tmp_path: Path) -> None:
    views = _views(tmp_path)
    centre = CentreViews(views.images, views.data)
    assert torch.equal(centre[0, 1].images, centre[5, 1].images)
    assert centre.names([0, 5]) == ["train/CT__abd__normal/0.png", "train/US__thyroid/1.png"]
    batch = centre.collate([centre[0, 0], centre[0, 5]])
    assert batch.images.shape == (2, 3, 16, 16)
    assert (batch.labels.tolist(), batch.indices.tolist()) == ([0, 2], [0, 5])


def test_items__several_labels_an_image(tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz", labels=14)
    data = PretrainData(root=path, format="medmnist", cache=None, image_px=16)
    views = TrainingViews(read_images(data, "train"), data, seed=0)
    batch = views.collate([views[0, 0], views[0, 1]])
    assert batch.labels.shape == (2, 14)
    assert batch.labels.dtype == torch.int64


def test_items__a_file_that_breaks_stops_with_its_name_and_the_way_out(tmp_path: Path) -> None:
    views = _views(tmp_path)
    views.images[0].path.write_bytes(b"")
    with pytest.raises(InputError, match=r"0\.png' is empty.*Set data\.on_corrupt to 'skip'"):
        views[0, 0]
