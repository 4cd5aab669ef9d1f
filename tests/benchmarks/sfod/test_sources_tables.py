"""Searches and tables of the study of sources, from result files that the test writes."""

import itertools
import json
from pathlib import Path

import pytest

from benchmarks import studies
from benchmarks.sfod import sources_tables
from benchmarks.sfod.sources_tables import LABELS, SEARCH, STUDY, best_epochs, cells, interval, label_gains, missing
from pipelines.sfod.config import SfodConfig
from vision_core.config.loading import load


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    return tmp_path


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    (folder / name).mkdir()
    for number, row in enumerate(rows):
        (folder / name / f"{number}.json").write_text(json.dumps(row))


def test_best_epochs__the_fewest_within_a_point_of_the_best(results: Path) -> None:
    found = {"ordinary": (45.2, 46.0, 46.1), "strong": (40.0, 44.0, 46.0)}
    epochs = STUDY.protocol()["search"]["train.epochs"]
    rows: list[dict[str, object]] = [
        {"source": name, "epochs": each, "ap50": ap50}
        for name, scores in found.items()
        for each, ap50 in zip(epochs, scores, strict=True)
    ]
    write(results, SEARCH, rows[:-1])
    assert best_epochs("ordinary") == 16
    with pytest.raises(LookupError, match="runs of the strong source are missing"):
        best_epochs("strong")
    (results / SEARCH / "5.json").write_text(json.dumps(rows[-1]))
    assert best_epochs("strong") == 32


def test_label_gains__the_best_mean_over_all_shifts_first(results: Path) -> None:
    protocol = STUDY.protocol()["labels"]
    points = itertools.product(protocol["pseudo_labels.per_image"], protocol["optim.lr"], protocol["shifts"])
    rows: list[dict[str, object]] = [
        {
            "settings": {"pseudo_labels.per_image": labels, "optim.lr": rate},
            "shift": shift,
            "source_ap50": 20.0,
            "ap50": 21.0 + 9 * (labels == 4 and shift == "noise") + 5 * ((labels, rate) == (2, 0.001)),
        }
        for labels, rate, shift in points
    ]
    write(results, LABELS, rows)
    setting, gains = label_gains()[0]
    assert setting == {"pseudo_labels.per_image": 2, "optim.lr": 0.001}
    assert gains == {"noise": 6, "blur": 6, "colour_cast": 6}
    (results / LABELS / "3.json").unlink()
    with pytest.raises(LookupError, match="runs are missing"):
        label_gains()


def test_missing__names_every_cell() -> None:
    assert len(missing([])) == len(set(cells())) == 5 * (2 * 3 + 2 * 2 * 2)
    assert "strong+lpld-fog-4" in cells()
    assert cells()[0] == "ordinary-clean-0"
    assert missing([{"model": "ordinary", "target": "clean", "seed": 0}])[0] == "ordinary-night-0"


def test_interval__is_that_of_student() -> None:
    assert interval([1.0, 3.0, 5.0]) == "+3.0 [-2.0, +8.0]"  # 4.303 * 2 / sqrt(3)
    assert interval([1.0]) == "n/a"


def test_protocol__settings_are_those_that_runs_take() -> None:
    protocol = STUDY.protocol()
    assert set(protocol["sources"]) == set(sources_tables.NAMES)
    assert set(protocol["methods"]) == set(sources_tables.METHODS)
    for path in protocol["sources"].values():
        assert load(SfodConfig, Path(path), []).method == "source"
    found = {**protocol["schedule"], "pseudo_labels.per_image": 2, "optim.lr": 0.001}
    for method in protocol["methods"]:
        assert load(SfodConfig, None, [f"{key}={value}" for key, value in {"method": method, **found}.items()])
