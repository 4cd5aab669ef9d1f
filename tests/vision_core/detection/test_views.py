"""Views against pixels worked out by hand, and their draws."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.detection.views import LabelledViews, TargetViews
from vision_core.errors import InputError
from vision_core.images.augmentation_settings import StrongViewSettings
from vision_core.images.reading import read_image

OWN_SIZE = DetectorSettings(shortest_edge_px=0, anchor_sizes=((16,),))
DOUBLE = DetectorSettings(shortest_edge_px=128, anchor_sizes=((16,),))
PLAIN = StrongViewSettings(kind="none")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    root = make_voc(tmp_path_factory.mktemp("voc"), count=4)
    return read_dataset(DetectionData(root=root, classes=SHAPES), "train", with_labels=True)


def test_target__weak_view_is_the_image_itself_in_every_epoch(dataset: DetectionDataset) -> None:
    views = TargetViews(dataset, OWN_SIZE)
    image = torch.from_numpy(read_image(dataset.records[1].path)).permute(2, 0, 1)
    assert all(torch.equal(views[epoch, 1].weak[0], image) for epoch in range(8))


def test_target__strong_view_has_its_size_and_other_pixels(dataset: DetectionDataset) -> None:
    batch = TargetViews(dataset, DOUBLE)[0, 0]
    assert batch.weak[0].shape == batch.strong[0].shape == (3, 128, 192)
    assert not torch.equal(batch.weak[0], batch.strong[0])
    assert batch.indices == [0]
    assert batch.targets == []


def test_target__draws_follow_from_seed_epoch_and_index_alone(dataset: DetectionDataset) -> None:
    views = TargetViews(dataset, OWN_SIZE)
    first = views[0, 0].strong[0]
    views[0, 1]  # another item between two reads must not matter
    assert torch.equal(views[0, 0].strong[0], first)
    assert not torch.equal(views[1, 0].strong[0], first)
    other_seed = TargetViews(dataset, OWN_SIZE, seed=1)
    assert not torch.equal(other_seed[0, 0].strong[0], first)


def test_target__below_the_smallest_anchor_is_refused(dataset: DetectionDataset) -> None:
    """Row C7 of the bad inputs."""
    views = TargetViews(dataset, DetectorSettings(shortest_edge_px=0, anchor_sizes=((128, 256, 512),)))
    with pytest.raises(InputError, match=r"train_000\.png' is '96 x 64' px.* smallest anchor has 128 px"):
        views[0, 0]


def test_labelled__flipped_half_of_the_time_with_its_boxes(dataset: DetectionDataset) -> None:
    views = LabelledViews(dataset, OWN_SIZE, strong_view=PLAIN)
    record = dataset.records[0]
    image, boxes = read_image(record.path), torch.from_numpy(record.boxes)
    flipped_boxes = torch.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], dim=1)
    num_flipped = 0
    for epoch in range(40):
        batch = views[epoch, 0]
        seen = batch.strong[0].permute(1, 2, 0).numpy()
        is_flipped = not np.array_equal(seen, image)
        np.testing.assert_array_equal(seen, image[:, ::-1] if is_flipped else image)
        assert torch.equal(batch.targets[0].boxes, flipped_boxes if is_flipped else boxes)
        assert batch.targets[0].labels.tolist() == record.labels.tolist()
        num_flipped += is_flipped
    assert 10 <= num_flipped <= 30


def test_labelled__boxes_grow_with_the_image(dataset: DetectionDataset) -> None:
    small, large = (
        LabelledViews(dataset, settings, strong_view=PLAIN)[0, 2].targets[0] for settings in (OWN_SIZE, DOUBLE)
    )
    torch.testing.assert_close(large.boxes, small.boxes * 2)


def test_labelled__crowd_regions_are_no_targets(dataset: DetectionDataset) -> None:
    record = dataset.records[0]
    crowd = np.ones_like(record.crowd)
    crowded = dataclasses.replace(dataset, records=(dataclasses.replace(record, crowd=crowd),))
    views = LabelledViews(crowded, OWN_SIZE, strong_view=PLAIN)
    assert views[0, 0].targets[0].boxes.shape == (0, 4)


def test_collate__keeps_the_order(dataset: DetectionDataset) -> None:
    views = TargetViews(dataset, OWN_SIZE)
    items = [views[0, index] for index in (2, 0)]
    batch = views.collate(items)
    assert batch.indices == [2, 0]
    assert torch.equal(batch.weak[1], items[1].weak[0])
    assert views.names(batch.indices) == ["train_002.png", "train_000.png"]


def test_read__larger_than_allowed_is_refused_by_name(dataset: DetectionDataset) -> None:
    views = TargetViews(dataset, OWN_SIZE, max_megapixels=0.001)
    with pytest.raises(InputError, match=r"train_000\.png' declares .* raise data\.max_megapixels"):
        views[0, 0]
