"""What the hash of a study depends on, and when results get another one."""

import json
from pathlib import Path

import pytest

from benchmarks import restamp, studies
from benchmarks.studies import Study

STUDY = Study(name="toy", protocol_file="toy.yaml", makers=("maker.py",), settings=("run.yaml",))
MAKER = '"""Maker."""\nimport numpy\n\n\ndef make() -> int:\n    """Make."""\n    return 1\n'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(studies, "ROOT", tmp_path)
    monkeypatch.setattr(studies, "PROTOCOLS", tmp_path)
    (tmp_path / "toy.yaml").write_text("seeds: [0, 1]\n")
    (tmp_path / "run.yaml").write_text("train.epochs: 3  # a comment\n")
    (tmp_path / "maker.py").write_text(MAKER)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "is_another"),
    [
        ("maker.py", MAKER.replace("import numpy", "from a.room import other"), False),
        ("maker.py", MAKER.replace("Make.", "Make one."), False),
        ("maker.py", MAKER.replace("return 1", "return 2"), True),
        ("run.yaml", "train.epochs: 3\n", False),
        ("run.yaml", "train.epochs: 4\n", True),
        ("toy.yaml", "seeds: [0]\n", True),
    ],
)
def test_protocol_hash__changes_with_what_figures_depend_on(file: str, text: str, is_another: bool, root: Path) -> None:
    before = STUDY.protocol_hash()
    (root / file).write_text(text)
    assert (STUDY.protocol_hash() != before) == is_another


def test_stamp__keeps_the_hashes_before(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(json.dumps({"study": "toy", "protocol": "a", "auc": 0.5}))
    assert restamp._stamp(path, "a", "b")
    assert restamp._stamp(path, "b", "c")
    assert not restamp._stamp(path, "b", "c")
    assert json.loads(path.read_text()) == {"study": "toy", "protocol": "c", "protocols_before": ["a", "b"], "auc": 0.5}


def test_stamp__a_result_of_another_protocol_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(json.dumps({"protocol": "x"}))
    with pytest.raises(RuntimeError, match="of protocol x, neither a nor b"):
        restamp._stamp(path, "a", "b")
    assert json.loads(path.read_text()) == {"protocol": "x"}


def test_restamp__other_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(checkout: Path, study: str, out: Path) -> str:
        out.mkdir(parents=True)
        (out / "tile.png").write_bytes(checkout.name.encode())
        return "hash"

    monkeypatch.setattr(restamp, "_make", make)
    with pytest.raises(RuntimeError, match=r"1 files differ, the first is 'tile\.png'"):
        restamp.restamp("toy", tmp_path / "old", tmp_path / "made")


def test_write_cell__is_named_and_begins_with_what_tells_it_apart(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    monkeypatch.setattr(studies, "machine", dict)
    STUDY.write_cell({"method": "mt", "seed": 0}, settings={"lr": 0.1}, ap50=50.0)
    path = tmp_path / "toy" / "mt-0.json"
    assert path == STUDY.cell_file("mt", 0)
    [row] = STUDY.rows()
    assert list(row)[:6] == ["study", "protocol", "method", "seed", "settings", "ap50"]
    assert (row["study"], row["protocol"], row["ap50"]) == ("toy", STUDY.protocol_hash(), 50)
