from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import pyvips

from pipelines.wsi.demo.alteration import Change, Focus, change_focus
from pipelines.wsi.demo.blocks import blocks_of, dealt
from pipelines.wsi.demo.demo_data import (
    ALTERED,
    CLASSES,
    MPP,
    SHAM,
    Tissue,
    draw_slide,
    make_demo_data,
    plan_slides,
    read_tissues,
)
from pipelines.wsi.demo.nuclei import find_nuclei, label_nuclei
from pipelines.wsi.demo.pictures import Picture
from vision_core.assets import aperio_slide
from vision_core.results import RESEARCH_NOTICE
from vision_core.slides.reading.slide import open_slide

SIDE_PX = 640
PLAN = plan_slides()


@pytest.fixture(scope="module")
def tissues() -> list[Tissue]:
    return read_tissues()


@pytest.fixture(scope="module")
def tissue_alone(tissues: list[Tissue]) -> tuple[Picture, Focus]:
    """A picture of tissue that nothing was done to, and a place in it."""
    pool = tissues[0].pool
    picture = max(pool.blocks, key=lambda block: len(find_nuclei(block))).copy()
    return picture, Focus(x=148, y=148, radius=95)


def test_plan_slides__folds_hold_as_many_of_each_class_and_no_patient_lies_in_two() -> None:
    counts = Counter((slide.fold, slide.label) for slide in PLAN)
    assert set(counts) == {(fold, label) for fold in range(5) for label in CLASSES}
    assert len(set(counts.values())) == 1
    of_patients = {(slide.patient, slide.fold, slide.label) for slide in PLAN}
    assert len(of_patients) == len({patient for patient, *_ in of_patients}) < len(PLAN)
    assert len({slide.slide for slide in PLAN}) == len(PLAN)


def test_plan_slides__the_order_of_the_names_does_not_tell_class_or_fold() -> None:
    names = [slide.slide for slide in PLAN]
    assert names == sorted(names)
    for facts in ([slide.label for slide in PLAN], [slide.fold for slide in PLAN]):
        runs = 1 + sum(one != other for one, other in pairwise(facts))
        assert runs > len(PLAN) / 3


def test_groups__every_pixel_of_the_region_goes_to_one_group() -> None:
    numbers = np.arange(700 * 1000).reshape(700, 1000, 1)
    blocks = [set(block.ravel().tolist()) for block in blocks_of(numbers)]  # type: ignore[arg-type]
    assert sum(map(len, blocks)) == len(set().union(*blocks)) == numbers.size
    groups = [dealt(len(blocks), 5, group) for group in range(5)]
    assert sorted(number for group in groups for number in group) == list(range(len(blocks)))


def test_read_tissues__the_pixels_of_a_group_are_of_the_region_and_of_no_other_group(tissues: list[Tissue]) -> None:
    region = pyvips.Image.tiffload(str(aperio_slide())).numpy()[..., :3]
    of_region = {block.tobytes() for block in blocks_of(region)}
    of_groups = [{block.tobytes() for block in tissue.pool.blocks} for tissue in tissues]
    assert set().union(*of_groups) <= of_region
    assert sum(map(len, of_groups)) == len(set().union(*of_groups))
    assert all(tissue.nuclei for tissue in tissues)


@pytest.mark.parametrize("change", [ALTERED, SHAM])
def test_change_focus__colours_of_the_place_stay_and_nothing_else_is_touched(
    tissue_alone: tuple[Picture, Focus], tissues: list[Tissue], change: Change
) -> None:
    picture, focus = tissue_alone
    changed = picture.copy()
    change_focus(changed, focus, change, tissues[0].nuclei, np.random.default_rng(0))
    outside = np.ones(picture.shape[:2], bool)
    outside[focus.y - focus.reach : focus.y + focus.reach, focus.x - focus.reach : focus.x + focus.reach] = False
    np.testing.assert_array_equal(changed[outside], picture[outside])
    inside = np.zeros_like(outside)
    inside[focus.y - focus.reach : focus.y + focus.reach, focus.x - focus.reach : focus.x + focus.reach] = focus.disc()
    one, other = picture[inside].astype(float), changed[inside].astype(float)
    assert np.abs(one - other).mean() > 1
    np.testing.assert_allclose(other.mean(axis=0), one.mean(axis=0), atol=5)
    np.testing.assert_allclose(other.std(axis=0), one.std(axis=0), atol=8)


def test_change_focus__nuclei_cover_more_than_in_a_sham(
    tissue_alone: tuple[Picture, Focus], tissues: list[Tissue]
) -> None:
    picture, focus = tissue_alone
    shares = []
    for change in (SHAM, ALTERED):
        changed = picture.copy()
        change_focus(changed, focus, change, tissues[0].nuclei, np.random.default_rng(0))
        found = label_nuclei(focus.window(changed))[focus.disc()] > 0
        shares.append(float(found.mean()))
    assert shares[1] > 1.3 * shares[0] > 0


def test_draw_slide__layout_does_not_depend_on_the_label(tissues: list[Tissue]) -> None:
    slide = next(each for each in PLAN if each.label == CLASSES[1])
    other = type(slide)(**{**vars(slide), "label": CLASSES[0]})
    (altered, foci), (sham, same_foci) = (draw_slide(each, tissues[slide.fold], SIDE_PX) for each in (slide, other))
    assert foci == same_foci and foci
    apart = (altered != sham).any(axis=2)
    rows, columns = np.nonzero(apart)
    reaches = [(abs(rows - focus.y) <= focus.reach) & (abs(columns - focus.x) <= focus.reach) for focus in foci]
    assert apart.any() and np.any(reaches, axis=0).all()


@pytest.mark.slow
def test_make_demo_data__pyramids_with_their_scale_and_the_same_bytes_again(tmp_path: Path) -> None:
    chosen = [PLAN[5], PLAN[2]]
    folder, again = (make_demo_data(tmp_path / name, chosen, SIDE_PX) for name in ("one", "two"))
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert {str(path) for path in written} > {f"slides/{slide.slide}.tif" for slide in chosen}
    for path in written:
        assert (folder / path).read_bytes() == (again / path).read_bytes()
    with open_slide(folder / "slides" / f"{chosen[0].slide}.tif") as slide:
        assert slide.size == (SIDE_PX, SIDE_PX) and len(slide.levels) > 1
        assert slide.mpp == pytest.approx(MPP, rel=1e-3)
    said = (folder / "ATTRIBUTION.txt").read_text()
    assert "Apache-2.0" in said and "illustration" in said and "synthetic" in said and RESEARCH_NOTICE in said
