"""Selection among kept teachers: what is written, what a rule chooses, what is delivered."""

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.outcome.selection import select
from pipelines.sfod.predict import SfodPredictor
from pipelines.sfod.verdict import source as statistics
from pipelines.sfod.verdict.numbers import NUMBERS
from pipelines.sfod.verdict.rule import Rule
from pipelines.sfod.verdict.source import read_rule, store_statistics
from tests.forked import Forked
from tests.pipelines import torchrun
from tests.pipelines.sfod.outcome.adapted import WORDS, adapted_run
from tests.pipelines.sfod.tiny import adapt, adapt_words, source_bundle
from tests.vision_core.detection.synthetic import make_voc
from vision_core.bundles import bundle
from vision_core.config import loading as config
from vision_core.detection.datasets.voc import read_voc
from vision_core.detection.evaluation import calibrate_bundle, detect_all
from vision_core.detection.settings import DetectionData
from vision_core.errors import CheckpointError, ConfigError, DataError
from vision_core.images.reading import list_images
from vision_core.runs.kept_teachers import list_kept, load_kept

CPU = torch.device("cpu")


def rule(**coefficients: float) -> Rule:
    return Rule(coefficients=np.array([coefficients.get(name, 0.0) for name in NUMBERS]), spread=0.01, penalty=1.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run, to select in."""
    shutil.copytree(adapted_run(), tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def selected(run: Path, fitted: Rule | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    source = run.parent / "source"
    source = source if source.exists() else source_with_statistics(source)
    told = select(run, source, list_images(run.parent / "images"), CPU, fitted)
    return json.loads((run / "selection.json").read_text()), told


def source_with_statistics(folder: Path) -> Path:
    """The tiny bundle, calibrated and with its statistics; without them no gain is predicted."""
    labelled = read_voc(make_voc(folder.with_name("labelled"), count=2), "test", DetectionData())
    shutil.copytree(source_bundle(), folder)
    calibrate_bundle(folder, labelled, detect_all(SfodPredictor.from_checkpoint(folder), labelled, ""), "of a test")
    store_statistics(folder, labelled, most=2, device=CPU)
    return folder


def test_train__without_a_rule_the_last_teacher_is_delivered_and_said() -> None:
    folder = adapted_run()
    record = json.loads((folder / "run" / "selection.json").read_text())
    assert (record["selected"], record["delivered"], record["images"]) == (None, 6, 2)
    assert "no fitted rule" in record["why"]
    assert [each["step"] for each in record["candidates"]] == [0, 2, 4, 6]
    assert record["candidates"][0]["stability"] > 0
    with (folder / "run" / "selection.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "2", "4", "6"]
    assert [row["model"] for row in rows] == ["source", *["teacher"] * 3]
    told = (folder / "told.txt").read_text()
    assert "none is kept out of adaptation" in told
    assert "3 states will be kept" in told
    last, kept = bundle.load(folder / "run" / "model").tensors, load_kept(list_kept(folder / "run")[6])
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, last[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_select__a_rule_chooses_the_earliest_that_is_as_good(run: Path) -> None:
    record, told = selected(run, rule(stability=1.0))
    rows = record["candidates"]
    gains = [row["predicted_gain"] for row in rows]
    assert gains[0] == 0
    best = int(np.argmax([-np.inf if each is None else each for each in gains]))
    least = gains[best] - rows[best]["standard_error"]
    first = next(row["step"] for row, gain in zip(rows, gains, strict=True) if gain is not None and gain >= least)
    assert record["selected"] == record["delivered"] == first
    delivered = bundle.load(run / "model")
    assert str(record["why"]) in delivered.card.limits
    assert str(record["why"]) in told[0]
    kept = load_kept(list_kept(run)[first]) if first else bundle.load(source_bundle()).tensors
    assert all(torch.equal(tensor, delivered.tensors[name]) for name, tensor in kept.items())


@pytest.mark.slow
def test_select__where_the_numbers_speak_against_all_the_source_is_delivered(run: Path) -> None:
    record, _ = selected(run, None)
    first, *others = record["candidates"]
    # A number that all teachers have more of, or less of, than the source.
    name, sign = next(
        (name, sign)
        for name in NUMBERS
        for sign in (1, -1)
        if first[name] is not None and all(sign * (row[name] - first[name]) > 0 for row in others)
    )
    record, told = selected(run, rule(**{name: -1e6 * sign}))
    assert record["selected"] == record["delivered"] == 0
    assert "the source itself is delivered" in told[0]
    source = bundle.load(source_bundle()).tensors
    assert all(torch.equal(tensor, source[name]) for name, tensor in bundle.load(run / "model").tensors.items())


def test_select__no_kept_teacher_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.keep_teachers=10"):
        select(tmp_path, source_bundle(), [], CPU, None)


def test_config__select_keeps_ten_teachers_of_methods_that_have_one(tmp_path: Path) -> None:
    asked = config.load(SfodConfig, None, ["verdict.select=true"])
    assert asked.train.keep_teachers == 10
    assert config.load(SfodConfig, None, []).train.keep_teachers is None
    assert config.load(SfodConfig, None, ["verdict.select=true", "train.keep_teachers=4"]).train.keep_teachers == 4
    with pytest.raises(ConfigError, match="method 'bn' has none"):
        config.load(SfodConfig, None, ["verdict.select=true", "method=bn"])


def test_read_rule__that_of_the_package_serves_sources_with_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, fitted = source_with_statistics(tmp_path / "source"), rule(stability=0.4, expected_f1=0.2)
    file = tmp_path / "rule.json"
    monkeypatch.setattr(statistics, "RULE_FILE", file)
    assert read_rule(bundle.read_card(card)) is None
    file.write_text(json.dumps(fitted.to_record() | {"protocol": "a"}))
    found = read_rule(bundle.read_card(card))
    assert found is not None
    assert found.coefficients.tolist() == fitted.coefficients.tolist()
    assert read_rule(bundle.read_card(source_bundle())) is None
    file.write_text('{"spread": 1}')
    with pytest.raises(CheckpointError, match="is damaged"):
        read_rule(bundle.read_card(card))


@pytest.mark.slow
def test_train__killed_and_resumed_keeps_and_selects_the_same(tmp_path: Path) -> None:
    data = make_voc(tmp_path / "data", count=1, seed=1) / "JPEGImages"
    words = [*WORDS, "train.epochs=60", "train.keep_teachers=5"]
    assert adapt(tmp_path / "whole", data, *words) == 0
    parts = tmp_path / "parts"
    process = Forked(["-m", "pipelines.sfod", "train", "--out", str(parts), *adapt_words(data, *words)])
    torchrun.wait_for_steps(parts, 19)
    process.send_signal(signal.SIGKILL)
    process.communicate(60)
    assert process.returncode == -signal.SIGKILL
    assert not (parts / "selection.json").exists()
    process = Forked(["-m", "pipelines.sfod", "train", "--out", str(parts), "--resume"])
    process.communicate(300)
    assert process.returncode == 0
    for name in ("selection.json", "selection.csv", "model/weights.safetensors"):
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    kept = {path.name: path.read_bytes() for path in list_kept(parts).values()}
    assert kept == {path.name: path.read_bytes() for path in list_kept(tmp_path / "whole").values()}
    assert len(kept) == 5
