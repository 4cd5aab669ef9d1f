"""Scores and comparison pictures from detections given by hand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.sfod.__main__ import main
from pipelines.sfod.evaluate import detect_all, draw_comparison, score
from pipelines.sfod.predict import SfodPredictor
from tests.pipelines.sfod.tiny import CLASSES, SUPERVISED, adapt, make_foreign, source_bundle
from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.bundles import bundle
from vision_core.detection.calibration import read_calibration
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.datasets.records import ImageRecord
from vision_core.detection.settings import DetectionData
from vision_core.images.reading import read_image
from vision_core.results import Detections


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    root = make_voc(tmp_path_factory.mktemp("voc"), count=8)
    return read_dataset(DetectionData(root=root, classes=SHAPES), "test", with_labels=True)


def _truth(record: ImageRecord) -> Detections:
    return Detections(
        boxes=record.boxes,
        scores=np.full(len(record.boxes), 0.9, np.float32),
        labels=record.labels,
        classes=SHAPES,
        image_size=(64, 96),
        model="truth",
    )


def _nothing(record: ImageRecord) -> Detections:
    return _truth(dataclasses.replace(record, boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64)))


def test_score__the_truth_is_perfect_in_every_metric(dataset: DetectionDataset) -> None:
    row = score("truth", dataset, [_truth(record) for record in dataset.records])
    assert row.metrics == pytest.approx({"voc07_ap50": 1.0, "area_ap50": 1.0, "coco_ap": 1.0})
    assert (row.model, row.split, row.counts["images"]) == ("truth", dataset.name, 8)
    assert row.counts["boxes"] == sum(len(record.boxes) for record in dataset.records)


def test_score__nothing_found_is_zero(dataset: DetectionDataset) -> None:
    row = score("blind", dataset, [_nothing(record) for record in dataset.records])
    assert set(row.metrics.values()) == {0.0}


def test_score__a_class_without_boxes_does_not_dilute_the_mean(dataset: DetectionDataset) -> None:
    more = dataclasses.replace(dataset, classes=(*SHAPES, "background"))
    row = score("truth", more, [_truth(record) for record in dataset.records])
    assert row.metrics["voc07_ap50"] == pytest.approx(1.0)
    assert row.per_class["background.voc07_ap50"] is None


def test_score__named_classes_alone_count(dataset: DetectionDataset) -> None:
    found = [_truth(record) for record in dataset.records]
    discs_only = [
        dataclasses.replace(each, boxes=each.boxes[keep], scores=each.scores[keep], labels=each.labels[keep])
        for each in found
        for keep in [each.labels == 0]
    ]
    assert score("half", dataset, discs_only).metrics["voc07_ap50"] == pytest.approx(0.5)
    row = score("half", dataset, discs_only, classes=("disc",))
    assert row.metrics["voc07_ap50"] == pytest.approx(1.0)
    assert row.counts["boxes"] == sum(int((record.labels == 0).sum()) for record in dataset.records)


def test_score__no_boxes_at_all_is_undefined(dataset: DetectionDataset) -> None:
    """Row B31 of the bad inputs."""
    empty = [
        dataclasses.replace(record, boxes=record.boxes[:0], labels=record.labels[:0],
                            difficult=record.difficult[:0], crowd=record.crowd[:0])
        for record in dataset.records
    ]  # fmt: skip
    row = score("any", dataclasses.replace(dataset, records=tuple(empty)), [_truth(each) for each in dataset.records])
    assert set(row.metrics.values()) == {None}
    assert row.counts["boxes"] == 0


def test_detect_all__in_the_order_of_the_list(dataset: DetectionDataset) -> None:
    by_path = {record.path: _truth(record) for record in dataset.records}
    assert detect_all(by_path.__getitem__, dataset, "label") == list(by_path.values())


def test_draw_comparison__six_evenly_spaced_pictures_side_by_side(dataset: DetectionDataset, tmp_path: Path) -> None:
    found = {
        "source": [_nothing(each) for each in dataset.records],
        "adapted": [_truth(each) for each in dataset.records],
    }
    draw_comparison(dataset, found, tmp_path)
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert sorted(captions) == sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(captions) == 6
    assert next(iter(captions)) == "0000-test_000.png"
    assert captions["0000-test_000.png"].startswith("test_000, left to right source: 0 above 0.5; adapted: ")
    left, right = np.split(read_image(tmp_path / "0000-test_000.png")[:, [*range(96), *range(104, 200)]], 2, axis=1)
    np.testing.assert_array_equal(left, read_image(dataset.records[0].path))
    assert (left != right).any()


def _evaluated(path: Path, out: Path, *words: str) -> list[str]:
    """Notes beside the scores of ``evaluate``."""
    assert main(["evaluate", "--checkpoint", str(path), "--out", str(out), *words]) == 0
    [row] = json.loads((out / "evaluation.json").read_text())
    return [note.partition(":")[0] for note in row["notes"]]


def test_evaluate__a_source_is_calibrated_on_its_own_list_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, other = make_voc(tmp_path / "data", count=4), make_voc(tmp_path / "other", count=3, seed=5)
    words = [f"data.root={data}", "data.eval_split=test", *SUPERVISED, "train.epochs=4"]
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 0
    model = tmp_path / "run" / "model"
    assert "Calibration on 4 images of " in capsys.readouterr().out
    made = read_calibration(bundle.read_card(model))
    assert made is not None
    assert made.images == 4
    assert made.data.endswith("the source's own validation list")
    assert set(made.per_class) == set(CLASSES)
    detector = SfodPredictor.from_checkpoint(model)
    labelled = read_dataset(DetectionData(root=data, classes=CLASSES), "test", with_labels=True)
    found = [detector(record.path) for record in labelled.records]
    assert sum(made.all.detections) == sum(len(each) for each in found)  # none of the objects is difficult
    before = (model / "card.json").read_bytes()
    assert _evaluated(model, tmp_path / "a") == ["CALIBRATED ON"]
    assert _evaluated(model, tmp_path / "b", "data.eval_split=train") == ["TRAINED ON"]
    assert _evaluated(model, tmp_path / "c", f"data.root={other}") == []
    assert (model / "card.json").read_bytes() == before
    bundle.amend(model, calibration=None)
    assert _evaluated(model, tmp_path / "d", f"data.root={other}") == []
    assert bundle.read_card(model).calibration is None  # a list of a target
    _evaluated(model, tmp_path / "e")
    assert read_calibration(bundle.read_card(model)) == made
    assert main(["verify", str(model)]) == 0


def test_evaluate__one_image_of_the_training_among_others_is_told(tmp_path: Path) -> None:
    data = make_voc(tmp_path / "data", count=4)
    words = [f"data.root={data}", *SUPERVISED, "train.max_steps=1"]
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 0
    lists = data / "ImageSets" / "Main"
    trained = (lists / "train.txt").read_text().split()
    (lists / "mixed.txt").write_text("\n".join([*(lists / "test.txt").read_text().split(), trained[0]]))
    model = tmp_path / "run" / "model"
    assert _evaluated(model, tmp_path / "a", "data.eval_split=mixed") == ["TRAINED ON"]
    moved = tmp_path / "moved"
    data.rename(moved)  # single images are known by the list, the whole list by its hash
    assert _evaluated(model, tmp_path / "b", f"data.root={moved}", "data.eval_split=mixed") == []
    assert _evaluated(model, tmp_path / "c", f"data.root={moved}", "data.eval_split=train") == ["TRAINED ON"]


def test_train__what_is_adapted_is_not_calibrated(tmp_path: Path) -> None:
    data = make_voc(tmp_path / "data", count=3, seed=1)
    assert adapt(tmp_path / "run", data, "method=mt", "train.max_steps=2", "data.eval_split=test") == 0
    assert bundle.read_card(tmp_path / "run" / "model").calibration is None
    assert bundle.read_card(source_bundle()).calibration is None
    assert _evaluated(tmp_path / "run" / "model", tmp_path / "a", "data.eval_split=train") == ["TRANSDUCTIVE"]


@pytest.mark.slow
def test_import_weights__a_labelled_list_calibrates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_voc(tmp_path / "data", count=2)
    file, words = make_foreign(tmp_path / "foreign")
    command = ["import-weights", str(file), "--out", str(tmp_path / "bundle"), *words, f"data.root={data}"]
    assert main([*command, "data.eval_split=absent"]) != 0
    assert not (tmp_path / "bundle").exists()
    assert main([*command, "data.eval_split=test"]) == 0
    assert "Calibration on 2 images of " in capsys.readouterr().out
    made = read_calibration(bundle.read_card(tmp_path / "bundle"))
    assert made is not None
    assert made.data.endswith("given with import-weights")
