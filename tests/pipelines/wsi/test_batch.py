"""A night of twenty slides, four of them bad: undisturbed, and killed in mid-run."""

import csv
import json
import signal
import time
from pathlib import Path

import pytest

from pipelines.wsi.__main__ import main
from tests.forked import Forked
from tests.pipelines.wsi.tiny import damage_tile, make_bundle, picture, write_pyramid

FILES = 7  # of a slide with tissue
GOOD, BAD = 16, ("damaged", "no-mpp", "text", "truncated")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty slides, four bad in different ways."""
    folder = tmp_path_factory.mktemp("night")
    for number in range(GOOD):
        write_pyramid(folder / f"s{number:02d}.tif", picture(number, side_px=384))
    write_pyramid(folder / "damaged.tif", picture(20))
    damage_tile(folder / "damaged.tif")
    write_pyramid(folder / "no-mpp.tif", picture(21), mpp=None)
    (folder / "text.svs").write_text("<html>log in</html>")
    whole = write_pyramid(folder / "truncated.tif", picture(22)).read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: int(0.6 * len(whole))])
    return folder


@pytest.fixture(scope="module")
def undisturbed(bundle: Path, night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    words = ["predict", "--checkpoint", str(bundle), "--input", str(night), "--out", str(out)]
    assert main(words) == 4
    return out


def test_predict__four_bad_slides_of_twenty(undisturbed: Path) -> None:
    with (undisturbed / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == GOOD
    with (undisturbed / "failures.csv").open() as file:
        failures = {Path(row["input"]).stem: row["reason"] for row in csv.DictReader(file)}
    assert sorted(failures) == sorted(BAD)
    assert "Give it in a column 'mpp' of the CSV of slides, or with read.mpp" in failures["no-mpp"]
    assert "level 0 cannot be read at x" in failures["damaged"]
    assert len(list((undisturbed / "outputs").iterdir())) == GOOD * FILES
    planned = json.loads((undisturbed / "plan.json").read_text())
    assert str(planned).count("microns") >= 1
    assert (undisturbed / "summary.html").exists()


def test_predict__killed_in_mid_run_ends_with_the_same_files(
    bundle: Path, night: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Rows X3 and E1: ``kill -9`` of a real process; finished slides are not touched."""
    out = tmp_path / "out"
    words = ["predict", "--checkpoint", str(bundle), "--input", str(night), "--out", str(out)]
    process = Forked(["-m", "pipelines.wsi", *words])
    ledger = out / "ledger" / "0.jsonl"
    deadline = time.monotonic() + 240
    while _finished(ledger) < 7 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = _finished(ledger)
    assert 7 <= finished < GOOD + len(BAD)
    names = [json.loads(line)["name"] for line in ledger.read_bytes().splitlines()[:finished]]
    before = {path: path.stat().st_mtime_ns for path in (out / "outputs").iterdir() if path.name.split(".")[0] in names}
    assert before
    assert main(words) == 4
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    ours, theirs = _contents(out / "outputs"), _contents(undisturbed / "outputs")
    assert ours == theirs
    for table in ("results.csv", "failures.csv"):
        assert (out / table).read_bytes() == (undisturbed / table).read_bytes()
    assert not list(out.rglob(".partial-*"))


def _finished(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
