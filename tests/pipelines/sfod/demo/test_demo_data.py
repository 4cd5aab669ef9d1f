from pathlib import Path

import numpy as np
import pytest

from pipelines.sfod.demo.demo_data import ALL_PARTS, CLASSES, Tile, demo_splits, make_demo_data
from pipelines.sfod.demo.tiles import objects_in
from vision_core.assets import tree_crowns
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.images.reading import read_image


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Tile]]:
    return dict(demo_splits(256, ALL_PARTS))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_data(tmp_path_factory.mktemp("demo"), parts=("target",))


def _num_own(tiles: list[Tile]) -> int:
    return sum(not item.is_difficult for tile in tiles for item in tile.annotation().objects)


@pytest.mark.parametrize(("name", "total"), [("clean", 279), ("night", 279), ("fog", 279), ("osbs", 61), ("soap", 37)])
def test_demo_splits__both_halves_count_every_box_once(name: str, total: int, splits: dict[str, list[Tile]]) -> None:
    assert _num_own(splits[f"{name}_a"]) + _num_own(splits[f"{name}_b"]) == total
    assert abs(_num_own(splits[f"{name}_a"]) - total / 2) <= 2


def test_demo_splits__the_three_bands_of_the_source_image_share_nothing_and_leave_nothing_out(
    splits: dict[str, list[Tile]],
) -> None:
    bands = [splits[name][0].scene for name in ("source_train", "source_val", "strip_clean_a")]
    whole = read_image(tree_crowns()["yell_large"].image_path)
    np.testing.assert_array_equal(np.concatenate([band.image for band in bands]), whole)
    counts = [int((~objects_in(band.area, band.boxes)[1]).sum()) for band in bands]
    assert counts == [389, 52, 133]
    assert sum(counts) == 574
    assert _num_own(splits["source_val"]) == 52
    assert _num_own(splits["strip_clean_a"]) + _num_own(splits["strip_clean_b"]) == 133


def test_demo_splits__training_tiles_hold_own_crowns_only_and_none_is_empty(splits: dict[str, list[Tile]]) -> None:
    annotations = [tile.annotation() for tile in splits["source_train"]]
    assert all(annotation.objects for annotation in annotations)
    assert not any(item.is_difficult for annotation in annotations for item in annotation.objects)


@pytest.mark.parametrize("name", ["night", "fog", "osbs", "soap", "strip_noise"])
def test_demo_splits__adaptation_and_scoring_of_a_fold_share_no_pixel(name: str, splits: dict[str, list[Tile]]) -> None:
    scored = splits[f"{name}_b"]
    adapted = [tile for tile in splits[f"{name}_a_adapt"] if tile.scene is scored[0].scene]
    assert len(adapted) >= 3
    assert max(tile.window.bottom for tile in adapted) == min(tile.window.top for tile in scored)


def test_make_demo_data__adaptation_tiles_have_no_annotation(target: Path) -> None:
    assert not list((target / "Annotations").glob("*_adapt_*"))
    data = DetectionData(root=target, classes=CLASSES)
    assert len(read_dataset(data, "night_a_adapt", with_labels=False)) == 36
    assert len(read_dataset(data, "night_b", with_labels=True)) == 10


def test_make_demo_data__written_boxes_and_pixels_are_those_of_the_plan(
    target: Path, splits: dict[str, list[Tile]]
) -> None:
    dataset = read_dataset(DetectionData(root=target), "fog_a", with_labels=True)
    for record, tile in zip(dataset.records, splits["fog_a"], strict=True):
        annotation = tile.annotation()
        np.testing.assert_array_equal(record.boxes, [item.box for item in annotation.objects])
        assert record.difficult.tolist() == [item.is_difficult for item in annotation.objects]
        np.testing.assert_array_equal(read_image(record.path), tile.window.crop(tile.scene.image))


@pytest.mark.slow
def test_make_demo_data__same_bytes_again(target: Path, tmp_path: Path) -> None:
    again = make_demo_data(tmp_path, parts=("target",))
    names = [path.relative_to(target) for path in target.rglob("*") if path.is_file()]
    assert len(names) > 250
    assert all((target / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_make_demo_data__states_source_and_licence(target: Path) -> None:
    text = (target / "ATTRIBUTION.txt").read_text()
    assert "licence MIT" in text
    assert "National Ecological Observatory Network" in text
