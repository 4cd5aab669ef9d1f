"""Files that commit 6dd28ca wrote, before its files moved into folders, are read and continued.

``tests/written_before`` holds a run of tiny feature files that was stopped after one of eight steps, the same run
undisturbed (its last checkpoint and its bundle), and a batch of two of three inputs.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.wsi.__main__ import main
from vision_core.files import text_of
from vision_core.results import DECLINED

WRITTEN = Path(__file__).parent / "written_before"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, which is where paths in the files begin."""
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_resume__a_run_of_before_ends_as_it_ended_then(work: Path) -> None:
    (work / "finished" / "config.yaml").write_bytes((work / "stopped" / "config.yaml").read_bytes())
    assert main(["train", "--out", "stopped", "--resume", "--device", "cpu"]) == 0
    assert main(["train", "--config", "finished/config.yaml", "--out", "anew", "--device", "cpu"]) == 0
    resumed, anew = (load_file(work / run / "model" / "weights.safetensors") for run in ("stopped", "anew"))
    then = load_file(work / "finished" / "model" / "weights.safetensors")
    assert resumed.keys() == then.keys() == anew.keys()
    if _are_equal(anew, then):  # this processor computes the same bits as the one that wrote the files
        assert _are_equal(resumed, then)
    for name, tensor in then.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-3, atol=1e-4)


def test_verify__a_bundle_of_before_is_read_with_one_line(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "finished/model"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == ["note: 'finished/model' is of format 1: its card has no seal, so edits cannot be seen."]


def test_evaluate__a_bundle_of_before(work: Path) -> None:
    before = (work / "finished" / "model" / "card.json").read_bytes()
    assert main(["evaluate", "--checkpoint", "finished/model", "data.root=data", "--out", "scores"]) == 0
    assert (work / "finished" / "model" / "card.json").read_bytes() == before


def test_predict__a_batch_of_before_goes_on_with_what_is_left(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (work / "inputs").iterdir():  # an input is known by its time, which a checkout does not keep
        os.utime(path, ns=(10**18, 10**18))
    job = json.loads((work / "batch" / "job.json").read_text())
    (work / "batch" / "job.json").write_text(
        json.dumps(job | {"input_folders": [text_of((work / "inputs").resolve())]})
    )
    kept = {path: path.stat().st_mtime_ns for path in (work / "batch" / "outputs").iterdir()}
    words = ["--checkpoint", "finished/model", "--input", "inputs", "--out", "batch", "--device", "cpu"]
    assert main(["predict", *words]) == 0
    assert "3 of 3 inputs done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    lines = (work / "batch" / "ledger" / "0.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["s0", "s1", "s2"]

    with (work / "batch" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["input"]).name for row in rows] == ["s0.h5", "s1.h5", "s2.h5"]
    for row in rows:  # the category of a slide of before is decided as that of one of now
        declines = float(row["abstains"] or 0) or float(row["outside"] or 0)
        assert (row["category"] in DECLINED) == bool(declines)
        assert row["notice"] and "notes" not in row


def _are_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())
