import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageDraw

from tests.vision_core.slides.outputs.scored import scored
from vision_core.images.captions import add_caption
from vision_core.images.drawing import blend
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import (
    EVIDENCE_SCALE,
    colour_legend,
    heat_map,
    heatmap_caption,
    heatmap_layer,
    is_uniform,
    not_glass,
    overlay_heatmap,
    percentile_ranks,
    prominence,
    tile_strengths,
)

ORANGE, BLUE = [230, 159, 0], [0, 114, 178]


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def random_result(side: int = 70, size: tuple[int, int] = (997, 1511)) -> SlideResult:
    draws = np.random.default_rng(1)
    corners = draws.integers(0, (size[1] - side, size[0] - side), (60, 2))
    evidence = (20 * draws.normal(size=60)).astype(np.float32)
    scores = draws.random(60).tolist()
    return scored(corners.tolist(), scores, size=size, tile_side=side, evidence=evidence, evidence_for="tumour")


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


def speaking(evidence: list[float], **changes: Any) -> SlideResult:  # noqa: ANN401
    """Tiles in a row, with evidence for ``tumour``."""
    tiles = [(10 * place, 0) for place in range(len(evidence))]
    fields = {"evidence": np.array(evidence, np.float32), "evidence_for": "tumour"}
    return scored(tiles, [1 / len(evidence)] * len(evidence), **fields | changes)


def test_heat__is_the_doublings_from_2_to_64_and_keeps_the_sign() -> None:
    found = EVIDENCE_SCALE.heat(np.array([0, 1.9, 2, 4, -16, 64, 1e9, -1e9]))
    np.testing.assert_allclose(found, [0, 0, 0, 0.2, -0.6, 1, 1, -1], atol=1e-12)


def test_tile_strengths__do_not_depend_on_the_other_tiles() -> None:
    few, many = speaking([5, 40]), speaking([5, 40, 0, 0])
    np.testing.assert_array_equal(tile_strengths(few), tile_strengths(many)[:2])


def test_tile_strengths__without_evidence_are_multiples_of_the_mean_attention() -> None:
    np.testing.assert_allclose(tile_strengths(scored([(0, 0), (10, 0), (20, 0)], [0.7, 0.2, 0.1])), [2.1, 0.6, 0.3])
    np.testing.assert_array_equal(tile_strengths(scored([(0, 0), (10, 0)], [0.2, 0.2])), [1, 1])
    assert (tile_strengths(scored([(0, 0), (10, 0)], [-0.1, 0.0])) == 0).all()  # TransMIL's may be negative


def test_heat_map__overlap_is_the_mean_and_the_rest_is_nan() -> None:
    result = scored([(0, 0), (5, 0)], [0.5, 0.5], evidence=np.array([4, 64], np.float32), evidence_for="tumour")
    found = heat_map(result, (20, 40))
    np.testing.assert_allclose(found[:10, :5], 0.2, atol=1e-4)
    np.testing.assert_allclose(found[:10, 5:10], 0.6, atol=1e-4)
    np.testing.assert_allclose(found[:10, 10:15], 1, atol=1e-4)
    assert np.isnan(found[10:]).all() and np.isnan(found[:, 15:]).all()


def test_heat_map__smaller_image_covers_the_same_field() -> None:
    found = heat_map(scored([(20, 10)], [1.0]), (10, 20))
    assert np.argwhere(np.isfinite(found)).min(axis=0).tolist() == [5, 10]
    assert np.isfinite(found).sum() == 25


def test_heat_map__neighbours_leave_no_gap_at_an_odd_scale() -> None:
    tiles = [(x, y) for y in range(0, 700, 100) for x in range(0, 700, 100)]
    evidence = np.geomspace(3, 60, 49).astype(np.float32)
    result = scored(tiles, [1 / 49] * 49, size=(700, 700), tile_side=100, evidence=evidence, evidence_for="tumour")
    found = heat_map(result, (137, 137))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.unique(found), EVIDENCE_SCALE.heat(evidence), atol=1e-4)  # and no overlap


def test_heat_map__tile_beyond_the_edge_is_cut_and_a_tiny_one_is_a_pixel() -> None:
    assert np.isfinite(heat_map(scored([(35, 15)], [1.0]), (20, 40))).sum() == 25
    tiny = heat_map(scored([(0, 0), (39_990, 19_990)], [1, 2], size=(20_000, 40_000)), (20, 40))
    assert np.argwhere(np.isfinite(tiny)).tolist() == [[0, 0], [19, 39]]


def test_heatmap_layer__sides_by_colour_sizes_by_opacity_and_little_is_clear() -> None:
    layer = heatmap_layer(speaking([64, -4, 1.5]), (20, 40))
    assert layer[0, 0].tolist() == [*ORANGE, 255]
    assert layer[0, 10].tolist() == [*BLUE, 51]
    assert not layer[:, 20:].any() and not layer[10:].any()


