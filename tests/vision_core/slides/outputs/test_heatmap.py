import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageDraw

from tests.vision_core.slides.outputs.scored import scored
from vision_core.images.drawing import blend, colour_map
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import (
    draw_heatmap,
    heatmap_layer,
    is_uniform,
    overlay_heatmap,
    percentile_ranks,
    rank_map,
)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def random_result(side: int = 70, size: tuple[int, int] = (997, 1511)) -> SlideResult:
    draws = np.random.default_rng(1)
    corners = draws.integers(0, (size[1] - side, size[0] - side), (60, 2))
    return scored(corners.tolist(), draws.random(60).tolist(), size=size, tile_side=side)


def test_percentile_ranks__ties_share_their_place() -> None:
    ranks = percentile_ranks(np.array([3, 10, 1, 3], np.float32))
    np.testing.assert_array_equal(ranks, [0.5, 0.875, 0.125, 0.5])


def test_percentile_ranks__one_outlier_does_not_flatten_the_rest() -> None:
    scores = np.linspace(1, 2, 99)
    with_outlier = percentile_ranks(np.append(scores, 1e9))
    assert np.ptp(with_outlier[:99]) > 0.97


@pytest.mark.parametrize("scores", [[], [0.3], [0.2] * 9, [0.0] * 3, [-5.0, -5.0]])
def test_percentile_ranks__equal_scores_are_all_in_the_middle(scores: list[float]) -> None:
    np.testing.assert_array_equal(percentile_ranks(np.array(scores, np.float32)), [0.5] * len(scores))


def test_percentile_ranks__rounding_is_no_difference() -> None:
    jitter = np.random.default_rng(0).normal(0, 1e-6, 50)
    assert is_uniform((1 / 50 * (1 + jitter)).astype(np.float32))
    assert not is_uniform((1 / 50 * (1 + 1e3 * jitter)).astype(np.float32))


def test_rank_map__overlap_is_the_mean_and_the_rest_is_nan() -> None:
    found = rank_map(scored([(0, 0), (5, 0)], [1.0, 2.0]), (20, 40))
    np.testing.assert_allclose(found[:10, :5], 0.25, atol=1e-4)
    np.testing.assert_allclose(found[:10, 5:10], 0.5, atol=1e-4)
    np.testing.assert_allclose(found[:10, 10:15], 0.75, atol=1e-4)
    assert np.isnan(found[10:]).all() and np.isnan(found[:, 15:]).all()


def test_rank_map__smaller_image_covers_the_same_field() -> None:
    found = rank_map(scored([(20, 10)], [1.0]), (10, 20))
    assert np.argwhere(np.isfinite(found)).min(axis=0).tolist() == [5, 10]
    assert np.isfinite(found).sum() == 25


def test_rank_map__neighbours_leave_no_gap_at_an_odd_scale() -> None:
    tiles = [(x, y) for y in range(0, 700, 100) for x in range(0, 700, 100)]
    result = scored(tiles, list(range(49)), size=(700, 700), tile_side=100)
    found = rank_map(result, (137, 137))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.unique(found), percentile_ranks(result.scores), atol=1e-4)  # and no overlap


def test_rank_map__tile_beyond_the_edge_is_cut_and_a_tiny_one_is_a_pixel() -> None:
    assert np.isfinite(rank_map(scored([(35, 15)], [1.0]), (20, 40))).sum() == 25
    tiny = rank_map(scored([(0, 0), (39_990, 19_990)], [1, 2], size=(20_000, 40_000)), (20, 40))
    assert np.argwhere(np.isfinite(tiny)).tolist() == [[0, 0], [19, 39]]


def test_heatmap_layer__colours_on_tiles_and_nothing_elsewhere() -> None:
    layer = heatmap_layer(scored([(0, 0), (10, 0)], [1.0, 2.0]), (20, 40))
    colours = colour_map()
    assert layer[0, 0].tolist() == [*colours[64], 255] and layer[0, 10].tolist() == [*colours[191], 255]
    assert not layer[:, 20:].any() and not layer[10:].any()


