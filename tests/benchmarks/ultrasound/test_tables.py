"""Tables of the ultrasound study: thresholds, weights and intervals by hand, and verdicts on made results."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.studies import Rows, Study
from benchmarks.ultrasound import comparisons, tables
from benchmarks.ultrasound.cells import (
    LISTS,
    PROTOCOL,
    SegmentedList,
    Truth,
    cells_of,
    missing,
    packed,
    read_found,
    unpacked,
)
from benchmarks.ultrasound.statistics import (
    Called,
    area_under_curve,
    calibration_error,
    estimate,
    gate_at,
    mean,
    rule_at,
    weighted,
)
from pipelines.ultrasound.evaluation.scores import interval_over_subjects
from pipelines.ultrasound.screening.gate import accepted
from vision_core.evaluation.classification import binary_auc

PRESENT = np.array([True, True, True, True, False, False, False, False])
NOTHING = np.full(8, np.nan)


def segmented(dice: Any, areas: Any, confidence: Any) -> SegmentedList:  # noqa: ANN401 (what arrays are made of)
    return SegmentedList(
        dice=np.array(dice, float),
        areas=np.array(areas, float),
        confidence=np.array(confidence, float),
        hausdorff_95=NOTHING,
        surface=NOTHING,
        reliability=np.zeros((3, 0, 10)),
    )


OWN = segmented(
    dice=[0.9, 0.8, 0.7, 0, 1, 0, 0, 1],
    areas=[50, 40, 30, 0, 0, 35, 10, 0],
    confidence=[0.9, 0.8, 0.7, np.nan, np.nan, 0.95, 0.6, np.nan],
)
TRUTH = Truth(subjects=("a", "b") * 4, present=PRESENT, has_consensus=PRESENT, in_band=np.ones((2, 3)))


def test_packed__a_float32_comes_back() -> None:
    values = np.random.default_rng(0).random(100, np.float32)
    assert np.array_equal(unpacked(packed(values, 9)).astype(np.float32), values)
    assert np.isnan(unpacked(packed([np.nan, np.inf]))).tolist() == [True, False]


@pytest.mark.parametrize(("recall", "found"), [(0.25, 1), (0.5, 2), (0.75, 3)])
def test_gate_at__the_highest_threshold_of_a_recall(recall: float, found: int) -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.7, 0.85, 0.2, 0.1, 0.0], np.float32)
    has_mask = OWN.areas > 0  # not on the fourth
    threshold = gate_at(scores, has_mask, PRESENT, recall)
    assert (accepted(scores, threshold) & has_mask & PRESENT).sum() == found
    assert (accepted(scores, threshold + 1e-6) & has_mask & PRESENT).sum() == found - 1


def test_gate_at__accepts_all_where_the_masks_have_less_recall() -> None:
    assert gate_at(np.full(8, 0.5, np.float32), OWN.areas > 0, PRESENT, 0.76) == 0


def test_rule_at__fewest_false_masks_of_all_pairs() -> None:
    rule = rule_at(OWN, PRESENT, 0.5)
    assert [rule.least_area, rule.least_probability] == pytest.approx([40, 0.8])  # 36 to 40 keep out both false masks
    rule = rule_at(OWN, PRESENT, 0.75)
    assert [rule.least_area, rule.least_probability] == pytest.approx([10, 0.7])  # the one of 0.95 cannot be told apart
    assert rule_at(OWN, PRESENT, 0.76).decide(OWN.areas, OWN.confidence).sum() == 5


def test_called__counts_and_dice_by_hand() -> None:
    passed = np.array([True, False, True, True, True, False, True, False])
    called = Called(truth=TRUTH, found=OWN, passed=passed)
    assert called.positive.tolist() == [True, False, True, False, False, False, True, False]
    assert called.counts().tolist() == [[2, 1, 0, 1], [0, 0, 2, 2]]  # frames 0, 2, 4, 6 are of subject a
    assert called.end_to_end.tolist() == [0.9, 0, 0.7, 0, 1, 1, 0, 1]
    assert called.shares(called.positive).tolist() == [[0.5, 0], [1, 0]]
    assert weighted(called.shares(called.positive), 0.1).tolist() == pytest.approx([0.05 + 0.9, 0])


def test_mean__is_the_interval_of_the_task() -> None:
    values = np.random.default_rng(1).random(30)
    found = mean(values)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(interval_over_subjects(values))
    assert mean(np.append(values[:5], np.nan)).value == pytest.approx(values[:5].mean())


def test_estimate__of_a_ratio_of_sums() -> None:
    parts = np.array([[1.0, 2.0], [3.0, 2.0]])
    found = estimate(parts, lambda sums: sums[:, 0] / sums[:, 1])
    assert (found.value, found.low, found.high) == (1.0, 0.5, 1.5)


def test_calibration_error__mean_over_pixels() -> None:
    sums = np.array([[10.0, 30.0], [1.0, 27.0], [2.0, 24.0]])  # deviations of 0.1 and 0.1 in shares of 1/4 and 3/4
    assert calibration_error(sums) == pytest.approx(0.1)


def made(seeds: int, *, gate_is_perfect: bool) -> Rows:
    """Results of 10 subjects with 4 present and 4 empty frames each; every segmenter marks all frames."""
    rng = np.random.default_rng(0)
    subjects, present = np.repeat(list("abcdefghij"), 8), np.tile(PRESENT, 10)
    flags = packed(present)
    rows: Rows = [
        {
            "group": "truth",
            "frames": {
                name: {
                    "subjects": " ".join(f"{name}{each}" for each in subjects),
                    "present": flags,
                    "has_consensus": flags,
                }
                | {f"in_band_{each}": packed([0.5] * 10) for each in range(3)}
                for name in LISTS
            },
        }
    ]
    for cell in (each for each in cells_of(PROTOCOL) if each.seed < seeds):
        row = {"group": cell.group, "label": cell.label, "seed": cell.seed, "cpu_seconds": 60.0, "is_resumed": False}
        noise = 0.1 * rng.random(80)
        if cell.group == "screen":
            scores = 0.25 + 0.5 * (present if gate_is_perfect else ~present) + noise
            columns = {"scores": packed(scores, 9), "outside": packed(np.zeros(80))}
        else:
            off = {"vote": 0.2, "combination": 0.1}.get(cell.label, 0.3)
            columns = {
                "dice": packed(np.where(present, 0.8, 0.0)),
                "areas": packed(np.full(80, 100)),
                "confidence": packed(0.8 + noise),
                "hausdorff_95": packed(np.full(80, 2)),
                "surface": packed(np.full(80, 1)),
                "pixels": packed(np.full(100, 10)),
                "probability": packed(np.full(100, 5 + 10 * off)),
                "share": packed(np.full(100, 5)),
            }
        rows.append({**row, "frames": dict.fromkeys(LISTS, columns)})
    return rows


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def of(rows: Rows) -> None:
        monkeypatch.setattr(Study, "rows", lambda _study: rows)
        comparisons.results.cache_clear()
        comparisons.presence.cache_clear()

    yield of
    comparisons.results.cache_clear()
    comparisons.presence.cache_clear()


def test_area_under_curve__is_that_of_all_frames() -> None:
    found = read_found(made(1, gate_is_perfect=True))
    found.scores[0]["test"][:] = np.random.default_rng(0).integers(0, 9, 80) / 8  # with ties
    truth = found.truth["test"].present.astype(np.int64)
    area = area_under_curve(found, [0], "test")
    assert area.value == pytest.approx(binary_auc(truth, found.scores[0]["test"].astype(float)))
    assert area.low < area.value < area.high


def verdicts() -> list[str]:
    return [line.split(" | ")[-1].rstrip(" |") for line in tables.expected_table().splitlines()[2:]]


def test_expected_table__held_where_the_gate_knows(use: Any) -> None:  # noqa: ANN401 (a fixture)
    use(made(2, gate_is_perfect=True))
    assert verdicts() == ["held", "held", "held", "held", "held", "not held"]
    lines = tables.expected_table().splitlines()
    assert "-10.0 (-10.0 to -10.0)" in lines[5]  # errors of 10 and 20 points
    shares = {line.split(" | ")[1]: line for line in tables.shares_table().splitlines()[8:]}
    assert "40.0 (40.0 to 40.0)" in shares["alone"]  # of Dice 0.8 on present frames, 0 on the others
    assert "90.0 (90.0 to 90.0)" in shares["gate"]


def test_expected_table__not_held_where_it_does_not(use: Any) -> None:  # noqa: ANN401 (a fixture)
    use(made(2, gate_is_perfect=False))
    assert verdicts()[:2] == ["not held", "not held"]


@pytest.mark.parametrize("seeds", [0, 1])
def test_tables__every_row_has_every_column_and_says_synthetic(seeds: int, use: Any) -> None:  # noqa: ANN401 (a fixture)
    use(made(seeds, gate_is_perfect=True) if seeds else [])
    for make in tables.TABLES.values():
        lines = make().splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert "synthetic" in lines[0]


def test_missing__names_every_cell_once() -> None:
    cells = missing(made(1, gate_is_perfect=True))
    assert len(cells) == len(set(cells)) == 37 - 9
    assert "frame_aware-vote-1" in cells
