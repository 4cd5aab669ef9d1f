"""Source-free adaptation that cannot go well: group C of the catalogue, through the command line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.sfod.__main__ import main
from pipelines.sfod.learners import mean_teacher as learner
from tests.pipelines.sfod.tiny import adapt, adapt_words, make_foreign, source_bundle, weights
from tests.vision_core.detection.synthetic import make_coco, make_voc
from vision_core.bundles.bundle import amend
from vision_core.detection.calibration import calibrate
from vision_core.detection.views import Batch

Capture = pytest.CaptureFixture[str]
UNCALIBRATED = calibrate([], [], ("disc", "square"), data="its list", manifest="0").model_dump(mode="json")
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


NOTHING = r"threshold 1 is too high: no detection passed it on the first {} images, the highest score was 0\.\d\d"


@pytest.mark.parametrize("words", [("train.epochs=3",), ("train.max_steps=1", "teacher.every=step")])
def test_c04_no_detection_passes_the_threshold(
    words: tuple[str, ...], data: Path, tmp_path: Path, capsys: Capture
) -> None:
    """In the first epoch, or in a run shorter than that."""
    assert adapt(tmp_path, data, "pseudo_labels.threshold=1", *words) == 2
    told = capsys.readouterr().err
    images = 2 if "teacher.every=step" in words else 4
    assert re.search(r"error\[TRAINING\] pseudo_labels." + NOTHING.format(images), told)
    assert "pseudo_labels.on_nothing=continue goes on" in told
    assert not (tmp_path / "model").exists()
    assert main(["train", "--out", str(tmp_path), "--resume"]) == 2  # nor does the end of it pass for a success


def test_c04_on_request_the_run_goes_on_and_everything_says_so(data: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ("train.epochs=1", "pseudo_labels.threshold=1", "pseudo_labels.on_nothing=continue")
    assert adapt(tmp_path, data, *words) == 0
    alarm = re.compile(r"ALARM: pseudo_labels\." + NOTHING.format(4))
    assert alarm.search(capsys.readouterr().out)
    assert alarm.search("\n".join(json.loads((tmp_path / "run.json").read_text())["notes"]))
    assert alarm.search(json.loads((tmp_path / "model" / "card.json").read_text())["limits"])
    assert alarm.search((tmp_path / "report.html").read_text())


def test_c04_boxes_an_image_stand_in_the_progress(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert adapt(tmp_path, data, *STEPS) == 0
    assert re.search(r"train: 2/2 step, .* left, loss \S+, \d\.\d pseudo labels an image", capsys.readouterr().err)


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_c13_an_adaptation_shorter_than_an_epoch(
    flags: tuple[str, ...], data: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *adapt_words(data, "train.max_steps=1"), *flags]) == 2
    told = capsys.readouterr().err
    assert re.search(r"error\[CONFIG\] teacher\.every=epoch moves the teacher after '2' steps.*train\.max_steps", told)
    assert "teacher.every=step" in told
    assert not run.exists()


def test_c13_of_several_runs_none_begins(data: Path, tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "runs.yaml"
    config.write_text("runs: {long: {}, short: {train.max_steps: 1}}")
    words = adapt_words(data, "data.classes=[disc,square]")
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "out"), *words]) == 2
    assert "moves the teacher after '2' steps" in capsys.readouterr().err
    assert not list(tmp_path.rglob("last.pt"))


def test_c13_the_end_of_a_run_tells_how_often_the_teacher_moved(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert adapt(tmp_path, data, "train.max_steps=5") == 0
    told = "The teacher moved 2 times; 1 step of 5 came after its last move."
    assert told in capsys.readouterr().out
    facts = json.loads((tmp_path / "run.json").read_text())
    assert told in facts["notes"]
    assert (facts["teacher_moves"], facts["teacher_moved_at"], facts["steps_after_last_move"]) == (2, 4, 1)


def test_c13_bn_has_no_teacher(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", "--dry-run", *adapt_words(data, "method=bn", "train.max_steps=1")]) == 0
    assert "teacher" not in capsys.readouterr().out


def amended(folder: Path, calibration: object) -> Path:
    """The tiny bundle with a calibration on its card, made by hand."""
    bundle = shutil.copytree(source_bundle(), folder / "source")
    amend(bundle, calibration=calibration)
    return bundle


def test_c14_the_threshold_follows_from_the_card_of_the_source(data: Path, tmp_path: Path, capsys: Capture) -> None:
    bundle = amended(tmp_path, {**UNCALIBRATED, "all": {**UNCALIBRATED["all"], "sure_score": 0.4321}})
    words = adapt_words(data, f"source.weights={bundle}", "pseudo_labels.threshold=auto", "train.epochs=1")
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 0
    assert "pseudo_labels.threshold=auto is 0.432" in capsys.readouterr().out
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert card["config"]["pseudo_labels"]["threshold"] == 0.4321
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0


_NO_SCORE = r"error\[CONFIG\] pseudo_labels\.threshold=auto: the card of '.*' has no score .*Give a number"
_NO_CALIBRATION = r"error\[CHECKPOINT\] card\.json, calibration\.\w+.*Fetch the bundle again"


@pytest.mark.parametrize(
    ("calibration", "line"),
    [
        (None, _NO_SCORE),
        ({}, _NO_SCORE),
        (UNCALIBRATED, _NO_SCORE),
        ({"temperature": 1.0}, _NO_CALIBRATION),
        ({**UNCALIBRATED, "all": None}, _NO_CALIBRATION),
        ({**UNCALIBRATED, "all": {**UNCALIBRATED["all"], "sure_score": "high"}}, _NO_CALIBRATION),
    ],
)
def test_c14_a_card_without_that_score(
    calibration: object, line: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = adapt_words(data, f"source.weights={amended(tmp_path, calibration)}", "pseudo_labels.threshold=auto")
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 2
    told = capsys.readouterr().err
    assert re.search(line, told)
    assert len(told.strip().splitlines()) == 1


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


@pytest.mark.parametrize("poison", [_none, _malformed, _wrong])
def test_c08_labels_in_the_target_folder_change_no_bit(
    poison: Callable[[Path], None], from_good_labels: bytes, tmp_path: Path
) -> None:
    data = make_voc(tmp_path / "data", seed=1)
    poison(data)
    assert _adapted_weights(tmp_path, data) == from_good_labels


def test_c08_labels_in_a_coco_index_change_no_bit(from_good_labels: bytes, tmp_path: Path) -> None:
    """Its images are those of the other layout."""
    data = make_coco(tmp_path / "data", seed=1)
    index = json.loads((data / "train.json").read_text())
    index["annotations"] = [{"id": 0, "image_id": 999, "category_id": "x", "bbox": [float("nan")]}, "nonsense"]
    (data / "train.json").write_text(json.dumps(index))
    assert _adapted_weights(tmp_path, data, "data.format=coco") == from_good_labels


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
