"""Tables of the ultrasound study, from its result files. Every number is of synthetic frames, as each table says."""

import math
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.studies import spread
from benchmarks.ultrasound.cells import PROTOCOL, SCORED, SCREEN, STUDY, Floats, missing
from benchmarks.ultrasound.comparisons import (
    ALPHA,
    Row,
    calibration_difference,
    called,
    dice,
    dice_difference,
    dice_difference_of_masks,
    distance,
    false_difference,
    mean_error,
    missed,
    of_counts,
    outlines,
    outside,
    outside_difference,
    positive_shares,
    presence,
    reliability,
    results,
    rows,
    seeds_mean,
    times_100,
)
from benchmarks.ultrasound.statistics import (
    Called,
    Estimate,
    Presence,
    area_under_curve,
    controlled,
    estimate,
    mean,
    weighted,
)
from pipelines.ultrasound.screening.threshold import GRID, curve

__all__ = ["STUDY", "TABLES", "missing"]

Part = Callable[[Called, float], Floats]

BEST: Row = ("all_frames", "combination")  # of which the protocol expects
RANDOM: Row = ("all_frames", "random")
VOTE: Row = ("all_frames", "vote")
GROUPS = {"all_frames": "all frames", "positive_frames": "positive frames", "frame_aware": "frame-aware loss"}
WAYS = {"alone": "alone", "rule": "tuned rule", "gate": "gate"}
TITLES = {"test": "test", "other_machine": "other machine"}
_RECALL = 0.95
_RECALLS = (0.8, 0.85, 0.9, 0.95, 0.975)
_HALF = 0.5
_MARGIN = 0.5  # points of Dice
_RATIOS = ("precision", "recall", "specificity", "F1")


def expected_table() -> str:
    """Each expectation of the protocol, with its interval: held or not."""
    lines = ["| synthetic, list test, expected | found, 95 % interval over subjects | |", "|---|---|---|"]
    if not {BEST, RANDOM, VOTE} <= set(rows()):
        return "\n".join([*lines, "| all | n/a | |"])
    false, gained = false_difference(BEST, _HALF, _RECALL), dice_difference(BEST, _HALF)
    to_random = times_100(
        mean(seeds_mean(results().shared(BEST, RANDOM), partial(dice_difference_of_masks, BEST, RANDOM)))
    )
    error = calibration_difference(BEST, VOTE)
    seeds = sorted(results().scores)
    rejected = times_100(mean(seeds_mean(seeds, partial(missed, name="test"))))
    guard = outside_difference(seeds)
    told = [
        (
            "false masks of 100 frames, half of them empty, rule − gate at equal recall: above 0",
            false,
            _held(false.low > 0),
        ),
        ("Dice end to end, half of the frames empty, gate − rule by cost: above 0", gained, _held(gained.low > 0)),
        (
            f"Dice, combination − random: at least −{_MARGIN:g} points",
            to_random,
            _held(to_random.low >= -_MARGIN, in_the_mean=to_random.value >= -_MARGIN),
        ),
        (
            "calibration error in points, combination − vote: below 0",
            error,
            _held(error.high < 0, in_the_mean=error.value < 0),
        ),
        (
            f"% of a subject's frames missed under control: {100 * ALPHA:g} within",
            rejected,
            _held(rejected.low <= 100 * ALPHA),
        ),
        (
            "% of frames outside the scope, other machine − test: above 0",
            guard,
            _held(guard.low > 0, in_the_mean=guard.value > 0),
        ),
    ]
    return "\n".join([*lines, *(f"| {text} | {_told(found, '+')} | {held} |" for text, found, held in told)])


