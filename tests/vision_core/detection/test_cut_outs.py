"""Cut-outs: what belongs to an object, and parts that share nothing."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.vision_core.detection.pools import cells_pool, clothes_pool, ground
from vision_core.assets import stamps
from vision_core.detection.cut_outs import CLOTHES, STAMPS_FILE, clothes_sheet, divide, garment, photographs
from vision_core.errors import DataError, MissingDependencyError


def test_garment__holes_belong_to_it_and_lint_does_not() -> None:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:20, 6:18] = 200
    pixels[8:12, 10:12] = 0  # a white print
    pixels[26, 26] = 90
    found = garment(pixels, "shirt", 6)
    assert found.coverage.shape == (16, 12)
    assert found.coverage.all()
    assert (found.picture[4:8, 4:6] == 0).all()


def test_divide__no_object_and_no_pixel_of_ground_in_two_parts() -> None:
    pool = clothes_pool()
    parts = divide(pool, ("a", "b", "c"))
    names = [{each.name for each in part.cut_outs} for part in parts.values()]
    assert set.union(*names) == {each.name for each in pool.cut_outs}
    assert sum(map(len, names)) == len(pool.cut_outs) == 300
    assert all(len(part.of_label(label)) == 10 for part in parts.values() for label in range(10))
    bands = [part.grounds[0] for part in parts.values()]
    assert np.array_equal(np.concatenate(bands, axis=1), ground())


def test_divide__bytes_of_an_object_stand_in_one_part() -> None:
    parts = divide(clothes_pool(), ("a", "b", "c"))
    pictures = [{each.picture.tobytes() for each in part.cut_outs} for part in parts.values()]
    assert not pictures[0] & pictures[1] | pictures[0] & pictures[2] | pictures[1] & pictures[2]


def test_divide__order_of_the_pool_changes_nothing() -> None:
    pool = cells_pool()
    turned = type(pool)(classes=pool.classes, cut_outs=pool.cut_outs[::-1], grounds=pool.grounds)
    first, second = (divide(each, ("a", "b")) for each in (pool, turned))
    assert {each.name for each in first["a"].cut_outs} == {each.name for each in second["a"].cut_outs}


def test_divide__too_few_objects_are_refused() -> None:
    with pytest.raises(DataError, match="'disc' has '6' objects, and '7' parts are to share none"):
        divide(cells_pool(), tuple("abcdefg"))


def test_stamps_list__names_each_photograph_once() -> None:
    listed = yaml.safe_load(STAMPS_FILE.read_text(encoding="utf-8"))
    names = [name for members in listed.values() for name in members]
    assert len(names) == len(set(names)) == 219
    assert len(listed) == 14
    assert min(map(len, listed.values())) == 6
    assert not any(word in name for name in names for word in ("cartoon", "mirror", "clothes", "seasonal"))


@pytest.mark.slow
def test_photographs__every_listed_stamp_is_there_and_in_colour() -> None:
    try:
        stamps()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    pool = photographs(grounds=[ground()])
    assert len(pool.cut_outs) == 219
    for each in pool.cut_outs:
        assert max(each.coverage.shape) <= 128
        assert (each.coverage[:, [0, -1]] > 0.5).any(axis=0).all()
        shown = each.picture[each.coverage > 0.5]
        assert len(np.unique(shown, axis=0)) > 100  # drawings have a few flat colours


def test_sheet__tiles_are_read_in_rows_of_classes(tmp_path: Path) -> None:
    sheet = np.zeros((280, 56), np.uint8)
    for row in range(10):
        for column in range(2):
            sheet[28 * row + 4 : 28 * row + 20, 28 * column + 6 : 28 * column + 18] = 20 + 10 * row + column
    Image.fromarray(sheet).save(tmp_path / "sheet.png")
    pool = clothes_sheet(tmp_path / "sheet.png", grounds=[ground()])
    assert pool.classes == CLOTHES
    assert [(each.label, int(each.picture.max())) for each in pool.cut_outs][:4] == [(0, 20), (0, 21), (1, 30), (1, 31)]


def test_sheet__of_other_size_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((252, 56), np.uint8)).save(tmp_path / "sheet.png")
    with pytest.raises(DataError, match=r"is 56 x 252 px: expected 10 rows of tiles"):
        clothes_sheet(tmp_path / "sheet.png", grounds=[ground()])
