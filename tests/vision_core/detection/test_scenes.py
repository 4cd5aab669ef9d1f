"""Scenes: exact boxes, keyed draws, and colours that tell nothing of the class."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.vision_core.detection.pools import cells_pool, clothes_pool
from vision_core.detection.cut_outs import Picture
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.scenes import (
    CLOTHES_SCENES,
    PHOTOGRAPH_SCENES,
    SceneSettings,
    compose,
    compose_crop,
    extent,
    tinted,
    write_scenes,
)
from vision_core.detection.settings import DetectionData


def draw(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


@pytest.mark.parametrize("settings", [PHOTOGRAPH_SCENES, CLOTHES_SCENES])
def test_scene__boxes_are_the_extents_of_what_can_be_seen(settings: SceneSettings) -> None:
    for seed in range(8):
        scene = compose(cells_pool(), settings, draw(seed))
        shown = [number for number in range(scene.owners.max() + 1) if (scene.owners == number).any()]
        assert len(scene.boxes) == len(scene.labels) == len(scene.names) == len(shown)
        for box, number in zip(scene.boxes, shown, strict=True):
            rows, columns = np.nonzero(scene.owners == number)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_scene__an_object_alone_is_changed_in_its_box_and_nowhere_else() -> None:
    settings = SceneSettings(objects=(0, 0), clutter=(0, 0))
    empty = compose(cells_pool(), settings, draw(3)).picture
    alone = compose(cells_pool(), replace(settings, objects=(1, 1)), draw(3))
    [box] = alone.boxes.astype(int)
    changed = (alone.picture != empty).any(axis=2)
    assert extent(changed) == pytest.approx(tuple(box), abs=2)  # feathered pixels, and such that happen to be alike
    assert changed[box[1] : box[3], box[0] : box[2]].mean() > 0.5


def test_scene__sizes_keep_to_the_settings() -> None:
    settings = SceneSettings(length_px=(28, 40), off=0.0, shared=0.0, clutter=(0, 0))
    boxes = np.concatenate([compose(cells_pool(), settings, draw(seed)).boxes for seed in range(10)])
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert 22 <= longest.min() < 31  # the tips of a diamond cover less than half of their pixels
    assert 37 < longest.max() <= 40


def test_scene__mostly_hidden_objects_are_crowd_regions() -> None:
    settings = SceneSettings(objects=(6, 9), length_px=(60, 70), shared=1.0, off=0.0, least_visible=0.3)
    scenes = [compose(cells_pool(), settings, draw(seed)) for seed in range(6)]
    assert any(scene.crowd.any() for scene in scenes)
    for scene in scenes:
        shown = [number for number in range(scene.owners.max() + 1) if (scene.owners == number).any()]
        for is_crowd, number in zip(scene.crowd, shown, strict=True):
            area = (scene.owners == number).sum()
            assert area < 0.3 * 4900 if is_crowd else area > 0.3 * 1700  # of a disc of 70 px, a diamond of 60 px


def test_scene__truncated_objects_end_at_the_edge() -> None:
    settings = SceneSettings(off=0.9, length_px=(60, 70), objects=(3, 3))
    boxes = np.concatenate([compose(cells_pool(), settings, draw(seed)).boxes for seed in range(10)])
    assert boxes.min() == 0
    assert boxes.max() == 128


def test_scene__clutter_is_there_and_has_no_box() -> None:
    settings = SceneSettings(objects=(0, 0), clutter=(2, 2))
    with_clutter, without = (
        compose(cells_pool(), each, draw(1)) for each in (settings, replace(settings, clutter=(0, 0)))
    )
    assert not len(with_clutter.boxes)
    assert (with_clutter.picture != without.picture).any(axis=2).sum() > 100


def test_scene__equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_scenes(tmp_path / name, "train", cells_pool(), CLOTHES_SCENES, count=3)
    write_scenes(tmp_path / "other", "train", cells_pool(), CLOTHES_SCENES, count=3, seed=1)
    first, second, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))] for name in ("first", "second", "other")
    )
    assert first == second
    assert all(one != another for one, another in zip(first, other, strict=True))


def test_write_scenes__index_gives_the_same_records(tmp_path: Path) -> None:
    written = write_scenes(tmp_path, "val", cells_pool(), replace(CLOTHES_SCENES, least_visible=0.9), count=4)
    read = read_dataset(DetectionData(root=tmp_path, format="coco", classes=written.classes), "val", with_labels=True)
    assert any(record.crowd.any() for record in read.records)
    for one, other in zip(written.records, read.records, strict=True):
        assert (one.image_id, one.path, one.size) == (other.image_id, other.path, other.size)
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.crowd, other.crowd)
    index = json.loads((tmp_path / "val.json").read_text())
    names = {each.name for each in cells_pool().cut_outs}
    assert {each["instance"] for each in index["annotations"]} <= names


def test_tinted__mean_is_the_drawn_colour_whatever_the_object() -> None:
    pool = clothes_pool()
    for number, each in enumerate(pool.cut_outs[::20]):
        mask = each.coverage > 0.5
        dark, bright = (tinted(shade, mask, draw(number)) for shade in (each.picture // 3, each.picture))
        assert np.abs(dark[mask].mean(axis=0) - bright[mask].mean(axis=0)).max() < 4
        assert 65 < bright[mask].mean(axis=0).min() <= bright[mask].mean(axis=0).max() < 190


@pytest.mark.slow
def test_clothes__mean_colour_says_nothing_of_the_class() -> None:
    pool = clothes_pool()
    rows: list[Picture] = []
    labels: list[int] = []
    for seed in range(120):
        scene = compose(pool, CLOTHES_SCENES, draw(seed))
        for box, label in zip(scene.boxes.astype(int), scene.labels, strict=True):
            inner = scene.picture[box[1] : box[3], box[0] : box[2]]
            rows.append(inner.reshape(-1, 3).mean(axis=0))
            labels.append(int(label))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    right = cross_val_score(classifier, np.array(rows), np.array(labels), cv=5).mean()
    chance = np.bincount(labels).max() / len(labels)
    assert len(labels) > 300
    assert right < chance + 2 * np.sqrt(chance * (1 - chance) / len(labels))


def test_clothes__are_never_larger_than_forty_pixels() -> None:
    boxes = np.concatenate([compose(clothes_pool(), CLOTHES_SCENES, draw(seed)).boxes for seed in range(12)])
    assert (boxes[:, 2:] - boxes[:, :2]).max() <= 40


def test_crop__one_whole_object_on_a_ground() -> None:
    pool = cells_pool()
    crops = [compose_crop(pool.cut_outs[0], pool, 32, CLOTHES_SCENES, draw(seed)) for seed in (0, 0, 1)]
    assert crops[0].shape == (32, 32, 3)
    assert np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])
