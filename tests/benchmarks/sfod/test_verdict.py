"""The meta-set of the verdict: its cells, its data, and the rule that is fitted on made results."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import studies
from benchmarks.sfod.verdict import strip, tables
from benchmarks.sfod.verdict.study import cells
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.verdict.numbers import NUMBERS
from pipelines.sfod.verdict.rule import Rule
from vision_core.config.loading import load

PROTOCOL = tables.STUDY.protocol()


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result of every cell, in which the gain is a tenth of the gain in stability and less twice that in flatness."""
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    (tmp_path / tables.STUDY.name).mkdir()
    generator = np.random.default_rng(0)
    for source, method, setting, corruption in cells():
        rows = [dict.fromkeys(NUMBERS, 0.5) | {"step": 0, "ap50": 20.0}]
        for step in (45, 90):
            moved = generator.normal(size=len(NUMBERS)) / 10
            gain = 100 * (0.1 * moved[0] - 0.2 * moved[NUMBERS.index("flatness")])
            rows.append(dict(zip(NUMBERS, 0.5 + moved, strict=True)) | {"step": step, "ap50": 20.0 + gain})
        told = {"source": source, "method": method, "setting": setting, "corruption": corruption}
        path = tmp_path / tables.STUDY.name / f"{source}-{method}-{setting}-{corruption}.json"
        path.write_text(json.dumps(told | {"candidates": rows}))
    return tmp_path


def test_fitted__finds_what_made_the_gains(results: Path) -> None:
    record = tables.fitted()
    rule = Rule.from_record(record)
    wanted = dict.fromkeys(NUMBERS, 0.0) | {"stability": 0.1, "flatness": -0.2}
    assert dict(zip(NUMBERS, rule.coefficients, strict=True)) == pytest.approx(wanted, abs=2e-3)
    assert rule.spread < 1e-3
    assert (record["teachers"], record["with_all_numbers"]) == (160, 160)
    table = tables.rule_table().splitlines()
    assert table[2] == "| the rule | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 |"
    assert float(table[-1].split("|")[2]) > 1  # without any prediction


def test_fitted__waits_for_all_cells(results: Path) -> None:
    (results / tables.STUDY.name / "strong-mt-good-jpeg.json").unlink()
    assert tables.missing(tables.STUDY.rows()) == ["strong-mt-good-jpeg"]
    with pytest.raises(LookupError, match="1 cells are missing"):
        tables.fitted()


def test_differences__of_a_number_that_is_not_known_is_not_known(results: Path) -> None:
    path = results / tables.STUDY.name / "strong-mt-good-jpeg.json"
    row = json.loads(path.read_text())
    row["candidates"][1]["stability"] = None
    path.write_text(json.dumps(row))
    found, gains, _ = tables.differences(tables.STUDY.rows())
    assert (~np.isfinite(found)).sum() == 1
    assert len(gains) == len(found)
    assert tables.fitted()["with_all_numbers"] == len(found) - 1
    assert "nan" not in tables.rule_table()


def test_alarms__leave_the_teacher_before_and_cut_no_gain(results: Path) -> None:
    """Of two runs that collapse one is caught by its boxes, one by its mirror; the one that gains has more boxes."""
    for path in (results / tables.STUDY.name).glob("*.json"):
        path.unlink()
    runs = {
        "boxes": [(20.0, 6.0, 0.8), (19.0, 5.0, 0.8), (3.0, 1.0, 0.8)],
        "mirror": [(20.0, 6.0, 0.8), (17.0, 6.0, 0.6), (5.0, 6.0, 0.3)],
        "gain": [(20.0, 6.0, 0.8), (25.0, 12.0, 0.8), (30.0, 20.0, 0.79)],
    }
    for name, states in runs.items():
        rows = [{"ap50": ap50, "boxes_per_image": [boxes], "mirror": mirror} for ap50, boxes, mirror in states]
        (results / tables.STUDY.name / f"{name}.json").write_text(json.dumps({"candidates": rows}))
    found = {line.split(" | ")[0].lstrip("| "): line.split(" | ")[1:] for line in tables.alarm_table().splitlines()[2:]}
    assert found["nothing"] == ["0 of 2", "0 of 1 |"]
    assert found["fewer than a third of the boxes"] == ["1 of 2", "0 of 1 |"]
    assert found["that, or more than three times"] == ["1 of 2", "1 of 1 |"]
    assert found["the first, or agreement with the mirrored image lower by 0.15"] == ["2 of 2", "0 of 1 |"]


def test_protocol__settings_are_those_that_runs_take() -> None:
    assert len(cells()) == len(set(cells())) == 5 * (3 * 5 + 1)
    for setting, own in PROTOCOL["settings"].items():
        for method in PROTOCOL["methods"]:
            keys = {"method": method, **PROTOCOL["schedule"], **own, "train.seed": PROTOCOL["seed"]}
            assert load(SfodConfig, None, [f"{key}={value}" for key, value in keys.items()]), setting


def test_corruptions__are_none_of_the_studies_and_change_the_picture() -> None:
    assert not {"night", "fog"} & set(PROTOCOL["corruptions"])
    picture = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    for corrupt in strip.MORE.values():
        found = corrupt(picture, 0)
        assert found.shape == picture.shape
        assert found.dtype == np.uint8
        assert (found != picture).mean() > 0.5
    assert (strip.grey(picture, 0).std(axis=2) == 0).all()
