import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.ultrasound.evaluation import list_report
from pipelines.ultrasound.evaluation.band import Bands
from pipelines.ultrasound.evaluation.list_report import AGREEMENT, BY_RUN, CURVE, FRAMES, VIOLINS, compare_runs
from pipelines.ultrasound.evaluation.list_report import write_list_report as write
from pipelines.ultrasound.evaluation.pictures import Violin
from pipelines.ultrasound.evaluation.rows import ListScores
from tests.pipelines.ultrasound.published import AREAS, DICE, PRESENT, SCORES, found
from vision_core.files import write_atomic

NAMES: Any = SimpleNamespace(name="val", names=[SimpleNamespace(text=f"f{number}", subject="a") for number in range(8)])


def scored(**changes: Any) -> ListScores:  # noqa: ANN401
    none = np.full(8, np.nan)
    bands = Bands(coverage=none, width=none, observers_coverage=np.arange(8) / 8, observers_width=none)
    return found(true_areas=np.where(PRESENT, AREAS + 10, 0), bands=bands, **changes)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_write__a_gate_has_a_row_a_frame_and_its_curve(tmp_path: Path) -> None:
    write(tmp_path, NAMES, {"gate": scored()}, {"gate": 0.5}, synthetic=True)
    table = rows(tmp_path / FRAMES)
    assert [row["frame"] for row in table] == [f"f{number}" for number in range(8)]
    assert [float(row["dice"]) for row in table] == DICE.tolist()
    # The third frame shows the organ and is rejected, the fourth does not and is.
    assert [float(row["dice_end_to_end"]) for row in table] == [0.9, 1, 0, 1, 0.8, 0, 0, 1]
    assert (table[0]["consensus_px"], table[0]["mask_px"]) == ("130", "120")
    assert table[0]["band_coverage"] == ""
    assert float(table[3]["observers_band_coverage"]) == 0.375
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert list(captions) == [VIOLINS, AGREEMENT, CURVE.format("val")]
    for name in captions:
        with Image.open(tmp_path / name) as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 200
    assert "'val'" in captions[VIOLINS]


def test_write__a_screen_alone_has_a_table_and_no_picture(tmp_path: Path) -> None:
    none = np.full(8, np.nan)
    write(tmp_path, NAMES, {"trained": found(dice=none, areas=none, confidence=none)}, {})
    assert [float(row["score"]) for row in rows(tmp_path / FRAMES)] == pytest.approx(SCORES.tolist(), abs=1e-4)
    assert not list(tmp_path.glob("*.png"))


def test_compare_runs__side_by_side_in_the_first_and_nothing_for_one(tmp_path: Path) -> None:
    runs = {name: tmp_path / name for name in ("vote", "random", "empty")}
    for name in ("vote", "random"):
        write(runs[name] / "pictures", NAMES, {"source": found(dice=np.zeros(8)), "trained": scored()}, {})
    compare_runs({"vote": runs["vote"], "empty": runs["empty"]})
    assert not (runs["vote"] / "pictures" / BY_RUN).exists()
    compare_runs(runs)
    assert (runs["vote"] / "pictures" / BY_RUN).exists()
    captions = json.loads((runs["vote"] / "pictures" / "captions.json").read_text())
    assert list(captions) == [VIOLINS, AGREEMENT, BY_RUN]
    assert not (runs["random"] / "pictures" / BY_RUN).exists()


def test_compare_runs__seeds_of_one_experiment_are_one_violin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, int]] = []
    monkeypatch.setattr(
        list_report,
        "draw_violins",
        lambda _path, groups, **_: drawn.append({name: len(each.values) for name, each in groups.items()}),
    )
    runs = {name: tmp_path / name for name in ("vote-seed-0", "vote-seed-1", "random-seed-0")}
    for path in runs.values():
        write_atomic(path / "pictures" / FRAMES, "model,subject,present,dice\nm,a,1,0.5\nm,a,0,1.0\n")
    compare_runs(runs)
    compare_runs({name: runs[name] for name in ("vote-seed-0", "vote-seed-1")})
    assert drawn == [{"vote": 2, "random": 1}, {"vote-seed-0": 1, "vote-seed-1": 1}]


def test_violin__of_frames_and_of_subjects() -> None:
    violin = Violin.of(np.array([0.5, np.nan, 1.0, np.nan]), ["b", "b", "a", "c"])
    assert violin.values.tolist() == [0.5, 1.0]
    assert violin.means.tolist() == [1.0, 0.5]
    assert not len(Violin.of(np.array([0.5]), None).means)
