"""The open-vocabulary study: which cells it has, how it refuses, how its figures are paired, and one cell for real."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import studies
from benchmarks.ovd.scenes import study, tables
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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("words", ["clothes/first/marvel/0", "photographs/first/oracle/0"])
def test_trial__one_cell_at_the_smallest_size(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        assets.clothing(), assets.stamps()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    small = {
        **PROTOCOL,
        "per_class": 9,
        "scenes": {"train": 6, "val": 4, "test": 2},
        "image_text": {"crops": 60, "steps": 3},
        "proposals": 5,
        "resamples": 3,
        "generator": {**PROTOCOL["generator"], "train.max_steps": 2},
        "drift": {**PROTOCOL["drift"], "scenes": 2, "names": ["lamp", "cup"]},
    }
    monkeypatch.setattr(studies.Study, "protocol", lambda study: small)
    monkeypatch.setattr(studies.Study, "work_folder", lambda study: tmp_path)
    facts = study.trial(words, 3)
    assert facts["scenes"] == 4
    assert facts["steps"] == 3
    assert 0 <= facts["ap50"]["base"] <= 100
    assert facts["false_boxes"] >= 0
    if words.startswith("photographs"):
        assert facts["candidates"]["precision"] == facts["candidates"]["recall"] == pytest.approx(100)
    else:
        assert facts["drift"]["p95"] is None or np.isfinite(facts["drift"]["p95"])
    assert set(facts["cpu_seconds"]) == {"preparing", "training", "scoring"}
