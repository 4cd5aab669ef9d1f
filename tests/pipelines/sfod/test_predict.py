"""Objects in words, and the notes on a file beside its result."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sfod.__main__ import main
from pipelines.sfod.pipeline import SfodPipeline
from pipelines.sfod.predict import SfodPredictor
from tests.pipelines.sfod.tiny import CLASSES, source_bundle
from tests.vision_core.detection.synthetic import make_picture
from vision_core.bundles import bundle
from vision_core.errors import CheckpointError
from vision_core.results import Detections


def _found(count: int, classes: tuple[str, ...] = CLASSES) -> Detections:
    return Detections(
        boxes=np.array([[1, 2, 11, 22]] * count, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.3, count, dtype=np.float32),
        labels=np.zeros(count, np.int64),
        classes=classes,
        image_size=(64, 96),
        model="sfod/test/0",
    )


def test_columns__objects_in_words_and_by_class() -> None:
    pipeline = SfodPipeline()
    found = _found(3, ("person", "car"))
    row = pipeline.columns(replace(found, labels=np.array([1, 1, 0]), titles={"car": "Auto"}))
    assert row == {"verdict": "2 Auto", "notice": "", "person (score > 0.5)": 0, "car (score > 0.5)": 2}
    assert (
        pipeline.columns(replace(_found(0), notes=("It is dark.", "So is that.")))["notice"]
        == "It is dark. So is that."
    )
    assert pipeline.columns(_found(0))["verdict"] == "no object with a score above 0.5"


def test_predict__notes_on_a_file_stand_beside_its_result(tmp_path: Path) -> None:
    frames = [Image.fromarray(make_picture((64, 96), CLASSES, seed)[0]) for seed in range(2)]
    (tmp_path / "in").mkdir()
    frames[0].save(tmp_path / "in" / "a.tif", save_all=True, append_images=frames[1:])
    words = [f"--checkpoint={source_bundle()}", f"--input={tmp_path}/in", f"--out={tmp_path}/out"]
    assert main(["predict", *words]) == 0
    [row] = csv.DictReader((tmp_path / "out" / "results.csv").open())
    told = "The file holds 2 frames; the first is used."
    assert row["notice"] == told
    assert json.loads((tmp_path / "out" / "outputs" / "a.json").read_text())["notes"] == [told]


def test_from_checkpoint__a_bundle_of_another_task_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(source_bundle(), folder)
    bundle.amend(folder, task="ovd")
    with pytest.raises(CheckpointError, match="is of pipeline 'ovd', not 'sfod'"):
        SfodPredictor.from_checkpoint(folder)


def test_predict__images_have_the_ids_of_the_persons_own_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.fromarray(make_picture((64, 96), CLASSES, 0)[0]).save(tmp_path / "in" / f"{name}.png")
    index = tmp_path / "index.json"
    words = [f"--checkpoint={source_bundle()}", f"--input={tmp_path}/in", f"--out={tmp_path}/out"]
    listed = [{"id": 5, "file_name": "b.png"}, {"id": 3, "file_name": "a.png"}]
    index.write_text(json.dumps({"images": listed[:1], "annotations": [], "categories": []}))
    assert main(["predict", *words, f"results.index={index}"]) == 2
    assert "a.png' has no id in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    index.write_text(json.dumps({"images": listed, "annotations": [], "categories": []}))
    assert main(["predict", *words, f"results.index={index}"]) == 0
    found = json.loads((tmp_path / "out" / "detections.coco.json").read_text())
    assert {each["file_name"]: each["id"] for each in found["images"]} == {"a.png": 3, "b.png": 5}
