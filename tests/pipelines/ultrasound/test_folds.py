"""Folds over subjects: their lists, and one command that trains an ensemble of them and one that predicts with it."""

import csv
import json
from pathlib import Path

import pytest

from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.folds import read_run_lists
from pipelines.ultrasound.pipeline import UltrasoundPipeline
from tests.pipelines.ultrasound.tiny import make_data, make_h5, words
from vision_core.bundles.bundle import read_card
from vision_core.config.loading import load
from vision_core.errors import ConfigError


def test_read_run_lists__each_subject_validates_in_one_fold_and_trains_in_the_others(tmp_path: Path) -> None:
    data = load(UltrasoundConfig, None, [f"data.root={make_h5(tmp_path)}"]).data
    whole = read_lists(data, ["train", "val", "test"])
    parts = []
    for fold in range(3):
        own = data.model_copy(update={"folds": 3, "fold": fold})
        lists = read_run_lists(own, ["train", "val", "test"])
        kept, apart = (set(lists[name].subjects or ()) for name in ("train", "val"))
        assert kept | apart == set(whole["train"].subjects or ()) and not kept & apart
        assert len(lists["train"]) + len(lists["val"]) == len(whole["train"])
        assert lists["val"].name == f"fold-{fold}"
        assert lists["test"].names == whole["test"].names
        assert lists.splits is not None and whole.splits is not None
        assert lists.splits.lists[f"fold-{fold}"] == tuple(sorted(apart))
        assert lists.splits.lists["val"] == whole.splits.lists["val"]  # left for the threshold of a gate
        parts.append(apart)
    assert sorted(each for part in parts for each in part) == sorted(set(whole["train"].subjects or ()))


def test_read_run_lists__without_subjects_there_are_no_folds(tmp_path: Path) -> None:
    data = load(UltrasoundConfig, None, [f"data.root={make_h5(tmp_path, layout='flat')}", "data.folds=2"]).data
    with pytest.raises(ConfigError, match="'train' names no subjects, and folds are of subjects"):
        read_run_lists(data.model_copy(update={"fold": 0}), ["train", "val"])


def test_config__folds_are_runs_with_seeds_of_their_own() -> None:
    runs = load(UltrasoundConfig, None, ["data.folds=3", "train.seed=7"]).expand()
    assert list(runs) == ["fold-0", "fold-1", "fold-2"]
    assert [(each.data.fold, each.train.seed) for each in runs.values()] == [(0, 7), (1, 8), (2, 9)]  # type: ignore[attr-defined]
    assert list(runs["fold-1"].expand()) == [""]
    with pytest.raises(ConfigError, match=r"data\.fold '3' is none of data\.folds '3'"):
        load(UltrasoundConfig, None, ["data.folds=3", "data.fold=3"])
    with pytest.raises(ConfigError, match=r"data\.fold '0' is none of data\.folds 'None'"):
        load(UltrasoundConfig, None, ["data.fold=0"])


def test_check_runs__the_list_of_a_gate_is_asked_for_before_folds_of_a_pair_train(tmp_path: Path) -> None:
    data = make_h5(tmp_path, {"train": 4, "test": 2})
    folds = [
        load(UltrasoundConfig, None, words(data, "data.folds=2", f"method={kind}")) for kind in ("segment", "screen")
    ]
    runs = {f"{each.method}-{name}": run for each in folds for name, run in each.expand().items()}
    with pytest.raises(ConfigError, match="The list 'val' has '0' subjects"):
        UltrasoundPipeline().check_runs(runs)  # type: ignore[arg-type]
    UltrasoundPipeline().check_runs({name: run for name, run in runs.items() if "segment" in name})  # type: ignore[misc]


def test_train__folds_become_one_bundle_that_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = make_data(tmp_path / "data"), tmp_path / "out"
    assert main(["train", "--out", str(out), *words(data, "data.folds=2", "train.epochs=1")]) == 0
    said = capsys.readouterr().out
    assert f"Ensemble:  {out / 'ensemble'}, the mean probability of fold-0, fold-1" in said
    assert "Fold 1 of 2: 2 subjects of 'train' choose the epoch." in said
    members = [read_card(out / f"fold-{fold}" / "model") for fold in range(2)]
    card = read_card(out / "ensemble")
    assert card.architecture["members"] == [each.identity() for each in members]
    assert card.trained_on.description.startswith("Mean of the probabilities of 2 networks (fold-0, fold-1)")
    assert "without fold 0 of 2" in members[0].trained_on.description
    assert "dice" in card.metrics["test"]
    lists = [json.loads((out / f"fold-{fold}" / "splits.json").read_text())["subjects"] for fold in range(2)]
    assert sorted(lists[0]["fold-0"] + lists[1]["fold-1"]) == sorted(lists[0]["train"] + lists[0]["fold-0"])

    found = tmp_path / "found"
    bundle = ["--checkpoint", str(out / "ensemble"), "--input", str(data / "pictures"), "--out", str(found)]
    assert main(["predict", *bundle]) == 0
    with (found / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [card.identity()] * 3
    assert main(["verify", str(out / "ensemble")]) == 0


@pytest.mark.slow
def test_train__a_pair_over_two_seeds_becomes_two_ensembles_and_their_gate(tmp_path: Path) -> None:
    data, out, found = make_data(tmp_path / "data"), tmp_path / "out", tmp_path / "found"
    (tmp_path / "pair.yaml").write_text("runs:\n  segment: {method: segment}\n  screen: {method: screen}\n")
    arguments = ["train", "--config", str(tmp_path / "pair.yaml"), "--seeds", "0,1", "--out", str(out)]
    assert main([*arguments, *words(data, "train.epochs=1")]) == 0
    screen, segment = out / "screen-ensemble", out / "segment-ensemble"
    calibration = read_card(screen).calibration
    assert calibration is not None
    assert calibration["segment"] == read_card(segment).identity()
    assert read_card(screen).scope is not None and len(read_card(screen).scope["members"]) == 2  # type: ignore[index]
    bundle = ["--checkpoint", str(screen), "--input", str(data / "pictures"), "--out", str(found)]
    assert main(["predict", *bundle, f"segment={segment}"]) == 0
    with (found / "results.csv").open(newline="", encoding="utf-8") as file:
        [model] = {row["model"] for row in csv.DictReader(file)}
    assert model == f"{read_card(screen).identity()} + {read_card(segment).identity()}"
    assert main(["export", "--checkpoint", str(segment), "--out", str(tmp_path / "segment.onnx")]) == 0
