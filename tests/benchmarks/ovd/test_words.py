"""Typed names on scenes: boxes are those of the predictor, what is counted, and sentences that are embedded once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.ovd.scenes.measures import Remembering
from benchmarks.ovd.words import count, is_missed, look_for, measure, see
from pipelines.ovd.bundles import load_open_detector
from pipelines.ovd.image_text.vocabulary import Vocabulary
from pipelines.ovd.predict import OvdPredictor, embed_names
from tests.pipelines.ovd.loops import CLASSES
from tests.pipelines.ovd.table import TableModel
from tests.pipelines.ovd.test_bundles import make_bundle
from tests.vision_core.detection.synthetic import make_coco
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.detection.settings import DetectionData

NOBODY = Vocabulary(names=(), synonyms=())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    """Three pictures with discs, squares, rings and bars."""
    folder = make_coco(tmp_path_factory.mktemp("scenes"), count=3, classes=CLASSES)
    data = DetectionData(root=folder, format="coco", classes=CLASSES)
    return read_dataset(data, "train", with_labels=True)


def test_boxes__are_those_of_the_predictor_and_are_counted(scenes: DetectionDataset, tmp_path: Path) -> None:
    content = load_open_detector(make_bundle(tmp_path / "model"))
    typed = embed_names(
        content, TableModel(embed_dim=8), (Vocabulary.of_classes(["disc", "lamp"]), NOBODY), is_open=True
    )
    seen = see(content, scenes.records)
    found = [look_for(content, each, typed) for each in seen]
    predictor = OvdPredictor(content, torch.device("cpu"), typed=typed)
    boxes = {}
    for each, result in zip(seen, found, strict=True):
        expected = predictor(each.record.path)
        np.testing.assert_allclose(result.scores.numpy(), expected.scores, atol=1e-5)
        boxes[each.record.image_id] = len(expected)
    counted = count(content, seen, typed, [0])
    without = [record.image_id for record in scenes.records if 0 not in record.labels]
    assert counted["scenes"] == len(without)
    assert counted["false_boxes"] == pytest.approx(sum(boxes[name] for name in without) / max(len(without), 1))
    assert counted["objects"] == sum(int((record.labels == 0).sum()) for record in scenes.records)
    assert count(content, seen, typed, [])["scenes"] == 3


def test_measure__all_figures_are_there_and_targets_are_told(scenes: DetectionDataset, tmp_path: Path) -> None:
    content = load_open_detector(make_bundle(tmp_path / "model"))
    facts = measure(content, Remembering(TableModel(embed_dim=8)), scenes.records, ["lamp", "cup"])
    assert set(facts) == {"scenes", "background", "objects", "drift"}
    assert facts["objects"]["each_class_mean"] <= facts["background"]["each_class_mean"]
    good: dict[str, Any] = {
        "background": {"by_name_alone": {"false_boxes": 0.2}},
        "drift": {"median": 0.02, "p95": 0.1},
    }
    assert not is_missed(good)
    for place, value in (("median", 0.021), ("p95", 0.11)):
        assert is_missed(good | {"drift": {**good["drift"], place: value}})
    assert is_missed(good | {"background": {"by_name_alone": {"false_boxes": 0.21}}})


def test_remembering__a_sentence_is_embedded_once() -> None:
    model = TableModel(embed_dim=5)
    remembering = Remembering(model)
    first = remembering.encode_texts(["a cat", "a dog", "a cat"])
    again = remembering.encode_texts(["a dog", "a cup"])
    assert model.texts == ["a cat", "a dog", "a cup"]
    torch.testing.assert_close(again[0], first[1])
