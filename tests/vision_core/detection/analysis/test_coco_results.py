"""Labels and detections as files that pycocotools reads, and scores as we do."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.vision_core.detection.synthetic import SHAPES, make_coco, make_voc
from vision_core.detection.analysis.coco_results import LABELS, write_results
from vision_core.detection.average_precision import coco_ap, coco_ap_by_size
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.results import Detections


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_write_results__pycocotools_computes_our_scores(kind: str, tmp_path: Path) -> None:
    root = make_coco(tmp_path / "data") if kind == "coco" else make_voc(tmp_path / "data")
    data = DetectionData.model_validate({"root": root, "format": kind, "classes": SHAPES, "eval_split": "test"})
    dataset = read_dataset(data, "test", with_labels=True)
    dataset.records[1].difficult[0] = True
    generator = np.random.default_rng(0)
    found = [
        Detections(
            boxes=(each.boxes + generator.uniform(-3, 3, each.boxes.shape)).astype(np.float32),
            scores=np.sort(generator.random(len(each.boxes)).astype(np.float32))[::-1],
            labels=each.labels,
            classes=SHAPES,
            image_size=(64, 96),
        )
        for each in dataset.records
    ]
    assert write_results(tmp_path / "out", data, dataset, {"lpld": found}) == ()
    labels = tmp_path / "out" / LABELS
    if kind == "coco":  # ids are those of the person's own index
        own = json.loads((root / "test.json").read_text())
        ours = json.loads(labels.read_text())
        assert ours["images"] == own["images"]
        assert ours["categories"] == own["categories"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(labels))
        evaluator = COCOeval(truth, truth.loadRes(str(tmp_path / "out" / "detections-lpld.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert evaluator.stats[0] == pytest.approx(coco_ap(dataset.records, found, SHAPES).mean, abs=1e-4)
    by_size = coco_ap_by_size(dataset.records, found, SHAPES)
    expected = [value if value > -1 else None for value in evaluator.stats[3:6].tolist()]
    assert list(by_size.values()) == [value if value is None else pytest.approx(value, abs=1e-4) for value in expected]


def test_write_results__images_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "data")
    index = json.loads((root / "test.json").read_text())
    for place, image in enumerate(index["images"]):
        name = f"{place}/image.png"
        (root / "test" / str(place)).mkdir()
        (root / "test" / image["file_name"]).rename(root / "test" / name)
        image["file_name"] = name
    (root / "test.json").write_text(json.dumps(index))
    data = DetectionData(root=root, format="coco", eval_split="test")
    write_results(tmp_path / "out", data, read_dataset(data, "test", with_labels=True), {})
    assert json.loads((tmp_path / "out" / LABELS).read_text())["images"] == index["images"]
