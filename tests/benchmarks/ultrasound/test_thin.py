"""Thin against standard U-Net: settings of the cells, differences by hand, and a whole small study."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ultrasound.cells import Cell, packed
from benchmarks.ultrasound.phantom import Bench, prepare_frames, words_of
from benchmarks.ultrasound.thin import as_phantom, run_cell
from benchmarks.ultrasound.thin_tables import CELLS, PROTOCOL, difference, is_within, missing, table
from pipelines.ultrasound.config import UltrasoundConfig
from vision_core.config.loading import load
from vision_core.segmentation.settings import THIN, Segmenter

BENCH = Bench(protocol=PROTOCOL, work=Path("work"), results=Path("results"))


@pytest.mark.parametrize(("network", "wanted"), [("standard", Segmenter()), ("thin", THIN)])
def test_words__differ_in_the_network_alone(network: str, wanted: Segmenter) -> None:
    config = load(UltrasoundConfig, None, words_of(as_phantom(BENCH, network), Cell(1, "all_frames", "combination")))
    assert config.segmenter == wanted
    assert (config.method, config.train.seed, config.train.batch_size, config.train.epochs) == ("segment", 1, 16, 18)
    assert (config.labels.sampling, config.data.only_present) == ("combination", False)


def rows(lost: float) -> list[dict[str, Any]]:
    """All cells; the thin network loses so much on each frame of two subjects, more on the second's only frame."""
    standard = np.array([0.9, 0.8, 0.7])
    return [
        {
            "network": network,
            "seed": seed,
            "subjects": "a a b",
            "present": "1 0 1",
            "dice": packed(standard - (network == "thin") * np.array([lost, lost, 2 * lost]) - 0.01 * seed),
        }
        for network, seed in CELLS
    ]


def test_difference__is_paired_by_subject_and_seed() -> None:
    found, seeds = difference(rows(0.006), "all")
    assert found == pytest.approx([0.6, 1.2])
    assert seeds == [0, 1, 2]
    assert difference([each for each in rows(0.006) if each["seed"] or each["network"] == "thin"], "all")[1] == [1, 2]
    assert missing(rows(0.0)) == [] and missing(rows(0.0)[1:]) == ["standard-0"]


def test_is_within__one_point_and_all_cells() -> None:
    assert is_within(rows(0.006))  # 0.9 points
    assert not is_within(rows(0.007))
    assert not is_within(rows(0.0)[1:])
    assert "| Dice by subject, all frames | 76.5 ± 1.0 | 75.6 ± 1.0 | +0.90 (+0.60 to +1.20) | 3 |" in table(
        rows(0.006)
    )
    assert table([]).count("| n/a | n/a | n/a | 0 |") == 2


@pytest.mark.slow
def test_run_cell__a_small_study_resumes_per_cell(tmp_path: Path) -> None:
    lists = {"train": 3, "val": 2, "test": 2}
    small = {**PROTOCOL, "subjects": lists, "frames": 6, "size_px": [64, 64], "settings": {"train.epochs": 1}}
    small["settings"] |= {"train.batch_size": 6, "train.eval_every": 1}
    bench = Bench(protocol=small, work=tmp_path / "work", results=tmp_path / "results")
    prepare_frames(bench)
    for network in ("standard", "thin"):
        name, seconds = run_cell(bench, network, 0)
        assert name == f"{network}-0" and seconds > 0
        assert bench.path(f"{network}-0").exists()
