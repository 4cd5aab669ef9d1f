"""Cells of the ultrasound study: their settings and order, sums of pixels by hand, and a whole small study."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ultrasound.cells import LISTS, PROTOCOL, SCORED, STUDY, TRUTH, Cell, cells_of, read_found
from benchmarks.ultrasound.phantom import Bench, in_band, prepare, reliability, run_cell, words_of
from pipelines.ultrasound.config import UltrasoundConfig
from vision_core.config.loading import load

BENCH = Bench(protocol=PROTOCOL, work=Path("work"), results=Path("results"))


def test_cells_of__seed_by_seed_the_screen_first() -> None:
    names = [cell.name for cell in cells_of(PROTOCOL)]
    assert len(names) == len(set(names)) == 37
    assert names[:9] == [
        "screen-0",
        *(f"all_frames-{label}-0" for label in ("random", "vote", "mean", "combination")),
        *(f"{group}-{label}-0" for group in ("positive_frames", "frame_aware") for label in ("vote", "combination")),
    ]
    assert names[-1] == "all_frames-combination-4"


@pytest.mark.parametrize("cell", cells_of(PROTOCOL)[:9], ids=lambda cell: cell.name)
def test_words_of__are_settings_of_the_protocol(cell: Cell) -> None:
    config = load(UltrasoundConfig, None, words_of(BENCH, cell))
    assert (config.train.epochs, config.train.eval_every, config.train.batch_size) == (18, 3, 32)
    assert (config.optim.name, config.optim.lr, config.optim.schedule) == ("adam", 0.001, "constant")
    assert config.data.frames_per_subject == "all"
    assert config.data.eval_split is None
    assert config.data.only_present == (cell.group == "positive_frames")
    assert (config.augment.flip, config.augment.affine, config.augment.speckle) == (0.3, 0.3, 0.3)
    if cell.group == "screen":
        assert (config.method, config.screen.network, config.screen.side_px) == ("screen", "lite0", 128)
    else:
        assert (config.segmenter.layers, config.segmenter.first, config.segmenter.squeeze) == (4, 12, 2)
        assert (config.labels.sampling, config.labels.consensus_share) == (cell.label, 0.25)
        assert config.loss.frame_aware.weight == (0.5 if cell.group == "frame_aware" else 0)


def test_reliability__bins_by_rank_over_all_pixels() -> None:
    probabilities = (np.arange(20).reshape(2, 2, 5)[::-1] / 20).astype(np.float32)  # the first frame has the upper half
    shares = np.ones((2, 2, 5), np.float32)
    pixels, sums, marked = reliability(probabilities, shares, ["b", "a"])
    assert pixels.tolist() == [[2] * 5 + [0] * 5, [0] * 5 + [2] * 5]
    assert sums[0, :5] == pytest.approx([(2 * k + 2 * k + 1) / 20 for k in range(5)])
    assert np.array_equal(marked, pixels)


def test_in_band__contour_of_each_observer_between_the_others() -> None:
    masks = np.zeros((3, 7, 9), bool)
    masks[0, 1:6, 1:6] = True  # contour of 16 pixels
    masks[1, 1:6, 1:6] = True
    masks[2, 1:6, 3:8] = True  # moved by two columns
    # Observers 1 and 2 share 5 x 3 pixels, of which (2..4, 4) are within: their band lacks these of the union, and
    # observer 0's contour has none of them. The band of 0 and 1 is their contour: of 2's, 3 pixels in rows 1 and 5.
    assert in_band(masks).tolist() == [[16, 16], [16, 16], [6, 16]]
    masks[1] = False
    assert not in_band(masks).any()


@pytest.mark.slow
def test_run_cell__a_small_study(tmp_path: Path) -> None:
    lists = {"train": 3, "val": 2, "calibration": 2, "test": 2, "other_machine": 2}
    small: dict[str, Any] = {**PROTOCOL, "subjects": lists, "frames": 6, "size_px": [64, 64]}
    small["settings"] = {**PROTOCOL["settings"], "train.epochs": 1, "train.eval_every": 1, "train.batch_size": 6}
    small["networks"] = {
        "screen": {"network": "resnet10t", "side_px": 64, "start": "random weights"},
        "segmenter": {"layers": 2, "first": 4, "squeeze": 2},
    }
    bench = Bench(protocol=small, work=tmp_path / "work", results=tmp_path / "results")
    prepare(bench)
    for cell in (Cell(0, "screen"), Cell(0, "all_frames", "combination"), Cell(0, "frame_aware", "vote")):
        run_cell(bench, cell)
    rows = [json.loads(path.read_text()) for path in bench.results.glob("*.json")]
    assert {row["group"] for row in rows} == {TRUTH, "screen", "all_frames", "frame_aware"}
    assert all("synthetic" in row["synthetic"] and row["protocol"] == STUDY.protocol_hash() for row in rows)
    found = read_found(rows)
    for name in LISTS:
        frames = 6 * lists[name]
        assert found.truth[name].present.shape == found.scores[0][name].shape == (frames,)
        own = found.segmented["all_frames", "combination"][0][name]
        assert own.dice.shape == own.areas.shape == (frames,)
        assert np.array_equal(np.isnan(own.confidence), own.areas == 0)
        if name in SCORED:
            assert own.reliability[0].sum() == pytest.approx(frames * 64 * 64)
            assert own.reliability.shape == (3, lists[name], 10)
    before = bench.path("screen-0").read_bytes()
    prepare(bench)
    assert bench.path("screen-0").read_bytes() == before
