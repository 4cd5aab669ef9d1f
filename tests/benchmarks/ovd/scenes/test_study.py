"""The open-vocabulary study: which cells it has, how it refuses, how its figures are paired, and one cell for real."""

import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import studies
from benchmarks.ovd.scenes import study, tables
from benchmarks.ovd.scenes.study import Cell
from benchmarks.ovd.scenes.tables import NAMES, STUDY, cells, missing, paired
from vision_core import assets
from vision_core.errors import MissingDependencyError

PROTOCOL = STUDY.protocol()


def test_cells__seed_0_of_every_row_comes_first() -> None:
    found = cells()
    assert len(found) == len(set(found)) == 3 * (3 * 7 + 4)
    assert [seed for *_, seed in found] == sorted(seed for *_, seed in found)
    assert {row for _, _, row, _ in found} == set(PROTOCOL["rows"]) == set(NAMES)


def test_missing__all_cells_and_both_checks_without_a_result() -> None:
    assert len(missing([])) == 75 + 2
    found: list[dict[str, Any]] = [
        {"world": "clothes", "choice": "first", "row": "vl_plm", "seed": 0},
        {"world": "clothes", "row": "check"},
    ]
    assert len(missing(found)) == 75


def test_protocol__novel_classes_rotate_and_added_names_are_no_classes() -> None:
    choices = PROTOCOL["worlds"]["clothes"]["choices"].values()
    novel = [name for choice in choices for name in choice]
    assert len(novel) == len(set(novel)) == 9
    names = PROTOCOL["drift"]["names"]
    assert len(names) == len(set(names)) == 100
    assert not set(names) & {*novel, "shirt"}


def test_paired__difference_and_interval_by_hand() -> None:
    def row(novel: float, drawn: list[float]) -> dict[str, Any]:
        return {"ap50": {"novel": novel}, "resampled": {"novel": drawn}}

    rows: dict[Any, dict[str, object]] = {
        ("w", "one", "b", 0): row(10, [10.0] * 50),
        ("w", "one", "a", 0): row(4, [5.0] * 50),
        ("w", "two", "b", 0): row(3, [3.0] * 50),
        ("w", "two", "a", 0): row(1, [2.0] * 50),
        ("w", "two", "a", 1): row(90, [90.0] * 50),  # without a partner
    }
    assert paired(rows, "b", "a", "novel") == pytest.approx((4.0, 3.0, 3.0))
    assert paired(rows, "b", "c", "novel") is None


def test_paired__seeds_that_differ_widen_the_interval() -> None:
    rows: dict[Any, dict[str, object]] = {}
    for seed, gain in enumerate((1.0, 5.0, 9.0)):
        rows["w", "one", "b", seed] = {"ap50": {"novel": gain}, "resampled": {"novel": [gain] * 100}}
        rows["w", "one", "a", seed] = {"ap50": {"novel": 0.0}, "resampled": {"novel": [0.0] * 100}}
    found = paired(rows, "b", "a", "novel")
    assert found is not None
    mean, low, high = found
    assert mean == 5
    assert 1 <= low < 3
    assert 7 < high <= 9


def test_tables__without_results_say_so() -> None:
    if STUDY.rows():
        pytest.skip("there are results")
    for make in tables.TABLES.values():
        assert "n/a" in make()


def test_main__without_the_packages_names_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "_DEBIAN_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["ovd_scenes"])
    assert study.main() == 1
    assert "Run 'apt-get install dataset-fashion-mnist'" in capsys.readouterr().err


