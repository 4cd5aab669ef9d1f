"""One image in, detections in its own pixels out, and the files of a result."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.sfod.predict import SfodPredictor
from tests.pipelines.sfod.tiny import CLASSES, source_bundle
from tests.vision_core.detection.synthetic import make_picture
from vision_core.batch.ledger import Record, output
from vision_core.detection.model.detector import DetectionTensors
from vision_core.detection.predictor import write_coco
from vision_core.images.reading import read_image
from vision_core.results import Detections, label_texts


@pytest.fixture(scope="module")
def predictor() -> SfodPredictor:
    return SfodPredictor.from_checkpoint(source_bundle())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image, _ = make_picture((64, 96), CLASSES, 3)
    Image.fromarray(image).save(tmp_path / "a.b.png")
    return tmp_path / "a.b.png"


def _found(count: int, classes: tuple[str, ...] = CLASSES) -> Detections:
    return Detections(
        boxes=np.array([[1, 2, 11, 22]] * count, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.3, count, dtype=np.float32),
        labels=np.zeros(count, np.int64),
        classes=classes,
        image_size=(64, 96),
        model="sfod/test/0",
    )


def test_call__file_and_array_give_the_same(predictor: SfodPredictor, picture: Path) -> None:
    of_file, of_array = predictor(picture), predictor(read_image(picture))
    assert len(of_file) > 0
    np.testing.assert_array_equal(of_file.boxes, of_array.boxes)
    np.testing.assert_array_equal(of_file.scores, of_array.scores)
    assert of_file.classes == CLASSES
    assert of_file.model == predictor.card.identity()
    assert of_file.image_size == (64, 96)


def test_call__boxes_that_were_clipped_to_nothing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = SfodPredictor.from_checkpoint(source_bundle())
    boxes = torch.tensor([[1.0, 2, 11, 22], [96, 2, 96, 22], [1, 64, 11, 64], [3, 4, 5, 6]])
    made = DetectionTensors(boxes=boxes, scores=torch.tensor([0.9, 0.8, 0.7, 0.6]), labels=torch.tensor([0, 1, 1, 1]))
    monkeypatch.setattr(predictor, "_detect", lambda *_: made)
    found = predictor(np.zeros((64, 96, 3), np.uint8))
    assert found.boxes.tolist() == [[1, 2, 11, 22], [3, 4, 5, 6]]
    assert (found.scores.tolist(), found.labels.tolist()) == (pytest.approx([0.9, 0.6]), [0, 1])


def test_call__bundle_and_file_may_be_strings(predictor: SfodPredictor, picture: Path) -> None:
    of_strings = SfodPredictor.from_checkpoint(str(source_bundle()))(str(picture))
    of_paths = predictor(picture)
    np.testing.assert_array_equal(of_strings.boxes, of_paths.boxes)
    np.testing.assert_array_equal(of_strings.scores, of_paths.scores)


def test_call__finds_a_large_disc_where_it_is(predictor: SfodPredictor) -> None:
    hits = 0
    for seed in range(8):
        image, objects = make_picture((64, 96), CLASSES, seed)
        found = predictor(image).above(0.5)
        middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        for item in objects:
            centre = np.array([item.box[0] + item.box[2], item.box[1] + item.box[3]]) / 2
            hits += bool((np.abs(middles - centre).max(axis=1, initial=0) < 6).any()) if len(middles) else 0
    assert hits >= 6


def test_write__record_and_picture_are_named_after_the_input(
    predictor: SfodPredictor, picture: Path, tmp_path: Path
) -> None:
    found = predictor(picture)
    written = predictor.write(found, picture, tmp_path / "out")
    assert [path.name for path in written] == ["a.b.json", "a.b.png", "a.b.jpg"]
    record = json.loads(written[0].read_text())
    assert (record["image"], record["width"], record["height"]) == ("a.b.png", 96, 64)
    assert len(record["objects"]) == len(found)
    assert record["notice"] == "For research use. Not for diagnosis."
    assert read_image(written[1]).shape == (64, 96, 3)


def test_call__a_file_is_decoded_once_for_result_and_picture(picture: Path, tmp_path: Path) -> None:
    reads: list[Path] = []

    def read(path: Path) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], tuple[str, ...]]:
        reads.append(path)
        return read_image(path), ("is odd",)

    counting = SfodPredictor.from_checkpoint(source_bundle(), read=read)
    counting.write(counting(picture), picture, tmp_path)
    assert reads == [picture]
    assert json.loads((tmp_path / f"{picture.stem}.json").read_text())["notes"] == ["The file is odd."]


def test_label_texts__class_only_where_there_is_a_choice() -> None:
    assert label_texts(_found(2)) == ["disc 0.90", "disc 0.30"]
    assert label_texts(_found(1, ("Tree",))) == ["0.90"]


def _batch(folder: Path, found: Mapping[Path, Detections | None]) -> Path:
    """Ledger and records of a batch; None: the input failed."""
    (folder / "outputs").mkdir(parents=True)
    lines = []
    for path, result in reversed(list(found.items())):  # as a batch that was continued leaves them
        made = Record(input=str(path), name=path.stem, status="failed", seconds=0, version="1", fingerprint="f")
        if result is not None:
            record = folder / "outputs" / f"{path.parent.name}-{path.stem}.json"
            record.write_text(json.dumps({"image": path.name, "classes": result.classes, **result.to_record()}))
            made = made.model_copy(update={"status": "done", "outputs": (output(record, folder),)})
        lines.append(made.model_dump_json())
    (folder / "ledger").mkdir()
    (folder / "ledger" / "0.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def _coco(folder: Path, inputs: Sequence[Path]) -> dict[str, Any]:
    write_coco(folder, inputs)
    return dict(json.loads((folder / "detections.coco.json").read_text()))


def test_write_coco__joins_records_and_keeps_empty_images(tmp_path: Path) -> None:
    found = {Path("in/one.png"): _found(2), Path("in/two.png"): _found(0)}
    content = _coco(_batch(tmp_path, found), list(found))
    assert [image["file_name"] for image in content["images"]] == ["one.png", "two.png"]
    assert [each["bbox"] for each in content["annotations"]] == [[1, 2, 10, 20]] * 2
    assert [each["id"] for each in content["annotations"]] == [1, 2]
    assert {each["image_id"] for each in content["annotations"]} == {content["images"][0]["id"]}
    assert content["info"]["models"] == ["sfod/test/0"]


def test_write_coco__categories_are_the_detectors_own_list(tmp_path: Path) -> None:
    classes = ("person", "car", "bus")
    found = {Path("in/a.png"): replace(_found(2, classes), labels=np.array([2, 1]))}
    content = _coco(_batch(tmp_path, found), list(found))
    assert content["categories"] == [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}, {"id": 3, "name": "bus"}]
    assert [each["category_id"] for each in content["annotations"]] == [3, 2]


def test_write_coco__ids_are_places_of_the_inputs_done_or_not(tmp_path: Path) -> None:
    found = {Path("in/a.png"): _found(1), Path("in/b.png"): None, Path("in/c.png"): _found(1)}
    folder = _batch(tmp_path, found)
    (folder / "outputs" / "notes.json").write_text('{"mine": true}')
    content = _coco(folder, list(found))
    assert {image["id"]: image["file_name"] for image in content["images"]} == {1: "a.png", 3: "c.png"}
    assert [each["image_id"] for each in content["annotations"]] == [1, 3]


def test_write_coco__ids_of_the_persons_own_index(tmp_path: Path) -> None:
    found = {Path("in/a.png"): _found(1), Path("in/b.png"): _found(2)}
    folder = _batch(tmp_path, found)
    write_coco(folder, list(found), {Path("in/a.png"): 70, Path("in/b.png"): 7})
    content = json.loads((folder / "detections.coco.json").read_text())
    assert {image["id"]: image["file_name"] for image in content["images"]} == {70: "a.png", 7: "b.png"}
    assert [each["image_id"] for each in content["annotations"]] == [70, 7, 7]


def test_write_coco__equal_names_of_two_folders_do_not_meet(tmp_path: Path) -> None:
    found = {Path("in/x/a.png"): _found(1), Path("in/y/a.png"): _found(1)}
    content = _coco(_batch(tmp_path, found), list(found))
    assert [image["file_name"] for image in content["images"]] == ["x/a.png", "y/a.png"]


def test_write_coco__nothing_done(tmp_path: Path) -> None:
    content = _coco(_batch(tmp_path, {Path("a.png"): None}), [Path("a.png")])
    assert (content["images"], content["annotations"], content["categories"]) == ([], [], [])
