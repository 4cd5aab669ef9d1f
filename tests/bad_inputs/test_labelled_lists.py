"""Labelled lists that every verb must answer alike: train, evaluate and validate, through the command line."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sfod.__main__ import main
from tests.bad_inputs import labelled_lists as lists
from tests.bad_inputs import museum
from tests.bad_inputs.seen import Seen
from tests.pipelines.sfod.tiny import SUPERVISED, adapt_words, source_bundle
from tests.vision_core.detection.synthetic import make_coco, make_voc
from vision_core.detection.datasets.reading import DetectionDataset, content_manifest, read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError

Capture = pytest.CaptureFixture[str]
Make = Callable[[Path], Path]
CLASSES = "data.classes=[disc,square]"

REFUSED: list[tuple[Make, str, str]] = [
    (lists.suffix_in_capitals, "coco", "'3' of '6' listed images are missing: 000.png, 001.png, 002.png; '000.png' is"),
    (lists.half_a_folder, "voc", "'3' of '6' listed images are missing: train_000, train_001, train_002. Correct"),
    (lists.plural_name, "voc", "objects are of 'discs' and '0' of the class 'disc'"),
    (lists.other_case, "coco", "objects are of 'Disc' and '0' of the class 'disc'"),
    (lists.two_cases, "voc", "objects are of 'Disc' and '"),
    (lists.lost_image_ids, "coco", "annotations are of no listed image (first annotation 0 with image_id '0.png'"),
    (lists.labels_twice, "coco", "repeat another of the same class and image"),
    (lists.file_under_two_ids, "coco", "is listed twice, as '0' and as '1'"),
    (lists.file_under_two_names, "voc", "is listed twice, as 'train_000' and as 'train_000.png'"),
    (lists.exchanged_sides, "voc", "is '96 x 64' px, its labels say '64 x 96' (width x height): width and height are"),
    (lists.halved_images, "coco", "is '48 x 32' px, its labels say '96 x 64' (width x height): it was scaled by 0.5"),
    (lists.turned_by_exif, "coco", "is '64 x 96' px, its labels say '96 x 64' (width x height): its EXIF orientation"),
    (lists.normalised, "coco", "these look normalised"),
    (lists.normalised_voc, "voc", "these look normalised"),
    (lists.difficult_unknown, "voc", "has difficult 'maybe', which is neither 0 nor 1"),
    (lists.repeated_key, "coco", "an object names the key 'bbox' twice, and programs differ in which they keep. Write"),
    (
        lists.corners_for_sizes,
        "coco",
        "boxes do not fit the polygons of their annotations (first annotation 0: box from",
    ),
    (lists.rotated_box, "coco", "'1' annotations are rotated boxes (first annotation 1, by '45' degrees)"),
    (lists.latin_list, "voc", "is not text in UTF-8: byte '0xf6' at '2'"),
]
READ: list[tuple[Make, str, Make, str]] = [
    (lists.text_image_ids, "coco", lists.plain_coco, "annotations whose image_id is text and the listed id a number"),
    (lists.text_category_ids, "coco", lists.plain_coco, "annotations whose category_id is text"),
    (lists.fractional_ids, "coco", lists.plain_coco, ""),
    (lists.roboflow, "coco", lists.plain_coco, ""),
    (lists.utf16_index, "coco", lists.plain_coco, ""),
    (lists.utf16_list, "voc", lists.plain_voc, ""),
    (lists.two_columns, "voc", lists.plain_voc, "lines with a second column (1, 0 or -1), which is not used"),
    (lists.other_suffixes, "voc", lists.plain_voc, ""),
]


def _name(value: object) -> str:
    return str(getattr(value, "__name__", ""))


def _train(data: Path, kind: str, *words: str) -> list[str]:
    out = data.parent / "run"
    return ["train", f"--out={out}", f"data.root={data}", f"data.format={kind}", *SUPERVISED, CLASSES, *words]


def _evaluate(data: Path, kind: str, *words: str) -> list[str]:
    model = f"--checkpoint={source_bundle()}"
    return ["evaluate", model, f"data.root={data}", f"data.format={kind}", "data.eval_split=train", *words]


def _validate(data: Path, kind: str, *words: str) -> list[str]:
    return ["validate", f"data.root={data}", f"data.format={kind}", *SUPERVISED, CLASSES, *words]


def _read(root: Path, kind: str) -> DetectionDataset:
    data = DetectionData.model_validate({"root": root, "format": kind})
    return read_dataset(data, "train", with_labels=True)


def _labels(dataset: DetectionDataset) -> list[tuple[list[int], list[list[float]]]]:
    return [(record.labels.tolist(), record.boxes.tolist()) for record in dataset.records]


@pytest.mark.parametrize("verb", [_train, _evaluate, _validate], ids=_name)
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: _name(case[0]))
def test_verbs__refuse_alike(
    case: tuple[Make, str, str], verb: Callable[..., list[str]], tmp_path: Path, capsys: Capture
) -> None:
    make, kind, line = case
    Seen(main, capsys).refused(verb(make(tmp_path / "data"), kind), 2, "error[DATA]", line)
    assert not list(tmp_path.glob("run/*.pt"))


@pytest.mark.parametrize(("make", "kind", "plain", "note"), READ, ids=_name)
def test_read_dataset__read_as_the_sound_list(make: Make, kind: str, plain: Make, note: str, tmp_path: Path) -> None:
    found, sound = _read(make(tmp_path / "data"), kind), _read(plain(tmp_path / "plain"), kind)
    assert _labels(found) == _labels(sound)
    assert sum(len(labels) for labels, _ in _labels(found)) > 0
    assert any(note in told for told in found.notes) or not note


@pytest.mark.parametrize(
    ("make", "kind", "note"),
    [
        (lists.detections_as_labels, "coco", "SCORES: every annotation carries one, as detections of a model do"),
        (lists.box_beside_its_polygon, "coco", "BOXES BESIDE THEIR POLYGONS: '1' of '"),
        (lists.exchanged_annotations, "voc", "FILES THAT NAME ANOTHER IMAGE OF THE LIST, whose labels they may be: 2"),
    ],
    ids=_name,
)
def test_read_dataset__doubts_are_told_loudly(make: Make, kind: str, note: str, tmp_path: Path) -> None:
    assert any(note in each for each in _read(make(tmp_path / "data"), kind).notes)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lists.two_boxes_of_an_object, "has '2' boxes. Write each object once"),
        (lists.deleted_objects, "is marked as deleted. Take it out of the file"),
        (lists.rotated_objects, "is a rotated box, by '30.0' degrees, which is not read"),
    ],
    ids=_name,
)
def test_read_dataset__boxes_that_are_others_than_their_numbers_say(make: Make, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        _read(make(tmp_path / "data"), "voc")


@pytest.mark.parametrize("value", ["True", "1.0", "2", " true ", "1"])
def test_read_dataset__difficult_in_other_words(value: str, tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    for path in (root / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<difficult>0<", f"<difficult>{value}<"))
    records = _read(root, "voc").records
    assert len(records) == 4
    assert all(len(record.boxes) and record.difficult.all() for record in records)


@pytest.mark.parametrize(("value", "count"), [("0", 0), ("1", 1), (True, 1), (None, 0), (0.0, 0)])
def test_read_dataset__crowd_in_other_words(value: object, count: int, tmp_path: Path) -> None:
    data = lists.edited(tmp_path / "data", lambda index: index["annotations"][0].update(iscrowd=value))
    assert sum(int(record.crowd.sum()) for record in _read(data, "coco").records) == count


def test_read_dataset__crowd_that_is_neither_is_refused(tmp_path: Path) -> None:
    data = lists.edited(tmp_path / "data", lambda index: index["annotations"][0].update(iscrowd="maybe"))
    with pytest.raises(DataError, match=r"has {'iscrowd': 'maybe'}, which should be 0 or 1"):
        _read(data, "coco")


def test_read_dataset__sizes_that_are_text_are_compared(tmp_path: Path) -> None:
    data = lists.edited(tmp_path / "data", lambda index: index["images"][0].update(width="48", height="32"))
    with pytest.raises(DataError, match="is '96 x 64' px, its labels say '48 x 32'"):
        _read(data, "coco")


def test_read_dataset__xml_of_another_kind_is_named(tmp_path: Path) -> None:
    data = lists.plain_voc(tmp_path / "data")
    for path in (data / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<annotation>", "<annotation xmlns='http://example.org'>"))
    with pytest.raises(DataError, match=r"is XML of '\{http://example\.org\}annotation', not a VOC annotation"):
        _read(data, "voc")


def test_evaluate__missing_images_stand_beside_the_score(tmp_path: Path, capsys: Capture) -> None:
    data, out = lists.half_a_folder(tmp_path / "data"), tmp_path / "scores"
    argv = [*_evaluate(data, "voc", "data.on_missing=skip"), f"--out={out}"]
    told = Seen(main, capsys).done(argv)
    assert re.search(r"IMAGES MISSING: '3' of '6' listed images are missing: train_000, .*They are left out", told)
    assert re.search(r"model +split +images +images missing +boxes", told)
    counts = json.loads((out / "evaluation.json").read_text())[0]["counts"]
    assert (counts["images"], counts["images missing"]) == (3, 3)


def test_train__what_the_scored_list_lacks_stands_in_the_record(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    (data / "JPEGImages" / "test_002.png").unlink()
    words = ("train.max_steps=1", "teacher.keep_rate=0", "data.eval_split=test", "data.on_missing=skip")
    told = Seen(main, capsys).done(_train(data, "voc", *words))
    assert told.count("IMAGES MISSING: '1' of '4' listed images are missing: test_002") == 1
    notes = json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
    assert any("data:test: IMAGES MISSING: '1' of '4'" in note for note in notes)


def test_train__the_scored_list_is_refused_before_the_first_step(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    (data / "JPEGImages" / "test_002.png").unlink()
    Seen(main, capsys).refused(_train(data, "voc", "data.eval_split=test"), 2, "'1' of '4' listed images are missing")
    assert not list(tmp_path.glob("run/*.pt"))


def test_train__lists_of_later_runs_are_refused_before_the_first_run(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    (data / "JPEGImages" / "test_002.png").unlink()
    config = tmp_path / "runs.yaml"
    config.write_text("runs: {first: {train.seed: 1}, second: {data.eval_split: test}}\n")
    argv = [*_train(data, "voc"), f"--config={config}"]
    Seen(main, capsys).refused(argv, 2, "'1' of '4' listed images are missing: test_002")
    assert not list(tmp_path.glob("run/*/*.pt"))


def test_every_image_missing_is_refused_with_the_cause(tmp_path: Path, capsys: Capture) -> None:
    data = make_coco(tmp_path / "data")
    for path in (data / "train").iterdir():
        path.rename(path.with_suffix(".PNG"))
    line = "'4' of '4' listed images are missing: 000.png, 001.png, 002.png, 003.png; '000.png' is there as '000.PNG'"
    Seen(main, capsys).refused(_evaluate(data, "coco", "data.on_missing=skip"), 2, line)


def test_adaptation__missing_images_are_told_loudly(tmp_path: Path, capsys: Capture) -> None:
    data = lists.half_a_folder(tmp_path / "data")
    told = Seen(main, capsys).done(["train", f"--out={tmp_path}/run", *adapt_words(data, "--dry-run")])
    assert "IMAGES MISSING: '3' of '6' listed images are missing" in told


def test_evaluate__objects_of_other_classes_stand_beside_the_score(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    for path in (data / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<name>square</name>", "<name>tram</name>"))
    trams = sum(path.read_text().count("<name>tram<") for path in (data / "Annotations").glob("train_*"))
    told = Seen(main, capsys).done([*_evaluate(data, "voc"), f"--out={tmp_path}/scores"])
    assert re.search(rf"objects of class 'tram', not in data\.classes, dropped: {trams} ", told)
    counts = json.loads((tmp_path / "scores" / "evaluation.json").read_text())[0]["counts"]
    assert counts["objects of other classes"] == trams


def test_names_in_two_cases_are_one_class_or_stated_to_be_two(tmp_path: Path) -> None:
    root = lists.two_cases(tmp_path / "data")
    with pytest.raises(DataError, match="the files name 'Disc' and 'disc'"):
        _read(root, "voc")
    data = DetectionData(root=root, classes=("disc", "Disc", "square"))
    assert len(read_dataset(data, "train", with_labels=True)) == lists.COUNT


@pytest.mark.parametrize(
    ("known", "found"),
    [("car", "bus"), ("grade1", "grade2"), ("left lung", "right lung"), ("grade a", "grade b"), ("person", "rider")],
)
def test_names_of_other_things_are_no_misspelling(known: str, found: str, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "data", lists.COUNT, classes=("disc", found))
    dataset = read_dataset(DetectionData(root=root, classes=("disc", known)), "train", with_labels=True)
    assert dataset.left_out["objects of other classes"] > 0


@pytest.mark.parametrize("verb", [_train, _validate], ids=_name)
def test_no_annotation_is_nothing_to_train_on(verb: Callable[..., list[str]], tmp_path: Path, capsys: Capture) -> None:
    data = lists.no_annotation(tmp_path / "data")
    Seen(main, capsys).refused(verb(data, "coco"), 2, "none of its '6' images has a labelled box")


def test_a_few_repeated_boxes_are_told_loudly(tmp_path: Path) -> None:
    data = make_coco(tmp_path / "data")
    index = json.loads((data / "train.json").read_text())
    index["annotations"].append(index["annotations"][0] | {"id": 1000})
    (data / "train.json").write_text(json.dumps(index))
    assert any(note.startswith("BOXES LISTED TWICE: '1' of") for note in _read(data, "coco").notes)


@pytest.mark.parametrize("verb", [_train, _validate], ids=_name)
def test_images_trained_on_and_scored(verb: Callable[..., list[str]], tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    copy = (data / "JPEGImages" / "train_001.png").read_bytes()
    (data / "JPEGImages" / "test_003.png").write_bytes(copy)
    words = ["data.eval_split=test", *(["--dry-run"] if verb is _train else [])]
    told = Seen(main, capsys).done(verb(data, "voc", *words))
    assert "TRAINED ON: 1 of the 4 images of data.eval_split are also trained on (first 'test_003')" in told


def test_validate__faults_of_labels_and_of_pixels_at_once_and_in_a_file(tmp_path: Path, capsys: Capture) -> None:
    data, out = lists.labels_twice(tmp_path / "data"), tmp_path / "found.csv"
    museum.truncate(data / "train" / "002.png")
    (data / "train" / "stranger.png").write_bytes((data / "train" / "001.png").read_bytes())
    argv = [*_validate(data, "coco", "data.eval_split=absent"), f"--out={out}"]
    for _ in range(2):  # a list of findings may be replaced by the next
        shown, told = Seen(main, capsys).ended(argv, 2)
    assert "002.png' cannot be decoded" in shown
    assert "note: images on disk that the index does not list, not used: 1 (stranger.png)" in shown
    assert told.count("error[DATA] ") == 2
    assert "the labels are listed twice" in told
    assert "absent.json' does not exist" in told
    rows = list(csv.DictReader(out.open()))
    assert sorted({(row["list"], row["severity"]) for row in rows}) == [
        ("absent", "refuse"),
        ("data:train", "note"),
        ("data:train", "refuse"),
    ]
    assert sum("002.png' cannot be decoded" in row["finding"] for row in rows) == 1


def test_validate__file_of_others_stays(tmp_path: Path, capsys: Capture) -> None:
    data, out = make_voc(tmp_path / "data"), tmp_path / "notes.csv"
    out.write_text("mine\n")
    Seen(main, capsys).refused([*_validate(data, "voc"), f"--out={out}"], 2, "is no list of findings, and stays")
    assert out.read_text() == "mine\n"


def test_eval_classes__that_the_detector_lacks(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data")
    line = "data.eval_classes names 'Disc', which is no class of the detector. Did you mean 'disc'?"
    for verb in (_evaluate, _train, _validate):
        argv = verb(data, "voc", "data.eval_split=test", "data.eval_classes=[Disc]")
        Seen(main, capsys).refused(argv, 2, "error[CONFIG]", line)


def test_content_manifest__sees_other_pixels_and_other_labels(tmp_path: Path) -> None:
    data = lists.plain_coco(tmp_path / "data")
    before = content_manifest(_read(data, "coco"))
    image, index = data / "train" / "001.png", data / "train.json"
    assert content_manifest(_read(Path(shutil.copytree(data, tmp_path / "copy")), "coco")) == before
    pixels = image.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    assert content_manifest(_read(data, "coco")) != before
    image.write_bytes(pixels)
    content = json.loads(index.read_text())
    content["annotations"][0]["bbox"][2] -= 1
    index.write_text(json.dumps(content))
    assert content_manifest(_read(data, "coco")) != before


@pytest.mark.slow
def test_resume__images_that_changed_since_are_noticed(tmp_path: Path, capsys: Capture) -> None:
    data = lists.plain_voc(tmp_path / "data")
    seen = Seen(main, capsys)
    seen.done(_train(data, "voc", "train.max_steps=2", "train.save_every=1"))
    image = data / "JPEGImages" / "train_001.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    (tmp_path / "run" / "run.json").unlink()
    seen.refused(["train", f"--out={tmp_path}/run", "--resume"], 2, "or their files have changed")
