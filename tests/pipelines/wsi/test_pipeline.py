"""How slides, features and a network become a run: prepared, resumed, delivered, scored."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.wsi.__main__ import main
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.evaluation.predictions import read_predictions
from pipelines.wsi.learner import PlainLearner
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.model_selection import Validation
from pipelines.wsi.pipeline import WsiPipeline
from pipelines.wsi.weights.bundles import DECISION, load_network
from tests.pipelines.wsi.tiny import CLASSES, DIM, FEATURE_WORDS, SPLITS, make_features, make_foreign
from vision_core.bundles import bundle
from vision_core.config import loading as config
from vision_core.errors import DataError
from vision_core.results import OUTSIDE, UNDECIDED
from vision_core.signals import StopRequest
from vision_core.training import loop as training

CPU = torch.device("cpu")
NAMES = ("abmil", "dsmil", "transmil")
# It has all that the others have.
QUICK = {("mhim_v2", "transmil")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain ABMIL of the tiny features."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    assert _train(run, data, "method=plain") == 0
    return run / "model"


def _words(data: Path, *words: str) -> list[str]:
    return [f"data.root={data}", *FEATURE_WORDS, *words]


def _config(data: Path, *words: str) -> WsiConfig:
    return config.load(WsiConfig, None, _words(data, *words))


def _train(out: Path, data: Path, *words: str) -> int:
    return main(["train", "--out", str(out), *_words(data, *words)])


def _weights(run: Path) -> bytes:
    return (run / "model" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, marks=() if (method, name) in QUICK else pytest.mark.slow)
        for method in ("mhim_v1", "mhim_v2")
        for name in NAMES
    ],
)
def test_life__train_resume_evaluate_predict(
    method: str, name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"method={method}", f"model.name={name}", "random_teacher=true"]
    assert _train(tmp_path / "run", data, *words) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_signals", lambda: nullcontext(StopRequest(requested=True)))
        assert _train(tmp_path / "stopped", data, *words) == 130
    assert main(["train", "--out", str(tmp_path / "stopped"), "--resume"]) == 0
    assert _weights(tmp_path / "stopped") == _weights(tmp_path / "run")
    model = str(tmp_path / "run" / "model")
    assert main(["verify", model]) == 0
    assert main(["evaluate", "--checkpoint", model, "--out", str(tmp_path / "scores")]) == 0
    [row] = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    at_the_end = json.loads((tmp_path / "run" / "evaluation.json").read_text())[-1]
    assert {**row, "model": ""} == {**at_the_end, "model": ""}
    predicted = ["predict", "--checkpoint", model, "--input", str(data / "features" / "s7.h5")]
    assert main([*predicted, "--out", str(tmp_path / "found")]) == 0
    record = json.loads((tmp_path / "found" / "outputs" / "s7.json").read_text())
    scored = read_predictions(tmp_path / "scores" / "pictures" / "predictions.csv")
    share = scored.probabilities[scored.slides.index("s7"), 1]
    assert record["probabilities"]["tumour"] == pytest.approx(share, abs=1e-4)
    assert record["category"] == scored.categories[scored.slides.index("s7")]
    assert set(scored.categories) <= {*CLASSES, UNDECIDED, OUTSIDE}


def test_train__teacher_then_student_in_one_command(data: Path, tmp_path: Path) -> None:
    assert _train(tmp_path, data, "method=mhim_v1", "mhim_v1.teacher.keep_rate=1") == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["mhim_v1", "teacher"]
    cards = {name: bundle.read_card(tmp_path / name / "model") for name in ("teacher", "mhim_v1")}
    assert (cards["teacher"].method, cards["mhim_v1"].method) == ("plain", "mhim_v1")
    assert cards["mhim_v1"].parent == cards["teacher"].hashes["weights.safetensors"]
    # A teacher that keeps all of itself is still what the first stage left.
    state = torch.load(tmp_path / "mhim_v1" / "last.pt", weights_only=True)["learner"]
    stage = bundle.load(tmp_path / "teacher" / "model").tensors
    for key, tensor in stage.items():
        assert torch.equal(state[f"teacher.module.{key}"], tensor)


@pytest.mark.slow
def test_train__stopped_in_the_second_stage_ends_with_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _train(tmp_path / "whole", data, "method=mhim_v2") == 0
    starts = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_signals", lambda: nullcontext(StopRequest(requested=next(starts))))
        assert _train(tmp_path / "stopped", data, "method=mhim_v2") == 130
    assert main(["train", "--out", str(tmp_path / "stopped"), "--resume"]) == 0
    for stage in ("teacher", "mhim_v2"):
        assert _weights(tmp_path / "stopped" / stage) == _weights(tmp_path / "whole" / stage)


def test_train__folds_with_stages_are_pooled(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=mhim_v1", "data.protocol=stratified", "data.folds=2", "data.val_share=0.5", "train.epochs=1"]
    assert _train(tmp_path, data, *words) == 0
    out = capsys.readouterr().out
    runs = ["fold-0-mhim_v1", "fold-0-teacher", "fold-1-mhim_v1", "fold-1-teacher"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == runs
    assert "2 folds pooled, 8 slides: auc " in out
    assert "over 2 folds" in out
    pooled = read_predictions(tmp_path / "mhim_v1-predictions.csv")
    assert sorted(pooled.slides) == [f"s{number}" for number in range(len(SPLITS))]
    parts = [read_predictions(tmp_path / f"fold-{fold}-mhim_v1" / "pictures" / "predictions.csv") for fold in (0, 1)]
    assert [*parts[0].called, *parts[1].called] == pooled.called.tolist()


def test_prepare__same_seed_same_student_whatever_ran_before(data: Path) -> None:
    states = []
    for number in range(2):
        torch.manual_seed(number)
        states.append(WsiPipeline().prepare(_config(data, "method=plain")).learner.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_score__is_of_validation_alone_and_leaves_the_mode(data: Path) -> None:
    prepared = WsiPipeline().prepare(_config(data, "method=plain"))
    assert isinstance(prepared.score, Validation)
    assert isinstance(prepared.learner, PlainLearner)
    prepared.learner.train()
    values = prepared.score()
    assert next(iter(values)) == "auc"
    assert prepared.learner.student.training
    assert prepared.learner.validated["student"].slides == ("s4", "s5")


def test_deliver__card_says_how_slides_are_called(data: Path, tmp_path: Path) -> None:
    settings = _config(data, "method=plain", "data.about=tiny slides", "train.storage=fp16")
    pipeline = WsiPipeline()
    prepared = pipeline.prepare(settings)
    card = WsiPipeline().deliver(settings, prepared.learner, tmp_path / "model")
    assert card.classes == CLASSES
    assert card.architecture["feature_dim"] == DIM
    assert card.preprocessing["tile_px"] == 64
    assert card.calibration is not None
    assert 0 < card.calibration[DECISION] < 1
    assert card.calibration["cases"] == 2
    assert card.scope is not None
    assert "tiny slides, list 'train': 4 slides" in card.trained_on.description
    assert bundle.read_card(tmp_path / "model").identity() == card.identity()
    model = load_network(tmp_path / "model", CPU)
    assert model.predict(np.full((5, DIM), 99, np.float32)).is_outside


def test_train__best_epoch_and_threshold_come_from_validation(data: Path, tmp_path: Path) -> None:
    assert _train(tmp_path / "run", data, "method=plain", "train.epochs=6") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = [line["eval/auc"] for line in lines if "eval/auc" in line]
    assert len(scores) == 6
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best == {"epoch": scores.index(max(scores)) + 1, "value": max(scores)}
    listed = (tmp_path / "run" / "splits.csv").read_text().splitlines()
    assert [line.rpartition(",")[2] for line in sorted(listed[1:])] == list(SPLITS)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_train__the_teacher_of_the_best_epoch_is_scored_and_leaves_the_run(
    mode: str, data: Path, tmp_path: Path
) -> None:
    words = ["method=mhim_v1", "random_teacher=true", f"mhim_v1.teacher.mode={mode}", "mhim_v1.teacher.keep_rate=0.5"]
    assert _train(tmp_path / "run", data, *words) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("eval/ema_auc" in line for line in lines) == 2
    student, teacher = (load_network(tmp_path / "run" / name, CPU) for name in ("model", "mean_teacher"))
    assert teacher.card.trained_on.description.endswith("; its mean teacher")
    theirs = teacher.network.state_dict()
    assert any(not torch.equal(tensor, theirs[name]) for name, tensor in student.network.state_dict().items())
    words = ["--checkpoint", str(tmp_path / "run" / "mean_teacher"), "--out", str(tmp_path / "scores")]
    assert main(["evaluate", *words]) == 0


def test_train__a_teacher_that_is_not_scored_stays(data: Path, tmp_path: Path) -> None:
    words = ["method=mhim_v2", "random_teacher=true", "mhim_v2.teacher.scored=false"]
    assert _train(tmp_path / "run", data, *words) == 0
    assert "ema_auc" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert not (tmp_path / "run" / "mean_teacher").exists()


def test_train__stops_when_validation_has_stopped_getting_better(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check C15, through a whole run; as good as before is not worse."""
    scores = iter([0.80, 0.85, 0.84, 0.85, 0.83, 0.82, 0.81, 0.99])
    monkeypatch.setattr(Validation, "__call__", lambda _: {"auc": next(scores)})
    words = ["method=plain", "train.epochs=9", "train.patience=3", "train.patience_from=4", "data.eval_split="]
    assert _train(tmp_path / "run", data, *words) == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["history"] == [0.80, 0.85, 0.84, 0.85, 0.83, 0.82, 0.81]
    assert facts["step"] == 7 * 4
    assert json.loads((tmp_path / "run" / "best.json").read_text()) == {"epoch": 2, "value": 0.85}