def test_main__packages_with_other_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("datasets/fashion-mnist/train-images-idx3-ubyte.gz", "datasets/fashion-mnist/train-labels-idx1-ubyte.gz")
    for name in (*files, "tuxpaint/stamps/animals/birds/owl.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"other")
    monkeypatch.setattr(assets, "_DEBIAN_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["ovd_scenes"])
    assert study.main() == 1
    assert "'dataset-fashion-mnist' holds other files than the study was fixed for" in capsys.readouterr().err


class _Here(Executor):
    """Runs every task at once, in this process."""

    def submit(self, task: Callable[..., Any], /, *items: object, **named: object) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(task(*items, **named))
        except RuntimeError as error:
            future.set_exception(error)
        return future


def _lists_what_runs(monkeypatch: pytest.MonkeyPatch, folder: Path, checks: dict[str, float]) -> list[str]:
    """Replace what takes hours: cells leave an empty result, but for one that fails."""
    ran: list[str] = []

    def run_cell(cell: Cell) -> None:
        ran.append(cell.name)
        if cell.name == "clothes-first-vl_plm-0":
            raise RuntimeError("out of luck")
        study.result_path(cell).parent.mkdir(exist_ok=True)
        study.result_path(cell).touch()

    def prepare(cell: Cell) -> None:
        ran.append(f"{cell.world}-{cell.choice}")
        if cell.choice == "third":
            raise RuntimeError("no labels")

    monkeypatch.setattr(study, "RESULTS", folder)
    monkeypatch.setattr(study, "run_check", checks.__getitem__)
    monkeypatch.setattr(study, "_prepare_world", lambda cell: None)
    monkeypatch.setattr(study, "_prepare_choice", prepare)
    monkeypatch.setattr(study, "run_cell", run_cell)
    return ran


def test_run__a_failure_stops_what_builds_on_it_alone_and_results_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = _lists_what_runs(monkeypatch, tmp_path, {"clothes": 0.5, "photographs": 9.9})
    left = {cell.name for cell in study.run_missing(_Here(), [0, 1])}
    of_third = {f"clothes-third-{row}-{seed}" for row in PROTOCOL["worlds"]["clothes"]["rows"] for seed in (0, 1)}
    assert left == {"clothes-first-vl_plm-0", *of_third}
    assert len([name for name in ran if name.endswith("-1")]) == 2 * 7 + 4
    assert "run_cell failed for Cell(world='clothes', choice='first', row='vl_plm'" in capsys.readouterr().err
    ran.clear()
    study.run_missing(_Here(), [0, 1])
    assert sorted(ran) == ["clothes-first", "clothes-first-vl_plm-0", "clothes-third", "clothes-third"]


def test_run__a_world_whose_check_fails_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = _lists_what_runs(monkeypatch, tmp_path, {"clothes": 10.0, "photographs": 0.0})
    study.run_missing(_Here(), [2])
    assert ran == [
        "photographs-first",
        *(f"photographs-first-{row}-2" for row in PROTOCOL["worlds"]["photographs"]["rows"]),
    ]
    assert "clothes is not used: saturation and edges find 10.0" in capsys.readouterr().err


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The protocol at the smallest size, in a folder of its own."""
    try:
        assets.clothing(), assets.stamps()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    changed = {
        **PROTOCOL,
        "per_class": 9,
        "scenes": {"train": 6, "val": 4, "test": 2},
        "image_text": {"crops": 60, "steps": 3},
        "proposals": 5,
        "resamples": 3,
        "generator": {**PROTOCOL["generator"], "train.max_steps": 2},
        "training": {**PROTOCOL["training"], "train.max_steps": 3, "marvel.burn_in_last_iter": 1},
        "drift": {**PROTOCOL["drift"], "scenes": 2, "names": ["lamp", "cup"]},
    }
    monkeypatch.setattr(studies.Study, "protocol", lambda study: changed)
    monkeypatch.setattr(studies.Study, "work_folder", lambda study: tmp_path)
    for module in (study, studies):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return changed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trial__one_cell_at_the_smallest_size(small: dict[str, Any]) -> None:
    facts = study.trial("photographs/first/oracle/0", 3)
    assert facts["scenes"] == small["scenes"]["val"]
    assert facts["steps"] == 3
    assert 0 <= facts["ap50"]["base"] <= 100
    assert facts["candidates"]["precision"] == facts["candidates"]["recall"] == pytest.approx(100)
    assert set(facts["cpu_seconds"]) == {"preparing", "training", "scoring"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cell__at_the_smallest_size_from_data_to_the_tables(small: dict[str, Any]) -> None:
    cell = Cell(world="clothes", choice="first", row="marvel", seed=0)
    study.run_cell(cell)
    written = study.result_path(cell).read_bytes()
    study.run_cell(cell)
    assert study.result_path(cell).read_bytes() == written
    [row] = STUDY.rows()
    assert row["scenes"] == small["scenes"]["test"]
    assert len(row["resampled"]["novel"]) == small["resamples"]
    assert row["false_boxes_scenes"] or row["false_boxes"] is None
    assert row["drift"]["p95"] is None or np.isfinite(row["drift"]["p95"])
    assert "clothes-first-marvel-0" not in missing([row])
    for make in tables.TABLES.values():
        assert "nan" not in make()
