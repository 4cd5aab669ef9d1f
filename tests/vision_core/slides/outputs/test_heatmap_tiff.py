import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest

from tests.vision_core.slides.outputs.scored import scored
from vision_core.files import origin_text
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import colour_legend, overlay_heatmap
from vision_core.slides.outputs.heatmap_tiff import overlay_longest_px, write_overlay


def large(mpp: float = 0.25, size: tuple[int, int] = (30_000, 41_000)) -> SlideResult:
    tiles = [(x, y) for y in range(2_000, 22_000, 4_000) for x in range(4_000, 32_000, 4_000)]
    return scored(tiles, list(range(len(tiles))), size=size, mpp=mpp, tile_side=4_000)


def thumbnail_of(result: SlideResult, longest_px: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    scale = longest_px / max(result.size)
    return np.full((round(result.size[0] * scale), round(result.size[1] * scale), 3), 230, np.uint8)


def test_write_overlay__openslide_reads_scale_field_and_pixels_back(tmp_path: Path) -> None:
    result = large()
    thumbnail = thumbnail_of(result, overlay_longest_px(result, 8.0))
    write_overlay(tmp_path / "a.tiff", thumbnail, result)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        mpp = [float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
        assert slide.dimensions == thumbnail.shape[1::-1]
        np.testing.assert_allclose(np.multiply(mpp, slide.dimensions), np.multiply(result.size[::-1], 0.25), rtol=1e-5)
        assert mpp == pytest.approx([8, 8], rel=1e-3)
        assert slide.level_count >= 3
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"), int)
    assert np.abs(pixels - overlay_heatmap(thumbnail, result)).mean() < 2


def test_write_overlay__carries_notice_and_result_but_no_name(tmp_path: Path) -> None:
    result = replace(large(), digits="1a2b3c4d")
    write_overlay(tmp_path / "a.tiff", thumbnail_of(result, 500), result)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        said = json.loads(slide.properties["tiff.ImageDescription"])
    facts = {"notice": RESEARCH_NOTICE, "result": "tumour", "model": result.model}
    facts["origin"] = origin_text(result.model, "1a2b3c4d", "whole slide")
    assert said == facts | {"tiles": "No tile stands out.", "scale": colour_legend(result)}
    assert b"patient" not in (tmp_path / "a.tiff").read_bytes()


def test_write_overlay__same_result_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tiff", "b.tiff"):
        write_overlay(tmp_path / name, thumbnail_of(large(), 700), large())
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()


def test_write_overlay__no_tissue_is_the_thumbnail(tmp_path: Path) -> None:
    result = scored([], [], size=(3000, 4000))
    write_overlay(tmp_path / "a.tiff", np.full((300, 400, 3), 230, np.uint8), result)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert "no tissue" in slide.properties["tiff.ImageDescription"]
        assert np.unique(np.asarray(slide.read_region((0, 0), 0, (400, 300)).convert("RGB"))).tolist() == [230]


@pytest.mark.parametrize(
    ("result", "mpp", "expected"),
    [
        (large(), 8.0, 1282),
        (large(mpp=8.0), 2.0, 7394),  # 40 million pixels and no more
        (large(mpp=8.0, size=(300, 400)), 2.0, 400),  # never enlarged
        (large(mpp=0.5, size=(100_000, 100_000)), 8.0, 6250),
        (large(mpp=0.25, size=(1, 1_000)), 20.0, 13),
    ],
)
def test_overlay_longest_px__resolution_within_bounds(result: SlideResult, mpp: float, expected: int) -> None:
    assert overlay_longest_px(result, mpp) == expected
