import csv
from pathlib import Path

import pytest

from vision_core.evaluation.rows import Row
from vision_core.runs.repeats import experiment_of, find_repeats, headlines, write_repeats


def rows(**metrics: float | None) -> list[Row]:
    return [Row(model="trained", split="test", counts={"slides": 9}, metrics=metrics)]


FOLDS = {
    f"seed-{seed}-fold-{fold}": rows(auc=auc, accuracy=auc - 0.1)
    for seed, areas in enumerate(((0.9, 0.8, 0.7), (0.92, 0.82, 0.72), (0.88, 0.78, 0.68)))
    for fold, auc in enumerate(areas)
}


def test_experiment__name_without_seed_and_fold() -> None:
    names = ["vote-seed-1", "seed-0", "seed-2-fold-1-teacher", "vote"]
    assert [experiment_of(name) for name in names] == ["vote", "", "teacher", "vote"]


def test_find_repeats__folds_are_averaged_within_a_seed_before_the_spread_over_seeds() -> None:
    auc, accuracy = find_repeats(FOLDS)
    assert (auc.mean, auc.spread) == pytest.approx((0.8, 0.02))
    assert (accuracy.mean, accuracy.spread) == pytest.approx((0.7, 0.02))
    assert auc.sentence() == "test trained             auc  80.0 ± 2.0 over 3 seeds of 3 folds each"


def test_find_repeats__of_one_seed_the_spread_is_over_its_folds() -> None:
    (auc,) = headlines(find_repeats({name: found for name, found in FOLDS.items() if name.startswith("seed-0")}))
    assert (auc.mean, auc.spread) == pytest.approx((0.8, 0.1))
    assert auc.over == "3 folds"


def test_find_repeats__experiments_are_told_apart_and_single_runs_have_no_spread() -> None:
    found = headlines(find_repeats({"night-seed-0": rows(ap=0.1), "night-seed-1": rows(ap=0.3), "fog": rows(ap=0.5)}))
    assert [(each.experiment, each.over) for each in found] == [("night", "2 seeds"), ("fog", "one run")]
    assert [each.sentence().split("ap")[1] for each in found] == ["  20.0 ± 14.1 over 2 seeds", "  50.0"]


def test_find_repeats__what_is_undefined_is_left_out() -> None:
    (auc,) = find_repeats({"fold-0": rows(auc=None), "fold-1": rows(auc=0.5)})
    assert (auc.by_seed, auc.spread) == (((0.5,),), None)


def test_write_repeats__every_metric_is_a_row(tmp_path: Path) -> None:
    write_repeats(tmp_path / "spread.csv", find_repeats(FOLDS))
    with (tmp_path / "spread.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["metric"] for row in found] == ["auc", "accuracy"]
    assert float(found[1]["mean"]) == pytest.approx(0.7)
    assert found[0]["over"] == "3 seeds of 3 folds each"
