"""What a detector has seen of a scored list, told beside its scores; which list calibrates it."""

import json
from pathlib import Path

import pytest

from pipelines.sfod.__main__ import main
from pipelines.sfod.predict import SfodPredictor
from tests.pipelines.sfod.tiny import CLASSES, SUPERVISED, adapt, make_foreign, source_bundle
from tests.vision_core.detection.synthetic import make_voc
from vision_core.bundles import bundle
from vision_core.detection.calibration import read_calibration
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.settings import DetectionData


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
