"""Feature files whose names are no UTF-8: a label cannot name them, and all that is written can still be read."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pipelines.wsi.__main__ import main
from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features

ODD = os.fsdecode(b"s\xff\xfe.h5")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    data = make_features(tmp_path / "data")
    shutil.copy(data / "features" / "s0.h5", data / "features" / ODD)
    return ["train", "--out", str(tmp_path / "run"), f"data.root={data}", "method=plain", *FEATURE_WORDS]


def test_train__dropped_and_told_in_what_is_printed_and_written(
    words: list[str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*words, "data.on_missing=drop"]) == 0
    told = "files without a label, left out: 1 (s"
    assert told in capfdbinary.readouterr().out.decode("utf-8")
    for name in ("run.json", "report.html", "log.txt"):
        assert told in (tmp_path / "run" / name).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["status"] == "done"
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0


def test_train__refused_in_a_line(words: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main([*words, "data.on_missing=refuse"]) == 2
    told = capfdbinary.readouterr().err.decode("utf-8")
    assert "'1' files have no row: s" in told
    assert "Traceback" not in told
