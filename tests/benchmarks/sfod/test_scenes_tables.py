"""Searches and tables of the study of scenes with classes, from result files that the test writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import studies
from benchmarks.sfod.scenes import study, tables
from benchmarks.sfod.scenes.tables import LABELS, SEARCH, STUDY, Cell, best_epochs, best_setting, cells, missing
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.verdict.numbers import BASELINES, NUMBERS
from vision_core.config.loading import load


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    return tmp_path


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        (folder / name / f"{number}.json").write_text(json.dumps(row))


def candidate(step: int, first: float, second: float, low: float = 1.0, high: float = 2.0) -> dict[str, Any]:
    return {"step": step, "ap50": (first + second) / 2, "ap50_halves": [first, second], "difference": [low, high]}


def told(kind: str, **numbers: float) -> dict[str, Any]:
    return {**dict.fromkeys((*NUMBERS, *BASELINES), 0.5), **numbers, "without_labels": kind}


def row(name: str, shift: str, seed: int, last: float, **more: object) -> dict[str, Any]:
    return {
        "row": name,
        "shift": shift,
        "seed": seed,
        "candidates": [candidate(0, 20, 20), candidate(9, last, last)],
    } | more


def test_searches__choose_on_what_the_targets_do_not_share(results: Path) -> None:
    with pytest.raises(LookupError, match="runs of the strong source are missing"):
        best_epochs("strong")
    write(
        results,
        SEARCH,
        [{"source": "strong", "epochs": 8, "ap50": 40.5}, {"source": "strong", "epochs": 16, "ap50": 41}],
    )
    assert best_epochs("strong") == 8
    with pytest.raises(LookupError, match="runs are missing"):
        best_setting()
    rows = [
        {
            "settings": {"optim.lr": rate, "pseudo_labels.per_image": labels},
            "shift": shift,
            "source_ap50": 20.0,
            "ap50": 21.0 + 3 * ((rate, labels) == (0.001, 3)),
        }
        for rate in (0.001, 0.003)
        for labels in (2, 3)
        for shift in ("noise", "blur")
    ]
    write(results, LABELS, rows)
    assert best_setting() == {"optim.lr": 0.001, "pseudo_labels.per_image": 3}


def test_cells__first_seeds_of_every_row_first_and_all_settings_are_read(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cells()
    assert len(found) == len(set(found)) == 3 * (12 + 12 + 6 + 3 * 9)
    assert {each.row for each in found[:36]} == set(STUDY.protocol()["rows"]) == set(tables.NAMES)
    monkeypatch.setattr(study, "best_setting", lambda: {"optim.lr": 0.002, "pseudo_labels.per_image": 2.0})
    for each in (each for each in found if not each.seed):
        words = [f"{name}={value}" for name, value in {**study.settings_of(each), **study._UNWATCHED}.items()]
        config = load(SfodConfig, None, words)
        if each.row == "bn":
            continue
        assert config.train.max_steps == 150
        assert config.pseudo_labels.per_image == (None if "published" in each.row else 2)
        assert config.verdict.select == (True if each.row not in {"oracle", "fixed_pl"} else None)
    assert missing([row(found[0].row, found[0].shift, 0, 1)])[0] == found[1].name
    assert Cell(row="mt", shift="fog", seed=2).name == "mt-fog-2"


def test_tables__differences_within_a_seed_and_over_shifts(results: Path) -> None:
    rows = [
        row(name, shift, seed, 24.0 + seed + gain * (name == "lpld"), labels_first=2.0, labels_mean=3.0)
        for name in ("mt", "lpld")
        for shift, gain in (("night", 1), ("fog", 2), ("crowd", 6))
        for seed in (0, 1)
    ]
    sources = [{"row": "source_strong", "seed": 0, "ap50": {"clean": 50.0, "night": 20, "fog": 20, "crowd": 20}}]
    write(results, STUDY.name, [*rows, *sources])
    lines = tables.scores_table().splitlines()
    assert "| strong source | 50.0 | 20.0 | 20.0 | 20.0 | | 1 |" in lines
    assert "| Mean Teacher | | 24.5 ± 0.7 | 24.5 ± 0.7 | 24.5 ± 0.7 | 2.0, 3.0 | 2 |" in lines
    (line,) = (each for each in tables.paired_table().splitlines() if each.startswith("| LPLD − Mean Teacher"))
    assert "| +1.0 [+1.0, +1.0] | +2.0 [+2.0, +2.0] | +6.0 [+6.0, +6.0] | +3.0 [+3.0, +3.0] | 2 |" in line


def test_choice__the_best_by_labels_is_found_on_the_other_half(results: Path) -> None:
    """By halves the second and the third are best, each worth 30 on the half that did not choose it."""
    candidates = [candidate(0, 20, 20), candidate(5, 40, 30), candidate(9, 30, 40), candidate(10, 10, 10, -3, -1)]
    said = [told(""), told("unclear", stability=0.9), told("unclear"), told("helped", confidence=0.9, entropy=0.1)]
    whole = {"row": "mt", "shift": "fog", "seed": 0, "candidates": candidates, "without_labels": said}
    write(results, STUDY.name, [{**whole, "selected": 0}, {**whole, "seed": 1, "selected": None}])
    lines = {each.split(" | ")[0].lstrip("| "): each for each in tables.choice_table().splitlines()[2:]}
    assert "+10.0 [+10.0, +10.0] | +0.0" in lines["the source"]
    assert "+20.0 [+20.0, +20.0] | -10.0" in lines["the last teacher"]
    assert "-5.0 [-5.0, -5.0] | +15.0" in lines["the highest stability"]
    assert "+20.0" in lines["the highest confidence"] and "+20.0" in lines["the lowest entropy"]
    assert "+15.0" in lines["without labels, by the rule"]  # one source, and one last teacher where nothing was chosen
    assert "| harmful | 2 | 0 | 0 | 2 |" in tables.verdict_table()
