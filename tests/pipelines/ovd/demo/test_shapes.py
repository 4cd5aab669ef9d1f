"""Drawn scenes: boxes fit the objects, nothing is off the picture, and a seed says all."""

import numpy as np
import pytest

from pipelines.ovd.demo.shapes import BASE, NOVEL, SHAPES, draw_crop, draw_scene, shape_mask


def test_shapes__twelve_of_which_four_are_novel() -> None:
    assert len(SHAPES) == len(set(SHAPES)) == 12
    assert (*BASE, *NOVEL) == SHAPES
    assert len(NOVEL) == 4


def test_masks__differ_between_shapes_and_fill_their_box() -> None:
    masks = [shape_mask(label, 40, np.random.default_rng(0)) for label in range(12)]
    for mask in masks:
        assert 0 <= mask.min() < mask.max() <= 1
        assert mask[0].max() > 0.5
        assert mask[:, -1].max() > 0.5
    assert len({mask.tobytes() for mask in masks}) == 12


@pytest.mark.parametrize("seed", range(5))
def test_scene__boxes_lie_inside_and_hardly_overlap(seed: int) -> None:
    scene = draw_scene(96, np.random.default_rng(seed))
    assert scene.picture.shape == (96, 96, 3)
    assert len(scene.boxes) == len(scene.labels) > 0
    assert (scene.boxes >= 0).all()
    assert (scene.boxes <= 96).all()
    assert (scene.boxes[:, 2:] - scene.boxes[:, :2] >= 5).all()


def test_scene__equal_seeds_give_equal_pictures() -> None:
    first, again, other = (draw_scene(64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.picture, again.picture)
    assert not np.array_equal(first.picture, other.picture)


def test_crop__a_single_object_on_other_ground() -> None:
    first, second = (draw_crop(0, 32, np.random.default_rng(seed)) for seed in (1, 2))
    assert first.shape == (32, 32, 3)
    assert not np.array_equal(first, second)
