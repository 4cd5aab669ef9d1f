"""Runs of a command on several devices at once; two processes on the CPU stand for two GPUs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.wsi.__main__ import main
from tests.pipelines.wsi.tiny import DIM, FEATURE_WORDS, make_features
from tests.vision_core.toy import toy_config
from vision_core.commands.several_gpus import free_gpus, share_out
from vision_core.config.schema import Config
from vision_core.slides.features.files import Features, write_features

TWO = ["cuda:0", "cuda:1"]


def _runs(count: int, **changes: object) -> dict[str, Config]:
    return {f"seed-{seed}": toy_config(**{"train.seed": seed}, **changes) for seed in range(count)}


def _names(shares: list[tuple[str, dict[str, Config]]]) -> dict[str, list[str]]:
    return {device: list(runs) for device, runs in shares}


def test_share_out__one_seed_a_device_in_turn() -> None:
    assert _names(share_out(_runs(3), TWO)) == {"cuda:0": ["seed-0", "seed-2"], "cuda:1": ["seed-1"]}
    assert _names(share_out(_runs(1), TWO)) == {"cuda:0": ["seed-0"]}
    assert share_out(_runs(3), []) == []


def test_share_out__a_run_follows_the_one_that_it_starts_from() -> None:
    runs: dict[str, Config] = {
        "seed-0-teacher": toy_config(),
        "seed-0-student": toy_config(**{"source.run": "seed-0-teacher"}),
        "seed-1-teacher": toy_config(),
        "seed-1-student": toy_config(**{"source.run": "seed-1-teacher"}),
    }
    shares = _names(share_out(runs, TWO))
    assert shares == {"cuda:0": ["seed-0-teacher", "seed-0-student"], "cuda:1": ["seed-1-teacher", "seed-1-student"]}


@pytest.mark.parametrize(
    ("device", "count", "processes", "free"),
    [("auto", 2, 1, TWO), ("cuda", 2, 1, TWO), ("cuda:1", 2, 1, []), ("cpu", 2, 1, []), ("auto", 1, 1, []),
     ("auto", 2, 2, [])],
)  # fmt: skip
def test_free_gpus__where_there_are_several_and_none_was_named(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, processes: int, free: list[str]
) -> None:
    monkeypatch.setattr("vision_core.commands.several_gpus.pick_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert free_gpus(_runs(2, **{"train.device": device})) == free


@pytest.mark.slow
def test_train__seeds_at_once_are_the_seeds_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_features(tmp_path / "data")
    words = ["--seeds", "0,1", "--device", "cpu", f"data.root={data}", "method=plain", *FEATURE_WORDS, "train.epochs=1"]
    assert main(["train", "--out", str(tmp_path / "one"), *words]) == 0
    table = (tmp_path / "one" / "spread.csv").read_text()
    monkeypatch.setattr("vision_core.commands.train.free_gpus", lambda _: ["cpu", "cpu"])
    assert main(["train", "--out", str(tmp_path / "both"), *words]) == 0
    assert (tmp_path / "both" / "spread.csv").read_text() == table
    for seed in ("seed-0", "seed-1"):
        weights = [(tmp_path / run / seed / "model" / "weights.safetensors").read_bytes() for run in ("one", "both")]
        assert weights[0] == weights[1]
        assert json.loads((tmp_path / "both" / seed / "run.json").read_text())["status"] == "done"
    assert "cpu: seed-1; the log of each is in its folder." in capsys.readouterr().out


@pytest.mark.slow
def test_train__fault_of_one_seed_is_told_as_if_it_were_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_features(tmp_path / "data")
    large = np.full((5, DIM), 3e38, np.float32)  # beyond float32 in the first product, on any machine
    write_features(data / "features" / "s0.h5", Features(features=large, coords=None, attributes={}))
    words = [f"data.root={data}", "method=plain", *FEATURE_WORDS, "train.epochs=1"]
    monkeypatch.setattr("vision_core.commands.train.free_gpus", lambda _: ["cpu", "cpu"])
    assert main(["train", "--out", str(tmp_path / "run"), "--seeds", "0,1", "--device", "cpu", *words]) == 2
    assert "error[TRAINING] The loss is not finite at step" in capsys.readouterr().err
