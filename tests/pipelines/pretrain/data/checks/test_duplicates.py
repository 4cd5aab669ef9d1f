import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.pretrain.__main__ import main
from pipelines.pretrain.data.checks.duplicates import Seen, content_hash, find_duplicates, listed, without, write_list
from pipelines.pretrain.data.checks.readable import CORRUPT
from pipelines.pretrain.data.checks.validation import check_lists
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data_settings import PretrainData
from tests.bad_inputs import labelled_images as museum
from vision_core.errors import DataError
from vision_core.images.reading import read_image


def _seen(name: str, content: str, part: str = "train", label: str = "a", is_constant: bool = False) -> Seen:
    return Seen(part=part, name=name, label=label, content=content, is_constant=is_constant)


def test_content_hash__is_of_pixels_not_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9), np.uint8)
    for name in ("a.png", "a.bmp", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
    hashes = {content_hash(read_image(tmp_path / name)) for name in ("a.png", "a.bmp", "a.tif")}
    assert len(hashes) == 1
    assert content_hash(np.zeros((2, 3, 3), np.uint8)) != content_hash(np.zeros((3, 2, 3), np.uint8))


def test_find__constant_images_are_no_duplicates() -> None:
    found = find_duplicates([_seen("a", "0", is_constant=True), _seen("b", "0", is_constant=True), _seen("c", "1")])
    assert len(found.constant) == 2
    assert found.groups == ()


def test_find__across_lists_and_classes() -> None:
    found = find_duplicates([
        _seen("a", "0"), _seen("b", "0"),
        _seen("c", "1"), _seen("d", "1", label="b"),
        _seen("e", "2"), _seen("f", "2", part="val"),
    ])  # fmt: skip
    assert [[each.name for each in group] for group in found.across("label")] == [["c", "d"]]
    assert [[each.name for each in group] for group in found.across("part")] == [["e", "f"]]
    assert found.lines() == [
        "the same image in several classes: 1 times (c = d)",
        "the same image in several lists: 1 times (e = f)",
        "the same image in one class of one list: 1 times (a = b)",
    ]


def test_list__round_trip_keeps_the_first_of_each_group(tmp_path: Path) -> None:
    content = "0" * 32
    path = tmp_path / "list.txt"
    write_list(path, find_duplicates([_seen("x  y/a.png", content), _seen("x  y/b.png", content)]))
    assert listed(path) == {"x  y/b.png": content}
    path.write_text(f"# a remark\n\n{content}  b.png\n")
    assert listed(path) == {"b.png": content}
    path.write_text("b.png\n")
    with pytest.raises(DataError, match=r"list\.txt:1' is 'b\.png', not a hash"):
        listed(path)
    with pytest.raises(DataError, match=r"data\.leave_out"):
        listed(tmp_path / "absent.txt")


def test_without__a_file_that_has_changed_since_stays(tmp_path: Path) -> None:
    images = read_images(PretrainData(root=museum.folders(tmp_path), cache=None), "train")
    unwanted = {images[0].name: content_hash(images.read(0)), images[1].name: "0" * 32, "elsewhere.png": "0" * 32}
    kept = without(images, unwanted)
    assert [kept[index].name for index in range(len(kept))] == [images[index].name for index in range(1, 6)]
    assert kept.notes[-2:] == (
        f"images left out by data.leave_out: 1 ({images[0].name})",
        f"listed in data.leave_out but changed, kept: 1 ({images[1].name})",
    )


def test_list__a_file_that_two_lists_name_is_left_out_of_one_of_them(tmp_path: Path) -> None:
    root = museum.table(tmp_path / "set")
    lines = museum.read_rows(root / "labels.csv")
    museum.rows([*lines, {**lines[0], "split": "test"}], root / "labels.csv")
    data = PretrainData(root=root, format="csv", cache=None)
    lists = [read_images(data, part) for part in ("train", "test")]
    _, together = check_lists(lists, cache=tmp_path)
    assert together.list_path is not None
    assert [line.partition("  ")[2] for line in together.list_path.read_text().splitlines()] == [
        "train:scans/train0.png"
    ]
    data = data.model_copy(update={"leave_out": together.list_path})
    assert [len(read_images(data, part)) for part in ("train", "test")] == [2, 4]


def test_list__a_file_is_never_left_out_for_being_itself(tmp_path: Path) -> None:
    write_list(tmp_path / "list.txt", find_duplicates([_seen("a.png", "0" * 32), _seen("a.png", "0" * 32)]))
    assert listed(tmp_path / "list.txt") == {}


def test_list__names_in_any_bytes(tmp_path: Path) -> None:
    root = museum.folders(tmp_path / "set")
    first = root / "train" / museum.CLASSES[0] / "0.png"
    strange = first.with_name(os.fsdecode(b"gr\xf6\xdfe.png"))
    strange.write_bytes(first.read_bytes())
    (root / "train" / museum.CLASSES[1] / os.fsdecode(b"\xff.png")).write_bytes(b"broken")
    command = ["validate", f"data.root={root}", f"data.cache={tmp_path / 'cache'}"]
    assert main(command) == main(command) == 4
    [path] = (tmp_path / "cache").glob("leave-out-*.txt")
    assert list(listed(path)) == [f"train/{museum.CLASSES[0]}/{strange.name}"]
    kept = read_images(PretrainData(root=root, cache=None, leave_out=path), "train")
    assert strange.name not in {Path(kept[index].name).name for index in range(len(kept))}
    assert len((tmp_path / "cache" / CORRUPT).read_bytes().splitlines()) == 1
