"""Bad images, indices and folders as the commands meet them: exit code, line, and files left alone."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.sfod.__main__ import main
from tests.bad_inputs import museum
from tests.pipelines.sfod.tiny import SUPERVISED, source_bundle
from tests.vision_core.detection.synthetic import make_coco, make_voc
from tests.vision_core.toy_bundle import edit_card

Capture = pytest.CaptureFixture[str]
Make = Callable[[Path], Path]

BAD_IMAGES: list[tuple[Make, str]] = [
    (museum.b01_zero_bytes, r"zero\.jpg' is empty"),
    (museum.b02_truncated_jpeg, r"half\.jpg' cannot be decoded: it is damaged .*truncated"),
    (museum.b03_html_as_jpg, r"page\.jpg' .*looks like HTML"),
    (museum.b05_bomb, r"bomb\.png' is refused as a decompression bomb"),
    (museum.b05_large, r"large\.png' declares 11000 x 11000 pixels"),
    (museum.b08_float, r"heights\.tif' holds values from"),
]
CONVERTED: list[Make] = [
    museum.b06_animated_gif,
    museum.b08_sixteen_bit,
    museum.b09_cmyk,
    museum.b09_palette,
    museum.b09_alpha,
    museum.b09_one_bit,
]
BAD_LABELS: list[tuple[Make, str, str]] = [
    (museum.b10_truncated_index, "coco", r"train\.json' breaks off"),
    (museum.b11_oversized_index, "coco", r"about '8000' GB of memory"),
    (museum.b12_no_images, "coco", r"has no list 'images'"),
    (museum.b16_repeated_image_id, "coco", r"image id '0' occurs more than once"),
    (museum.b17_flat_box, "coco", r"has no area"),
    (museum.b18_box_far_out, "coco", r"leaves the image of 96 x 64 px by '30' px"),
    (museum.b20_unknown_category, "coco", r"has category id '2'"),
    (museum.b23_entity_bomb, "voc", r"carries a DOCTYPE"),
    (museum.b24_reversed_corners, "voc", r"has no area"),
]


def _predict(folder: Path, out: Path, *words: str) -> int:
    return main(["predict", f"--checkpoint={source_bundle()}", f"--input={folder}", f"--out={out}", *words])


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _name(value: object) -> str:
    return str(getattr(value, "__name__", ""))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """One good image beside every bad one."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for make, _ in BAD_IMAGES:
        make(folder)
    shutil.copy(make_voc(tmp_path / "good", count=1) / "JPEGImages" / "test_000.png", folder)
    return folder


def test_predict__good_and_bad_images(mixed: Path, tmp_path: Path, capsys: Capture) -> None:
    before = _bytes(mixed)
    assert _predict(mixed, tmp_path / "out") == 4
    told = capsys.readouterr().out
    assert "1 of 7 inputs done" in told
    failures = list(csv.DictReader((tmp_path / "out" / "failures.csv").open()))
    assert len(failures) == 6
    for _, message in BAD_IMAGES:
        assert re.search(message, told)
        assert sum(bool(re.search(message, row["reason"])) for row in failures) == 1
    assert sorted(_bytes(tmp_path / "out" / "outputs")) == ["test_000.jpg", "test_000.json", "test_000.png"]
    assert _bytes(mixed) == before


def test_predict__every_image_bad(mixed: Path, tmp_path: Path, capsys: Capture) -> None:
    (mixed / "test_000.png").unlink()
    assert _predict(mixed, tmp_path / "out") == 3
    assert "0 of 6 inputs done" in capsys.readouterr().out
    assert not _bytes(tmp_path / "out" / "outputs")


@pytest.mark.parametrize("words", [("--strict",), ("--on-error", "stop")])
def test_predict__stops_at_the_first_bad_image_on_request(words: tuple[str, ...], mixed: Path, tmp_path: Path) -> None:
    assert _predict(mixed, tmp_path / "out", *words) == 3
    assert len(list(csv.DictReader((tmp_path / "out" / "failures.csv").open()))) == 1


def test_predict__mended_image_is_done_at_the_next_call(mixed: Path, tmp_path: Path, capsys: Capture) -> None:
    for path in mixed.iterdir():
        if path.name not in {"zero.jpg", "test_000.png"}:
            path.unlink()
    assert _predict(mixed, tmp_path / "out") == 4
    shutil.copy(mixed / "test_000.png", mixed / "zero.jpg")
    assert _predict(mixed, tmp_path / "out") == 0
    assert "2 of 2 inputs done" in capsys.readouterr().out
    assert not list(csv.DictReader((tmp_path / "out" / "failures.csv").open()))