def test_heatmap_layer__equal_scores_have_one_colour_where_tiles_overlap_too() -> None:
    tiles = [(x, 0) for x in range(0, 30, 3)]
    layer = heatmap_layer(scored(tiles, [0.1] * len(tiles)), (20, 40))
    assert len(np.unique(layer[layer[..., 3] > 0], axis=0)) == 1


def test_blend__opacity_0_is_the_picture_bit_for_bit_and_1_the_layer() -> None:
    picture, layer = noise(50, 60, 3), noise(50, 60, 4)
    layer[..., 3] = np.where(layer[..., 3] > 127, 255, 0)
    np.testing.assert_array_equal(blend(picture, layer, 0.0), picture)
    expected = np.where(layer[..., 3:] > 0, layer[..., :3], picture)
    np.testing.assert_array_equal(blend(picture, layer, 1.0), expected)


def test_blend__every_mixture_is_rounded_right() -> None:
    under, over, alpha = (each.ravel() for each in np.meshgrid(*[np.arange(0, 256, 5)] * 3))
    layer = np.stack([over, over, over, alpha], axis=-1).astype(np.uint8)[None]
    picture = np.stack([under] * 3, axis=-1).astype(np.uint8)[None]
    exact = (under * (255 - alpha) + over * alpha) / 255
    np.testing.assert_array_equal(blend(picture, layer, 1.0)[0, :, 0], np.floor(exact + 0.5))


@pytest.mark.parametrize("rows", [1, 64, 10_000])
def test_overlay_heatmap__parts_make_the_whole(rows: int) -> None:
    result, picture = random_result(), noise(331, 503, 3)
    whole = blend(picture, heatmap_layer(result, (331, 503)), 0.4)
    np.testing.assert_array_equal(overlay_heatmap(picture, result, 0.4, rows), whole)


def test_overlay_heatmap__memory_is_little_more_than_the_picture() -> None:
    picture = np.zeros((6000, 1000, 3), np.uint8)
    overlay_heatmap(picture[:10], random_result())  # imports
    tracemalloc.start()
    overlay_heatmap(picture, random_result())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < picture.nbytes + 24e6


def test_draw_heatmap__tiles_are_coloured_the_rest_is_the_thumbnail() -> None:
    thumbnail = np.full((500, 1000, 3), 200, np.uint8)
    drawn = draw_heatmap(thumbnail, scored([(0, 0), (10, 0)], [1.0, 2.0]))
    assert drawn.shape[1] == 1000 and drawn.shape[0] > 560
    np.testing.assert_array_equal(drawn[:500, 500:], thumbnail[:, 500:])
    assert (drawn[:250, :250] != 200).any(axis=-1).all()


def texts(monkeypatch: pytest.MonkeyPatch, result: SlideResult, width: int = 1000) -> str:
    drawn: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def spy(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *rest: object, **more: object) -> None:
        drawn.append(text)
        draw(self, xy, text, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    draw_heatmap(np.zeros((100, width, 3), np.uint8), result)
    return " ".join(drawn)


@pytest.mark.parametrize("width", [1000, 40])
def test_draw_heatmap__says_result_scale_notice_and_model_but_no_name(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = texts(monkeypatch, scored([(0, 0), (10, 0)], [1.0, 2.0]), width)
    for words in ("Result: tumour", "low", "high", RESEARCH_NOTICE, "wsi/mhim_v1/0123456789ab", "ranked among"):
        assert words in said
    assert "patient" not in said and "0.75" not in said


def test_draw_heatmap__tiles_alike_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts(monkeypatch, scored([(0, 0), (10, 0)], [1.0, 1.0]))
    assert "looked at all tiles alike" in said


def test_draw_heatmap__no_tissue_is_the_thumbnail_and_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    result = scored([], [])
    assert "No tissue was found" in texts(monkeypatch, result)
    thumbnail = noise(300, 600, 3)
    np.testing.assert_array_equal(draw_heatmap(thumbnail, result)[:300], thumbnail)