def test_heatmap_layer__a_normal_slide_does_not_glow_like_an_altered_one() -> None:
    """Ranks within a slide made both alike; so does attention, which sums to one on each."""
    draws = np.random.default_rng(0)
    normal = speaking((-1.5 + 2 * draws.normal(size=60)).tolist(), size=(10, 600))
    altered = speaking([*(-1.5 + 2 * draws.normal(size=56)), 30, 60, 90, 130], size=(10, 600))
    quiet, loud = (heatmap_layer(each, (10, 600))[0, 5::10] for each in (normal, altered))
    assert quiet[:, 3].max() < 140 < 180 < loud[-4:, 3].min()
    assert quiet[:, 3].mean() < 40
    assert prominence(normal) == "No tile stands out."
    assert prominence(altered) == "4 tiles stand out for 'tumour'."


def test_heatmap_layer__glass_within_a_tile_has_no_colour() -> None:
    picture = np.full((20, 40, 3), 240, np.uint8)
    picture[:, :5] = (180, 90, 140)
    layer = heatmap_layer(speaking([64]), (20, 40), not_glass(picture))
    assert (layer[:10, :5, 3] == 255).all() and not layer[:, 5:].any()


def test_heatmap_layer__equal_scores_have_one_colour_where_tiles_overlap_too() -> None:
    tiles = [(x, 0) for x in range(0, 30, 3)]
    evidence = np.full(len(tiles), 7.3, np.float32)
    layer = heatmap_layer(scored(tiles, [0.1] * len(tiles), evidence=evidence, evidence_for="tumour"), (20, 40))
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
    for tissue in (None, noise(331, 503) > 99):
        whole = blend(picture, heatmap_layer(result, (331, 503), tissue), 0.4)
        np.testing.assert_array_equal(overlay_heatmap(picture, result, 0.4, rows, tissue), whole)


def test_overlay_heatmap__memory_is_little_more_than_the_picture() -> None:
    picture = np.zeros((6000, 1000, 3), np.uint8)
    overlay_heatmap(picture[:10], random_result())  # imports
    tracemalloc.start()
    overlay_heatmap(picture, random_result())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < picture.nbytes + 24e6


def test_overlay_heatmap__tiles_are_coloured_the_rest_is_the_thumbnail() -> None:
    thumbnail = np.full((500, 1000, 3), 200, np.uint8)
    drawn = overlay_heatmap(thumbnail, speaking([5, -5]))
    assert drawn.shape == thumbnail.shape
    np.testing.assert_array_equal(drawn[:, 500:], thumbnail[:, 500:])
    assert (drawn[:250, :250] != 200).any(axis=-1).all()


def texts(monkeypatch: pytest.MonkeyPatch, result: SlideResult, width: int = 1000) -> str:
    drawn: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def spy(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *rest: object, **more: object) -> None:
        drawn.append(text)
        draw(self, xy, text, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    picture = np.zeros((100, width, 3), np.uint8)
    assert add_caption(picture, heatmap_caption(result, width)).shape[0] > 160
    return " ".join(drawn)


@pytest.mark.parametrize("width", [1000, 40])
def test_heatmap_caption__says_result_scale_notice_and_model_but_no_name(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = texts(monkeypatch, speaking([80, -1]), width)
    words = (
        "Result: tumour",
        "for 'normal'",
        "for 'tumour'",
        "1 tile stands out for 'tumour'.",
        "the same on every slide",
    )
    for each in (*words, RESEARCH_NOTICE, "wsi/mhim_v1/0123456789ab"):
        assert each in said
    assert "patient" not in said and "0.75" not in said


def test_heatmap_caption__long_titles_are_cut_and_used_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = {"tumour": "invasive carcinoma of no special type " * 3}
    said = texts(monkeypatch, speaking([1, 1], titles=titles))
    assert "for 'invasive carcinoma" in said and "…" in said and "Result: invasive carcinoma" in said


def test_heatmap_caption__tiles_alike_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts(monkeypatch, scored([(0, 0), (10, 0)], [1.0, 1.0]))
    assert "looked at all tiles alike" in said


def test_prominence__both_sides_and_of_several_classes_the_others() -> None:
    assert prominence(speaking([16, -16, 99])) == "2 tiles stand out for 'tumour'. 1 tile stands out for 'normal'."
    classes, shares = ("a", "b", "tumour"), np.array([0.2, 0.2, 0.6], np.float32)
    several = speaking([-EVIDENCE_SCALE.stands_out], classes=classes, probabilities=shares)
    assert prominence(several) == "1 tile stands out for other classes."


def test_prominence__attention_names_no_class() -> None:
    result = scored([(10 * place, 0) for place in range(40)], [0.5, *[0.5 / 39] * 39])
    assert prominence(result) == "1 tile stands out by the attention that the model paid."
    assert "attention to a tile" in colour_legend(result)


def test_heatmap_caption__no_tissue_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No tissue was found" in texts(monkeypatch, scored([], []))
