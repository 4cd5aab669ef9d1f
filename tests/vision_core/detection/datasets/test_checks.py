from pathlib import Path

import pytest
from PIL import Image

from vision_core.detection.datasets.checks import (
    bare_name,
    check_class_names,
    check_missing,
    check_scale,
    checked_size,
    decoded,
    near_name,
)
from vision_core.detection.datasets.records import ReaderReport
from vision_core.errors import DataError


def _photo(path: Path, orientation: int, size: tuple[int, int] = (30, 20)) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_decoded__encodings_of_editors(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("größe\n".encode(encoding))
    assert decoded(tmp_path / "list.txt") == "größe\n"


def test_decoded__another_encoding_is_named_by_its_byte(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(DataError, match="byte '0xf6' at '2'"):
        decoded(tmp_path / "list.txt")


@pytest.mark.parametrize("name", ["a.b", "a.b.jpg", "a.b.XML", "JPEGImages/a.b.png", r"C:\data\a.b.png"])
def test_bare_name__folders_and_image_suffix_go(name: str) -> None:
    assert bare_name(name) == "a.b"


def test_check_missing__decides_and_hints() -> None:
    report = ReaderReport("refuse", "refuse")
    check_missing(["b.jpg"], 3, ["B.JPG"], report)
    assert "'1' of '3' listed images are missing: b.jpg; 'b.jpg' is there as 'B.JPG'" in report.problems[0]
    skipping = ReaderReport("refuse", "skip")
    check_missing([], 3, [], skipping)
    assert not skipping.all()
    check_missing(["b.jpg"], 3, [], skipping)
    assert not skipping.problems
    assert skipping.left_out == {"images missing": 1}


@pytest.mark.parametrize(
    ("name", "other"),
    [("car", "cars"), ("Tree", "tree"), ("bus", "buses"), ("berry", "berries"), ("traffic light", "traffic_light"),
     ("pedestrian", "pedestrain"), ("T-shirt", "t shirt"), ("person ", "person")],
)  # fmt: skip
def test_check_class_names__near_names_are_refused(name: str, other: str) -> None:
    report = ReaderReport("refuse")
    check_class_names([name], {other: 5}, report)
    assert report.problems[0].startswith(f"'5' objects are of '{other}' and '0' of the class '{name}'")


def test_check_class_names__names_of_other_classes_are_no_misspellings() -> None:
    report = ReaderReport("refuse")
    check_class_names(["cape"], {"crape": 5, "cappe": 1}, report, ("cape", "crape"))
    assert [each.partition(" and ")[0] for each in report.problems] == ["'1' objects are of 'cappe'"]


def test_check_class_names__a_plural_beside_the_class_is_another_class() -> None:
    report = ReaderReport("refuse")
    check_class_names(["car"], {"car": 3, "cars": 5}, report)
    assert not report.problems


def test_checked_size__a_pixel_is_tolerated_and_told(tmp_path: Path) -> None:
    report = ReaderReport("refuse")
    assert checked_size(_photo(tmp_path / "a.jpg", 1), (21, 30), report) == (20, 30)
    assert list(report.places) == ["images a pixel larger or smaller than their labels say"]


def test_checked_size__labels_of_the_image_as_shown_are_sound(tmp_path: Path) -> None:
    report = ReaderReport("refuse")
    assert checked_size(_photo(tmp_path / "a.jpg", 6), (30, 20), report) == (30, 20)
    assert not report.problems
    assert not report.places


@pytest.mark.parametrize(
    ("orientation", "size", "declared"), [(3, (30, 20), (20, 30)), (6, (20, 20), (20, 20)), (6, (30, 20), None)]
)
def test_checked_size__a_turn_that_sizes_do_not_show_is_told(
    orientation: int, size: tuple[int, int], declared: tuple[int, int] | None, tmp_path: Path
) -> None:
    report = ReaderReport("refuse")
    checked_size(_photo(tmp_path / "a.jpg", orientation, size), declared, report)
    assert next(iter(report.places)).startswith("photos that EXIF turns or mirrors")


def test_checked_size__without_a_header_the_labels_are_believed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    report = ReaderReport("refuse")
    assert checked_size(tmp_path / "a.jpg", (20, 30), report) == (20, 30)
    assert "images with an unreadable header" in report.places


@pytest.mark.parametrize(("largest", "boxes", "count"), [(1.0, 3, 1), (1.5, 3, 0), (0.0, 3, 0), (0.0, 0, 0)])
def test_check_scale__fractions_alone_are_refused(largest: float, boxes: int, count: int) -> None:
    report = ReaderReport("refuse")
    check_scale(largest, boxes, report)
    assert len(report.problems) == count


def test_near_name__asks_or_lists() -> None:
    assert near_name("tree", ["Tree", "Shrub"]) == "Did you mean 'Tree'?"
    assert near_name("xyz", ["Tree", "Shrub"]) == "There are: 'Tree, Shrub'."