def test_predict__unusual_images_are_converted(tmp_path: Path) -> None:
    folder = tmp_path / "unusual"
    folder.mkdir()
    for make in CONVERTED:
        make(folder)
    assert _predict(folder, tmp_path / "out") == 0
    assert len(_bytes(tmp_path / "out" / "outputs")) == 3 * len(CONVERTED)  # record, picture, small picture


def test_predict__folder_without_an_image(tmp_path: Path, capsys: Capture) -> None:
    """Row A9."""
    folder = museum.a09_other_files_only(tmp_path / "notes")
    assert _predict(folder, tmp_path / "out") == 2
    assert "holds 0 images; 14 .txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predict__links_out_of_the_folder_are_left_out_and_named(
    tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """Row A11."""
    folder = museum.a11_links(tmp_path / "links")
    assert _predict(folder, tmp_path / "out") == 0
    assert "1 of 1 inputs done" in capsys.readouterr().out
    assert all(name in caplog.text for name in ("out.png", "circle.png", "nothing.png"))


@pytest.mark.parametrize(("make", "kind", "message"), BAD_LABELS, ids=_name)
def test_train__labels_that_cannot_be_right(
    make: Make, kind: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    data = make(tmp_path / "data")
    words = [f"data.root={data}", f"data.format={kind}", *SUPERVISED]
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 2
    told = capsys.readouterr().err
    assert re.match(r"error\[DATA\] ", told)
    assert re.search(message, told)
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize(("num_bad", "code"), [(0, 0), (1, 4), (4, 3)])
def test_validate__bad_images_are_all_listed(num_bad: int, code: int, tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    for number in range(num_bad):
        path = data / "JPEGImages" / f"train_00{number}.png"
        path.write_bytes(path.read_bytes()[:500])
    assert main(["validate", f"data.root={data}", f"source.weights={source_bundle()}"]) == code
    told = capsys.readouterr().out
    assert f"4 images, 4 read, {num_bad} faults" in told
    assert all(f"train_00{number}.png' cannot be decoded" in told for number in range(num_bad))


def test_validate__a_sample_looks_at_some(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    assert main(["validate", f"data.root={data}", f"source.weights={source_bundle()}", "--sample", "2"]) == 0
    assert "4 images, 2 read, 0 faults" in capsys.readouterr().out


def test_evaluate__a_list_without_boxes_is_not_applicable(tmp_path: Path, capsys: Capture) -> None:
    """Row B31."""
    data = museum.b31_no_boxes(tmp_path / "data")
    words = [f"data.root={data}", "data.eval_split=test"]
    assert main(["evaluate", "--checkpoint", str(source_bundle()), *words]) == 0
    assert re.search(r"data:test +4 +0 +n/a +n/a +n/a", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (museum.b13_orphan_annotation, "annotations of images that are not listed, left out: 1"),
        (museum.b14_missing_image, "IMAGES MISSING: '1' of '4' listed images are missing: 001.png"),
        (museum.b15_unlisted_image, "images on disk that the index does not list, not used: 1 (stranger.png)"),
    ],
    ids=_name,
)
def test_dry_run__tells_what_is_left_out(make: Make, note: str, tmp_path: Path, capsys: Capture) -> None:
    words = [f"data.root={make(tmp_path / 'data')}", "data.format=coco", *SUPERVISED, "--dry-run"]
    assert main(["train", *words, "data.on_missing=skip"]) == 0
    assert note in capsys.readouterr().out


def test_evaluate__a_bundle_of_another_task(tmp_path: Path, capsys: Capture) -> None:
    other = Path(shutil.copytree(source_bundle(), tmp_path / "model"))
    edit_card(other, lambda card: card.update(task="ultrasound"))
    data = make_coco(tmp_path / "data")
    for verb in (["evaluate"], ["predict", f"--input={data / 'test'}", f"--out={tmp_path / 'out'}"]):
        assert main([*verb, f"--checkpoint={other}"]) == 2
        assert "is of pipeline 'ultrasound', not 'sfod'" in capsys.readouterr().err
