"""Source-free adaptation that cannot go well: group C of the catalogue, through the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.sfod.__main__ import main
from pipelines.sfod.learners import mean_teacher as learner
from pipelines.sfod.views import Batch
from tests.pipelines.sfod.tiny import adapt, make_foreign, source_bundle, weights
from tests.vision_core.detection.synthetic import make_coco, make_voc

Capture = pytest.CaptureFixture[str]
STEPS = ("method=lpld", "train.epochs=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc(tmp_path_factory.mktemp("target"), seed=1)


def test_c01_other_number_of_classes(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert adapt(tmp_path, data, "data.classes=[a,b,c,d,e,f,g,h]") == 2
    told = capsys.readouterr().err
    assert re.search(r"error\[CHECKPOINT\] .* 2 classes \(disc, square\), data\.classes lists 8: .*cls_score", told)


def test_c02_a_backbone_instead_of_a_detector(tmp_path: Path, capsys: Capture) -> None:
    file, words = make_foreign(tmp_path)
    tensors = torch.load(file, weights_only=True)["model"]
    torch.save({name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}, file)
    assert main(["import-weights", str(file), "--out", str(tmp_path / "bundle"), *words]) == 2
    assert "has no detector head; this is a backbone" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_c04_no_detection_passes_the_threshold(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(learner, "_PATIENCE_IMAGES", 4)  # instead of 200, to save the time
    assert adapt(tmp_path, data, *STEPS, "pseudo_labels.threshold=1") == 2
    told = capsys.readouterr().err
    assert re.search(r"error\[TRAINING\] .*threshold 1 is too high: .* 4 images, the highest score was 0\.\d\d", told)


def test_c07_images_below_the_smallest_anchor(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data", size=(32, 32))
    settings = json.loads((source_bundle() / "card.json").read_text())["architecture"]
    words = [f"detector.{name}={json.dumps(value)}" for name, value in settings.items()]
    words += ["method=source", "detector.anchor_sizes=[[64],[64],[128],[128],[256]]"]
    assert main(["train", "--out", str(tmp_path / "run"), f"data.root={data}", *words]) == 2
    assert re.search(r"is '32 x 32' px .* smallest anchor has 64 px\. Enlarge", capsys.readouterr().err)


def test_c07_images_beyond_the_largest_size(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert adapt(tmp_path, data, *STEPS, "data.max_megapixels=0.005") == 2
    assert re.search(r"declares 96 x 64 pixels, .*Cut it into tiles", capsys.readouterr().err)


def _good(root: Path) -> None:
    """Labels as they are."""


def _none(root: Path) -> None:
    for path in (root / "Annotations").iterdir():
        path.unlink()
    (root / "Annotations").rmdir()


def _malformed(root: Path) -> None:
    for number, path in enumerate(sorted((root / "Annotations").iterdir())):
        path.write_bytes((b"", b"<annotation", b"\xff\xfe\x00", b"<!DOCTYPE a><annotation/>")[number % 4])


def _wrong(root: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for path in (root / "Annotations").iterdir():
        path.write_text(f"<annotation><object><name>square</name>{box}</object></annotation>")


def _adapted_weights(folder: Path, data: Path, *words: str) -> bytes:
    assert adapt(folder / "run", data, *STEPS, *words) == 0
    return weights(folder / "run")


@pytest.fixture(scope="module")
def from_good_labels(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    found = _adapted_weights(tmp_path_factory.mktemp("good"), data)
    assert found != (source_bundle() / "weights.safetensors").read_bytes()
    return found


@pytest.mark.parametrize("poison", [_good, _none, _malformed, _wrong])
def test_c08_labels_in_the_target_folder_change_no_bit(
    poison: Callable[[Path], None], from_good_labels: bytes, tmp_path: Path
) -> None:
    data = make_voc(tmp_path / "data", seed=1)
    poison(data)
    assert _adapted_weights(tmp_path, data) == from_good_labels


def test_c08_labels_in_a_coco_index_change_no_bit(tmp_path: Path) -> None:
    found = []
    for name in ("good", "poisoned"):
        data = make_coco(tmp_path / name / "data", seed=1)
        if name == "poisoned":
            index = json.loads((data / "train.json").read_text())
            index["annotations"] = [{"id": 0, "image_id": 999, "category_id": "x", "bbox": [float("nan")]}, "nonsense"]
            (data / "train.json").write_text(json.dumps(index))
        found.append(_adapted_weights(tmp_path / name, data, "data.format=coco"))
    assert found[0] == found[1]


def test_c10_a_loss_that_is_not_finite_stops_at_that_step_and_keeps_what_was_good(
    data: Path, from_good_labels: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    step = learner.MeanTeacherLearner.training_step

    def poisoned(self: learner.MeanTeacherLearner, batch: Batch) -> dict[str, torch.Tensor]:
        losses = step(self, batch)
        return losses | {"loss_cls": losses["loss_cls"] * float("nan")} if self.step == 1 else losses

    with monkeypatch.context() as patch:
        patch.setattr(learner.MeanTeacherLearner, "training_step", poisoned)
        assert adapt(tmp_path, data, *STEPS, "train.save_every=1") == 2
    told = capsys.readouterr().err
    assert re.search(r"error\[TRAINING\] .*step 1 \(.*loss_cls nan.*train_00\d\.png.*checkpoint is of step 1", told)
    assert main(["train", "--out", str(tmp_path), "--resume"]) == 0
    assert weights(tmp_path) == from_good_labels


@pytest.mark.parametrize("method", ["mt", "source"])
def test_c10_weights_that_are_not_finite_stop_as_a_loss_does(
    method: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["train.epochs=4", "optim.lr=1000", "optim.clip_norm=0", f"method={method}"]
    assert adapt(tmp_path, data, *words) == 2
    assert re.search(r"error\[TRAINING\] .*not finite at step \d.*train_00\d\.png", capsys.readouterr().err)


def test_b33_scoring_on_images_adapted_to_is_said_aloud(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert adapt(tmp_path, data, *STEPS, "data.eval_split=train") == 0
    assert "TRANSDUCTIVE: 4 of the 4 images" in capsys.readouterr().out
    assert "TRANSDUCTIVE" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("keep_rate", "line"), [("1", "the teacher never moves"), ("0", "there is no average")])
def test_c12_a_teacher_that_is_none(keep_rate: str, line: str, data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert adapt(tmp_path, data, *STEPS, f"teacher.keep_rate={keep_rate}", "--dry-run") == 0
    assert re.search(rf"warning: teacher\.keep_rate is {keep_rate}: {line}", capsys.readouterr().out)


def test_b02_a_truncated_image_is_found_before_the_first_step(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data", seed=1)
    path = data / "JPEGImages" / "train_002.png"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    for words in (("--dry-run",), ("train.batch_size=1",)):
        assert adapt(tmp_path / "run", data, *STEPS, *words) == 2
        told = capsys.readouterr().err
        assert re.search(r"error\[DATA\] '.*train_002\.png' cannot be decoded: it is damaged .*truncated", told)
        assert "'1' of '4' images cannot be read. Mend them or take them off the list, or set data.on_corrupt" in told
    assert not list((tmp_path / "run").glob("*.pt"))
    path.write_bytes(good)
    assert adapt(tmp_path / "run", data, *STEPS, "train.batch_size=1") == 0


def test_b02_truncated_images_are_left_out_named_and_counted_on_request(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data", seed=1)
    for split in ("train", "test"):
        path = data / "JPEGImages" / f"{split}_002.png"
        path.write_bytes(path.read_bytes()[:500])
    assert adapt(tmp_path / "run", data, *STEPS, "data.eval_split=test", "data.on_corrupt=skip") == 0
    told = capsys.readouterr().out
    for split in ("train", "test"):
        line = f"'data:{split}': '1' of '4' images cannot be read and are left out: {split}_002.png"
        assert told.count(f"IMAGES CORRUPT: {line}") == 1
    counts = json.loads((tmp_path / "run" / "evaluation.json").read_text())[0]["counts"]
    assert (counts["images"], counts["images corrupt"]) == (3, 1)
    notes = json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
    assert sum("IMAGES CORRUPT" in note for note in notes) == 2


def test_b02_a_hole_in_an_image_ends_the_run_there_and_it_goes_on_once_mended(tmp_path: Path, capsys: Capture) -> None:
    data = make_voc(tmp_path / "data", seed=1)
    good = (data / "JPEGImages" / "train_002.png").read_bytes()
    hole = good[: len(good) // 2] + bytes(64) + good[len(good) // 2 + 64 :]
    (data / "JPEGImages" / "train_002.png").write_bytes(hole)
    assert adapt(tmp_path / "run", data, *STEPS, "train.batch_size=1") == 2
    assert re.fullmatch(
        r"error\[DATA\] '.*train_002\.png' cannot be decoded: it is damaged .*\n", capsys.readouterr().err
    )
    (data / "JPEGImages" / "train_002.png").write_bytes(good)
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