def presence_table(name: str) -> str:
    """Decisions about the frames of a list as they are, by segmenter and way to call them."""
    truth = results().truth.get(name)
    empty, present = (int((~truth.present).sum()), int(truth.present.sum())) if truth else (0, 0)
    lines = [
        f"| synthetic, {TITLES[name]} | | false of {empty} | missed of {present} | {' | '.join(_RATIOS)} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        for way, title in WAYS.items():
            counts = np.stack([called(row, seed, way, name).counts() for seed in results().seeds(*row)], axis=1)
            cells = [_told(estimate(counts, of_counts(each))) for each in ("false", "missed")]
            cells += [_told(times_100(estimate(counts, of_counts(each)))) for each in _RATIOS]
            lines.append(f"| {_title(row)} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def dice_table(name: str) -> str:
    """Dice by the five conventions, means of subjects."""
    lines = [
        f"| synthetic, {TITLES[name]}, Dice of | all | present | found | accepted, rule | end to end, rule "
        "| accepted, gate | end to end, gate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        cells = [dice(row, "alone", name, each) for each in ("all", "present", "found")]
        cells += [dice(row, way, name, each) for way in ("rule", "gate") for each in ("accepted", "end to end")]
        lines.append(f"| {_title(row)} | {' | '.join(map(_told, cells))} |")
    return "\n".join(lines)


def shares_table() -> str:
    """What the segmenter of the protocol's expectations does with more and fewer empty frames."""
    shares = PROTOCOL["empty_shares"]
    head = [f"{100 * share:g} % empty" for share in shares]
    lines = [f"| synthetic, test, {_title(BEST)} | | {' | '.join(head)} |", f"|---|---|{'---|' * len(head)}"]
    if BEST not in rows():
        return "\n".join(lines)
    parts: dict[str, Part] = {
        "false masks of 100 frames": lambda each, share: 100 * share * each.shares(each.positive)[0],
        "missed of 100 frames": lambda each, share: 100 * (1 - share) * each.shares(~each.positive)[1],
        "Dice end to end": lambda each, share: 100 * weighted(each.shares(each.end_to_end), share),
    }
    for text, part in parts.items():
        for way, title in WAYS.items():
            cells = []
            for share in shares:
                values = partial(_part_of, part, way, share)
                cells.append(_told(mean(seeds_mean(results().seeds(*BEST), values))))
            lines.append(f"| {text} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _part_of(part: Part, way: str, share: float, seed: int) -> Floats:
    return part(called(BEST, seed, way), share)


def gain_table() -> str:
    """What the gate changes against the rule, by segmenter and share of empty frames."""
    shares = PROTOCOL["empty_shares"]
    head = [f"{100 * share:g} % empty" for share in shares]
    lines = [f"| synthetic, test | | {' | '.join(head)} |", f"|---|---|{'---|' * len(head)}"]
    for row in rows():
        false = [_told(false_difference(row, share, _RECALL), "+") for share in shares]
        dice = [_told(dice_difference(row, share), "+") for share in shares]
        lines.append(f"| {_title(row)} | false masks of 100 frames, rule − gate | {' | '.join(false)} |")
        lines.append(f"| | Dice end to end, gate − rule | {' | '.join(dice)} |")
    return "\n".join(lines)


def recall_table() -> str:
    """Rule and gate set to equal recall on the list val, at several recalls."""
    lines = [
        "| synthetic, test | recall on val | recall, rule | recall, gate | % of empty frames with a mask, rule | gate "
        "| rule − gate |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in [each for each in (BEST, ("positive_frames", "combination")) if each in rows()]:
        for recall in _RECALLS:
            cells = [
                _told(
                    times_100(mean(seeds_mean(results().seeds(*row), partial(positive_shares, row, way, recall, kind))))
                )
                for kind in (1, 0)
                for way in ("rule", "gate")
            ]
            cells.append(_told(false_difference(row, 1.0, recall), "+"))
            lines.append(f"| {_title(row)} | {100 * recall:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def curve_table() -> str:
    """The gate on the list test over the published grid, means over seeds of frames; nothing was chosen on it."""
    lines = [
        f"| synthetic, test, {_title(BEST)}: threshold | accepted, % | found | false | missed | rightly empty "
        "| Dice, accepted | Dice, end to end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = results()
    if BEST not in rows():
        return "\n".join(lines)
    truth = found.truth["test"]
    curves = [
        curve(found.scores[seed]["test"], found.segmented[BEST][seed]["test"].segmented(truth))
        for seed in found.seeds(*BEST)
    ]
    for place, threshold in enumerate(GRID):
        points = [each[place] for each in curves]
        counts = [each.counts for each in points]
        columns: list[list[float]] = [
            [100 * each.accepted_share for each in points],
            [each.true_positive for each in counts],
            [each.false_positive for each in counts],
            [each.false_negative for each in counts],
            [each.true_negative for each in counts],
            [100 * each.dice.accepted.mean for each in points],
            [100 * each.dice.end_to_end.mean for each in points],
        ]
        told = [format(statistics.fmean(each), ".1f") for each in columns]
        lines.append(f"| {threshold:.3f} | {' | '.join(told)} |")
    return "\n".join(lines)


def screen_table() -> str:
    """The screens alone: order of their scores, missed frames under control, frames outside the scope."""
    seeds = sorted(results().scores)
    lines = [
        f"| synthetic, screens of {len(seeds)} seeds | area under the ROC curve, % "
        "| missed under control, % of present frames | outside the scope, % of frames |",
        "|---|---|---|---|",
    ]
    for name in SCORED if seeds else ():
        cells = [
            _told(times_100(area_under_curve(results(), seeds, name))),
            _told(times_100(mean(seeds_mean(seeds, partial(missed, name=name))))),
            _told(times_100(mean(seeds_mean(seeds, partial(outside, name=name))))),
        ]
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def threshold_table() -> str:
    """Thresholds and rules that the lists val and calibration have chosen, by seed."""
    seeds = results().seeds(*BEST)
    lines = [
        _line(f"synthetic, {_title(BEST)}", *(f"seed {seed}" for seed in seeds)),
        _line("---", *("---" for _ in seeds)),
    ]
    told: dict[str, Callable[[int], str]] = {
        "threshold of least cost": lambda seed: f"{presence(BEST, seed).threshold:.3f}",
        f"threshold at a recall of {100 * _RECALL:g} %": lambda seed: f"{presence(BEST, seed, _RECALL).threshold:.3f}",
        "threshold by control of missed frames": lambda seed: f"{controlled(results(), seed, ALPHA):.3f}",
        "rule of least cost: area in pixels, probability": lambda seed: _rule(presence(BEST, seed)),
        f"rule at a recall of {100 * _RECALL:g} %": lambda seed: _rule(presence(BEST, seed, _RECALL)),
    }
    return "\n".join([*lines, *(_line(text, *map(each, seeds)) for text, each in told.items())])


def calibration_table() -> str:
    """Calibration error of pixels against the mean of the observers."""
    lines = ["| synthetic, calibration error in points | test | other machine |", "|---|---|---|"]
    for row in rows():
        cells = [
            _told(times_100(estimate(reliability(row, results().seeds(*row), name), mean_error)), digits=2)
            for name in SCORED
        ]
        lines.append(f"| {_title(row)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def distance_table() -> str:
    """Distances of the outlines, of frames where both masks are there."""
    lines = [
        "| synthetic, test | frames with both | one mask alone | 95th percentile, mm | mean, mm |",
        "|---|---|---|---|---|",
    ]
    for row in rows():
        seeds = results().seeds(*row)
        both, alone = (spread([outlines(row, seed)[each] for seed in seeds], digits=0) for each in (0, 1))
        cells = [
            _told(mean(seeds_mean(seeds, partial(distance, row, kind))), digits=2)
            for kind in ("hausdorff_95", "surface")
        ]
        lines.append(f"| {_title(row)} | {both} | {alone} | {' | '.join(cells)} |")
    return "\n".join(lines)


def observer_table() -> str:
    """Where an observer's contour lies between those of the other two."""
    lines = ["| synthetic, % of the contour in the band of the other two | 1st | 2nd | 3rd |", "|---|---|---|---|"]
    for name, truth in results().truth.items():
        if name in SCORED:
            cells = [_told(times_100(mean(each))) for each in truth.in_band.T]
            lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table() -> str:
    """CPU minutes of the cells."""
    lines = ["| networks on synthetic frames | number | CPU minutes each | CPU hours |", "|---|---|---|---|"]
    for kind, is_screen in (("screen", True), ("segmenter", False)):
        own = [value for name, value in results().minutes.items() if name.startswith(SCREEN) == is_screen]
        lines.append(f"| {kind} | {len(own)} | {spread(own)} | {sum(own) / 60:.1f} |")
    return "\n".join(lines)


def _rule(found: Presence) -> str:
    return f"{found.rule.least_area:.0f}, {found.rule.least_probability:.3f}"


def _held(is_within: bool, *, in_the_mean: bool = False) -> str:
    if is_within:
        return "held"
    return "held in the mean, not by the interval" if in_the_mean else "not held"


def _told(found: Estimate, sign: str = "", digits: int = 1) -> str:
    if math.isnan(found.value):
        return "n/a"
    value, low, high = (format(each, f"{sign}.{digits}f") for each in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _title(row: Row) -> str:
    return f"{GROUPS[row[0]]}, {row[1]}"


TABLES: dict[str, Callable[[], str]] = {
    "ultrasound-phantom-expected": expected_table,
    "ultrasound-phantom-presence": partial(presence_table, "test"),
    "ultrasound-phantom-presence-other": partial(presence_table, "other_machine"),
    "ultrasound-phantom-dice": partial(dice_table, "test"),
    "ultrasound-phantom-dice-other": partial(dice_table, "other_machine"),
    "ultrasound-phantom-shares": shares_table,
    "ultrasound-phantom-gain": gain_table,
    "ultrasound-phantom-recall": recall_table,
    "ultrasound-phantom-curve": curve_table,
    "ultrasound-phantom-screens": screen_table,
    "ultrasound-phantom-thresholds": threshold_table,
    "ultrasound-phantom-calibration": calibration_table,
    "ultrasound-phantom-distances": distance_table,
    "ultrasound-phantom-observers": observer_table,
    "ultrasound-phantom-cost": cost_table,
}
