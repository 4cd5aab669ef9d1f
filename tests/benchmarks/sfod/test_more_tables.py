"""The search and the tables of the study of more rows on the tree crowns, from result files that the test writes."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import studies
from benchmarks.sfod import more_tables
from benchmarks.sfod.more_tables import SEARCH, STUDY, best_setting, gains, missing, search_table
from pipelines.sfod.config import SfodConfig
from vision_core.config.loading import load

RATES, THRESHOLDS, SHIFTS = (0.001, 0.003), (0.5, 0.6, 0.7), ("noise", "blur", "colour_cast")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    return tmp_path


def write_search(folder: Path, method: str, best: tuple[float, float]) -> None:
    place = folder / SEARCH
    place.mkdir(exist_ok=True)
    for number, (rate, threshold, shift) in enumerate(itertools.product(RATES, THRESHOLDS, SHIFTS)):
        row: dict[str, Any] = {"method": method, "shift": shift, "source_ap50": 20.0, "ap50": 21.0}
        row["ap50"] += 5 * ((rate, threshold) == best) + 9 * (shift == "noise" and rate == RATES[1])
        row["settings"] = {"optim.lr": rate, "pseudo_labels.threshold": threshold, "train.epochs": 9}
        (place / f"{method}-{number}.json").write_text(json.dumps(row))


def test_best_setting__has_the_best_mean_gain_over_all_shifts(results: Path) -> None:
    write_search(results, "wscol_core", (0.003, 0.6))
    write_search(results, "fixed_pl", (0.001, 0.5))
    assert best_setting("wscol_core") == {"optim.lr": 0.003, "pseudo_labels.threshold": 0.6}
    assert best_setting("fixed_pl") == {"optim.lr": 0.001, "pseudo_labels.threshold": 0.5}
    assert best_setting("wsco_full+lpld") == best_setting("wscol_core"), "it takes what is found for wscol_core"
    assert "| WSCoL | 0.003 | 0.6 | +15.0 | +6.0 | +6.0 | +9.0 |" in search_table().splitlines()


def test_gains__wait_for_all_runs_of_the_search(results: Path) -> None:
    write_search(results, "fixed_pl", (0.001, 0.5))
    next((results / SEARCH).glob("*.json")).unlink()
    with pytest.raises(LookupError, match="runs of fixed_pl are missing"):
        gains("fixed_pl")


def test_missing__names_every_cell_of_the_protocol() -> None:
    assert len(missing([])) == 4 * 4 * 5
    assert missing([{"method": "fixed_pl", "target": "night", "seed": 0}])[0] == "fixed_pl-night-1"


def test_protocol__gives_settings_that_each_method_takes() -> None:
    protocol = STUDY.protocol()
    assert set(more_tables.NAMES) == set(protocol["methods"])
    for method, own in protocol["methods"].items():
        found = {**protocol["schedule"], **own, "optim.lr": 0.001, "pseudo_labels.threshold": 0.5}
        words = [f"{key}={value}" for key, value in {"method": method, **found}.items()]
        assert load(SfodConfig, None, words).train.max_steps == 90
