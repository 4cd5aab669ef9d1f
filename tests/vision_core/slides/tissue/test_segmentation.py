import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vision_core.slides.painted import EOSIN, GLASS, Box, glass, stain, write_slide
from vision_core.assets import aperio_slide
from vision_core.errors import ConfigError, InputError
from vision_core.results import RESEARCH_NOTICE
from vision_core.slides.reading.slide import Slide, open_slide
from vision_core.slides.settings import TissueSettings
from vision_core.slides.tissue.clam_presets import PRESETS
from vision_core.slides.tissue.edited_masks import MASK_SUFFIX
from vision_core.slides.tissue.qupath_masks import read_qupath_mask
from vision_core.slides.tissue.regions import regions_to_mask
from vision_core.slides.tissue.segmentation import (
    Tissue,
    find_tissue,
    saturation_threshold,
    tissue_mask,
    write_tissue,
)

BOXES: list[Box] = [(200, 160, 600, 720), (680, 400, 880, 560)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two pieces of tissue at two microns per pixel, the larger one with a hole."""
    picture = stain(glass(1000, 1200), BOXES)
    picture[300:400, 320:440] = GLASS
    return write_slide(tmp_path / "a.tif", picture)


def found(path: Path, preset: str = "default", regions: Path | None = None) -> Tissue:
    with open_slide(path) as slide:
        return find_tissue(slide, TissueSettings(preset=preset, regions=regions))


def read_tissue(path: Path, slide: Slide) -> Tissue:
    """Read back what ``write_tissue`` wrote."""
    document = json.loads(path.read_text("utf-8"))
    mask = read_qupath_mask(path, slide.size)
    return Tissue(regions=mask.regions, flags=document["flags"], notes=(*document["notes"], *mask.notes))


def level_0(tissue: Tissue, shape: tuple[int, int] = (1000, 1200)) -> NDArray[np.bool_]:
    return regions_to_mask(tissue.regions, shape, (1.0, 1.0))


def test_find_tissue__pieces_with_their_hole(path: Path) -> None:
    tissue = found(path)
    assert sorted(len(region.holes) for region in tissue.regions) == [0, 1]
    expected = np.zeros((1000, 1200), bool)
    for left, top, right, bottom in BOXES:
        expected[top:bottom, left:right] = True
    expected[300:400, 320:440] = False
    assert (level_0(tissue) != expected).mean() < 0.01
    assert tissue.flags["area_mm2"] == pytest.approx(expected.sum() * 4e-6, rel=0.03)
    assert tissue.flags["tissue_share"] == pytest.approx(expected.mean(), rel=0.03)
    assert tissue.notes == ()


def test_find_tissue__white_glass(tmp_path: Path) -> None:
    tissue = found(write_slide(tmp_path / "a.tif", glass(1000, 1200)))
    assert tissue.regions == () and tissue.notes == ("No tissue was found on this slide.",)
    assert tissue.flags["area_mm2"] == tissue.flags["tissue_share"] == 0


@pytest.mark.parametrize("colour", [(255, 255, 255), (243, 243, 243), (235, 230, 222), (0, 0, 0), (9, 3, 5)])
def test_find_tissue__plain_glass_of_any_tint_or_nothing_scanned(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    picture = np.full((400, 300, 3), colour, np.uint8)
    assert found(write_slide(tmp_path / "a.tif", picture)).notes == ("No tissue was found on this slide.",)


@pytest.mark.parametrize(("preset", "side"), [("default", 100), ("default", 701), ("bwh_biopsy", 1000), ("tcga", 2300)])
def test_find_tissue__all_tissue(tmp_path: Path, preset: str, side: int) -> None:
    tissue = found(write_slide(tmp_path / "a.tif", stain(glass(side, side), [(0, 0, side, side)])), preset)
    assert level_0(tissue, (side, side)).mean() > 0.96
    assert preset != "default" or tissue.notes == ("Tissue covers the whole slide; no glass was seen.",)


@pytest.mark.parametrize("preset", PRESETS)
def test_find_tissue__presets_on_white_glass(tmp_path: Path, preset: str) -> None:
    assert found(write_slide(tmp_path / "a.tif", glass(300, 300)), preset).regions == ()


def test_find_tissue__pale_and_dark_tissue_are_both_tissue(tmp_path: Path) -> None:
    picture = stain(glass(800, 800), [(40, 40, 400, 760)], [(232, 206, 222)])
    picture = stain(picture, [(400, 40, 760, 760)], [(110, 40, 130)])
    tissue = found(write_slide(tmp_path / "a.tif", picture))
    assert level_0(tissue, (800, 800))[60:740, 60:740].mean() > 0.99


def test_find_tissue__tinted_glass_is_glass(tmp_path: Path) -> None:
    picture = stain(glass(800, 800), [(0, 0, 800, 800)], [(236, 226, 214)])
    tissue = found(write_slide(tmp_path / "a.tif", stain(picture, [(200, 200, 600, 600)])))
    assert level_0(tissue, (800, 800)).mean() == pytest.approx(0.25, abs=0.02)


def test_find_tissue__a_tiny_biopsy_on_much_glass(tmp_path: Path) -> None:
    picture = stain(glass(3000, 3000), [(1500, 1500, 1600, 1600)])  # a thousandth
    assert found(write_slide(tmp_path / "a.tif", picture)).flags["area_mm2"] == pytest.approx(0.04, rel=0.2)


def test_find_tissue__specks_and_pinholes_are_left_out(tmp_path: Path) -> None:
    picture = stain(glass(800, 800), [(100, 100, 500, 500), (600, 600, 640, 640)])  # a speck of 80 microns
    picture[300:312, 300:312] = GLASS
    (region,) = found(write_slide(tmp_path / "a.tif", picture)).regions
    assert region.holes == ()


def test_find_tissue__same_slide_same_result(path: Path) -> None:
    assert repr(found(path)) == repr(found(path))


def test_find_tissue__one_level_gives_nearly_the_same(tmp_path: Path, path: Path) -> None:
    picture = stain(glass(1000, 1200), BOXES)
    picture[300:400, 320:440] = GLASS
    flat = found(write_slide(tmp_path / "b.tif", picture, has_pyramid=False))
    assert (level_0(flat) != level_0(found(path))).mean() < 0.005


def test_find_tissue__memory_does_not_hold_the_slide(tmp_path: Path) -> None:
    picture = stain(glass(4200, 4200), [(1000, 1000, 3000, 3205)])
    path = write_slide(tmp_path / "a.tif", picture, 0.5, has_pyramid=False)
    with open_slide(path) as slide:
        tracemalloc.start()
        tissue = find_tissue(slide, TissueSettings())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert tissue.flags["tissue_share"] == pytest.approx(0.25, rel=0.02)
    assert peak < 48e6 < picture.nbytes


def test_find_tissue__real_slide() -> None:
    with open_slide(aperio_slide()) as slide:
        tissue = find_tissue(slide, TissueSettings())
        mask = regions_to_mask(tissue.regions, slide.size, (1.0, 1.0))
        pixels = slide.read(0, 0, 0, 2220, 2967)
    saturation = pixels.max(axis=2).astype(int) - pixels.min(axis=2)
    assert saturation[mask].mean() > 5 * saturation[~mask].mean()
    assert tissue.flags["tissue_share"] == pytest.approx(0.38, abs=0.03)
    assert mask[2000, 1000] and mask[2900, 700] and not mask[200, 1900] and not mask[2000, 200]
    assert not mask[470, 1280]  # the upper hole


def test_saturation_threshold__by_hand() -> None:
    counts = np.zeros(256, np.int64)
    counts[[3, 4]] = 1000
    assert saturation_threshold(counts) == 16  # 3.5, rounded to 4, and 12
    counts[100] = 50
    assert 4 <= saturation_threshold(counts) < 100
    counts[30] = 200
    assert 4 <= saturation_threshold(counts) < 30
    counts[[3, 4]] = 0
    assert saturation_threshold(np.roll(counts, 20)) == -1


def test_tissue_mask__smaller_than_its_windows() -> None:
    assert not tissue_mask(np.full((1, 1, 3), GLASS, np.uint8), 8.0).any()
    assert tissue_mask(np.full((1, 2, 3), EOSIN, np.uint8), 8.0).all()


def test_tissue_mask__a_corner_of_glass_is_no_hole() -> None:
    picture = np.full((60, 60, 3), EOSIN, np.uint8)
    picture[:7, :7] = picture[30:37, 30:37] = GLASS
    mask = tissue_mask(picture, 8.0)
    assert not mask[:5, :5].any() and mask[30:37, 30:37].all()


@pytest.mark.parametrize("preset", ["default", "bwh_biopsy"])
def test_write_tissue__round_trip(tmp_path: Path, preset: str) -> None:
    picture = stain(glass(1003, 1999), [(100, 100, 900, 800), (1000, 57, 1800, 1003)])
    picture[150:750, 150:850] = GLASS
    path = write_slide(tmp_path / "a.tif", picture)
    tissue = found(path, preset)
    with open_slide(path) as slide:
        write_tissue(tmp_path / "out" / "a.tissue.geojson", tissue, slide)
        again = read_tissue(tmp_path / "out" / "a.tissue.geojson", slide)
    assert repr(again) == repr(tissue) and len(tissue.regions) >= 1
    for one, other in zip(again.regions, tissue.regions, strict=True):
        np.testing.assert_array_equal(one.outline, other.outline)


def test_write_tissue__nothing_round_trip(tmp_path: Path, path: Path) -> None:
    with open_slide(path) as slide:
        write_tissue(tmp_path / "b", Tissue(regions=(), notes=("No tissue was found on this slide.",)), slide)
        assert read_tissue(tmp_path / "b", slide) == Tissue(regions=(), notes=("No tissue was found on this slide.",))


def test_write_tissue__annotations_with_notice_that_qupath_reads(tmp_path: Path, path: Path) -> None:
    with open_slide(path) as slide:
        write_tissue(tmp_path / "m", found(path), slide)
    document = json.loads((tmp_path / "m").read_text())
    assert document["type"] == "FeatureCollection" and document["notice"] == RESEARCH_NOTICE
    for each in document["features"]:
        assert each["type"] == "Feature" and each["properties"]["objectType"] == "annotation"
        assert each["properties"]["classification"] == {"name": "Tissue", "color": [0, 150, 136]}
        assert each["properties"]["metadata"] == {"notice": RESEARCH_NOTICE}
        assert all(ring[0] == ring[-1] and len(ring) >= 5 for ring in each["geometry"]["coordinates"])
    points = np.array(
        [point for each in document["features"] for ring in each["geometry"]["coordinates"] for point in ring]
    )
    assert (points >= 0).all() and (points <= [1200, 1000]).all()
    assert "a.tif" not in (tmp_path / "m").read_text()


def write_mask(folder: Path, slide: str, *boxes: Box) -> None:
    rings = [
        [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]]
        for left, top, right, bottom in boxes
    ]
    geometry = {"type": "MultiPolygon", "coordinates": rings}
    folder.mkdir(exist_ok=True)
    (folder / f"{slide}.tissue.geojson").write_text(
        json.dumps([{"type": "Feature", "geometry": geometry, "properties": {}}])
    )


def test_find_tissue__edited_mask_is_read_instead(tmp_path: Path, path: Path) -> None:
    write_mask(tmp_path / "edited", "a", (200, 160, 400, 300))
    tissue = found(path, regions=tmp_path / "edited")
    assert level_0(tissue).sum() == 200 * 140
    assert tissue.flags["area_mm2"] == pytest.approx(200 * 140 * 4e-6, rel=0.03) and "pen_share" in tissue.flags
    assert tissue.notes == ("Tissue as drawn in 'a.tissue.geojson'.",)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_find_tissue__edited_mask_in_microns_is_refused(mpp: float, tmp_path: Path) -> None:
    picture = stain(glass(2000, 2400), [(800, 600, 2000, 1600)])
    path = write_slide(tmp_path / "a.tif", picture, mpp=mpp)
    microns = (round(800 * mpp), round(600 * mpp), round(2000 * mpp), round(1600 * mpp))
    write_mask(tmp_path / "edited", "a", microns)
    with pytest.raises(InputError, match=r"look like microns, not pixels of level 0: read as microns they overlap"):
        found(path, regions=tmp_path / "edited")
    write_mask(tmp_path / "edited", "a", (820, 620, 1200, 1000))  # a part of the tissue, in pixels
    assert found(path, regions=tmp_path / "edited").notes[0] == "Tissue as drawn in 'a.tissue.geojson'."


def test_find_tissue__edited_mask_beside_the_tissue_is_told(tmp_path: Path, path: Path) -> None:
    mirrored = (1200 - 600, 160, 1200 - 200, 720)
    write_mask(tmp_path / "edited", "a", (mirrored[0] + 300, 20, mirrored[2] + 150, 300))
    told = found(path, regions=tmp_path / "edited").notes
    assert any("looks like tissue: is it the mask of this slide?" in note for note in told)


def test_find_tissue__slide_without_an_edited_mask_is_segmented(tmp_path: Path, path: Path) -> None:
    write_mask(tmp_path / "edited", "other", (0, 0, 9, 9))
    assert repr(found(path, regions=tmp_path / "edited")) == repr(found(path))


def test_find_tissue__our_own_mask_edited_and_read_back(tmp_path: Path, path: Path) -> None:
    with open_slide(path) as slide:
        masks = tmp_path / "edited"
        write_tissue(masks / f"a{MASK_SUFFIX}", found(path), slide)
    document = json.loads((masks / "a.tissue.geojson").read_text())
    del document["features"][1:]
    (masks / "a.tissue.geojson").write_text(json.dumps(document))
    tissue = found(path, regions=masks)
    assert len(tissue.regions) == 1 and 0 < tissue.flags["area_mm2"] < found(path).flags["area_mm2"]


def test_find_tissue__edited_mask_with_nothing_is_no_tissue(tmp_path: Path, path: Path) -> None:
    write_mask(tmp_path / "edited", "a")
    tissue = found(path, regions=tmp_path / "edited")
    assert tissue.regions == () and "No tissue was found on this slide." in tissue.notes


def test_find_tissue__broken_mask_and_missing_folder(tmp_path: Path, path: Path) -> None:
    (tmp_path / "a.tissue.geojson").write_text("{")
    with pytest.raises(InputError, match=r"a\.tissue\.geojson"):
        found(path, regions=tmp_path)
    with pytest.raises(ConfigError, match=r"tissue\.regions: '.*none' is not a folder"):
        found(path, regions=tmp_path / "none")