def test_train__selected_on_test_is_written_everywhere(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(tmp_path / "run", data, "method=plain", "data.select_on_test=true") == 0
    assert "SELECTED ON TEST" in capsys.readouterr().out
    [row] = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert row["split"] == "test (epoch and threshold chosen on it)"
    assert "chosen on the list that was reported" in bundle.read_card(tmp_path / "run" / "model").limits
    assert "SELECTED ON TEST" in (tmp_path / "run" / "report.html").read_text()


def test_train__a_batch_of_two_bags_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(tmp_path / "run", data, "method=plain", "train.batch_size=2") == 2
    assert "train.accumulate=2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_train__accumulated_bags_move_once(data: Path, tmp_path: Path) -> None:
    assert _train(tmp_path / "run", data, "method=plain", "train.accumulate=2") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["updates"] == 4


def test_evaluate__other_classes_and_other_features_are_refused(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--checkpoint", str(teacher), f"data.root={data}"]
    assert main([*words, "data.classes=[a, b]"]) == 2
    assert "has the classes normal, tumour" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", str(teacher), f"data.root={make_features(tmp_path, dim=9)}"]) != 0
    assert "error[" in capsys.readouterr().err


def test_evaluate__classes_in_another_order_are_matched_by_name(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers among the labels count in the order that a person states, names in any."""
    rows = (data / "labels.csv").read_text()
    numbered = tmp_path / "numbered.csv"
    numbered.write_text(rows.replace(",normal,", ",1,").replace(",tumour,", ",0,"))
    words = ["evaluate", "--checkpoint", str(teacher), f"data.features={data / 'features'}"]
    turned, numbers = "data.classes=[tumour,normal]", f"data.labels={numbered}"
    scores, notes = [], []
    for place, more in enumerate(([], [turned], [numbers, turned], [numbers])):
        assert main([*words, *more, "--out", str(tmp_path / str(place))]) == 0, capsys.readouterr().err
        [row] = json.loads((tmp_path / str(place) / "evaluation.json").read_text())
        notes.append(row.pop("notes"))
        scores.append(row)
    assert scores[0] == scores[1] == scores[2]
    assert "labels and the classes they name: 0 is 'tumour', 1 is 'normal'" in notes[2]
    assert scores[3] != scores[0]  # nobody said what the numbers mean: they count in the bundle's order, which is told
    assert "labels and the classes they name: 0 is 'normal', 1 is 'tumour'" in notes[3]


def test_evaluate__slides_that_the_model_has_seen_are_told(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--checkpoint", str(teacher), "--overwrite", "--out", str(tmp_path / "scores")]
    for more, told in (
        ("data.eval_split=train", "TRAINED ON: 4 of the 4 slides"),
        ("data.eval_split=val", "CALIBRATED ON: 2 of the 2 slides"),
        ("data.eval_split=test", ""),
    ):
        assert main([*words, more]) == 0
        [row] = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
        seen = [note for note in row["notes"] if " ON: " in note]
        assert [note[: len(told)] for note in seen] == ([told] if told else [])
        shown = capsys.readouterr().out
        assert all(note in shown for note in row["notes"])
    copied = make_features(tmp_path / "moved")  # the same slides and labels elsewhere: known by their hash
    assert main([*words, f"data.root={copied}", "data.eval_split=train"]) == 0
    assert "TRAINED ON: 4 of the 4 slides" in capsys.readouterr().out


def test_train__from_a_bundle_whose_classes_stand_in_another_order(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a step, the turned bundle gives the same probability of each class."""
    words = ["method=plain", f"source.weights={teacher}", "data.classes=[tumour,normal]", "optim.lr=1e-12"]
    assert _train(tmp_path / "run", data, *words) == 0
    assert "'tumour, normal', those of the bundle 'normal, tumour': matched by name" in capsys.readouterr().out
    here, there = load_network(tmp_path / "run" / "model", CPU), load_network(teacher, CPU)
    bag = torch.randn(9, DIM)
    assert here.card.classes == ("tumour", "normal")
    torch.testing.assert_close(here.network.log_probabilities(bag).flip(0), there.network.log_probabilities(bag))


def test_predict__features_of_another_width_are_refused_by_name(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = make_features(tmp_path / "wide", SPLITS[:2], dim=1024)
    words = ["predict", "--checkpoint", str(teacher), "--input", str(wide / "features"), "--out", str(tmp_path / "out")]
    assert main(words) == 3
    assert "features look like ResNet-50 truncated" in capsys.readouterr().out


def test_validate__damaged_features_are_listed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = make_features(tmp_path)
    (broken / "features" / "s1.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    assert main(["validate", *_words(data)]) == 0
    assert " 0 faults" in capsys.readouterr().out
    assert main(["validate", *_words(broken)]) == 4
    out = capsys.readouterr().out
    assert "train: 4 slides, 4 read, 1 faults" in out
    assert "s1.h5" in out


def test_import_weights__becomes_a_teacher(data: Path, tmp_path: Path) -> None:
    file, words = make_foreign(tmp_path)
    assert main(["import-weights", str(file), "--out", str(tmp_path / "bundle"), *words]) == 0
    started = [f"source.weights={tmp_path / 'bundle'}", "model.embedding.dim=8", "model.abmil.hidden=4"]
    assert _train(tmp_path / "run", data, "method=mhim_v1", *started) == 0


def test_deliver__needs_a_learner_of_bags(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a BagLearner"):
        WsiPipeline().deliver(_config(data), object(), tmp_path)  # type: ignore[arg-type]


def test_inputs__a_folder_without_slides_says_what_it_holds(tmp_path: Path) -> None:
    """Row A9 of the bad inputs."""
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"holds no slide; it holds 1 \.txt \('a\.txt'\)\."):
        WsiPipeline().inputs(tmp_path)


def test_product__of_a_run_is_what_the_card_describes(data: Path) -> None:
    prepared = WsiPipeline().prepare(_config(data, "method=mhim_v2", "random_teacher=true"))
    assert isinstance(prepared.learner.product(), MHIM)


def test_resume__on_other_slides_is_refused_and_leaves_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_features(tmp_path / "data")
    run = tmp_path / "run"
    assert _train(run, data, "method=plain") == 0
    before = (run / "run.json").read_bytes()
    labels = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(labels.replace("s0,p0,normal,train", "s0,p0,normal,test"))
    assert main(["train", "--out", str(run), "--resume"]) == 2
    assert "was begun on other items" in capsys.readouterr().err
    (data / "labels.csv").write_text(labels)
    assert main(["train", "--out", str(run), "--resume", "train.epochs=9"]) == 2
    assert "was made with other settings" in capsys.readouterr().err
    assert (run / "run.json").read_bytes() == before
    assert main(["train", "--out", str(run), "--resume", "--seeds", "0,1"]) == 2
    shutil.rmtree(run / "best")
    assert main(["train", "--out", str(run), "--resume"]) == 2
    assert "the best epoch, is gone" in capsys.readouterr().err


def test_evaluate__never_replaces_the_scores_of_a_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert _train(run, data, "method=plain") == 0
    before = (run / "evaluation.json").read_bytes()
    words = ["evaluate", "--checkpoint", str(run / "model"), "--out"]
    assert main([*words, str(run), "data.eval_split=val"]) == 2
    assert "is a run, whose own scores would be replaced" in capsys.readouterr().err
    assert (run / "evaluation.json").read_bytes() == before
    assert main([*words, str(run / "run.json")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


def test_train__several_runs_do_not_share_the_folder_of_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert _train(run, data, "method=plain") == 0
    assert main(["train", "--out", str(run), *_words(data, "method=plain"), "--seeds", "0,1"]) == 2
    assert "is itself a run" in capsys.readouterr().err
