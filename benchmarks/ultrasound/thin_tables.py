"""Table of the thin U-Net against the standard one, from the result files. All frames are synthetic."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.studies import Rows, Study, spread
from benchmarks.ultrasound import cells
from benchmarks.ultrasound.cells import Floats, unpacked
from pipelines.ultrasound.evaluation.scores import by_subject, interval_over_subjects

STUDY = Study(
    name="ultrasound-thin",
    protocol_file="ultrasound_thin.yaml",
    makers=cells.STUDY.makers,
    settings=("benchmarks/protocols/ultrasound_phantom.yaml",),
)
PROTOCOL = STUDY.protocol()
STANDARD, THIN = "standard", "thin"
CELLS = [(network, seed) for seed in PROTOCOL["seeds"] for network in PROTOCOL["networks"]]
MARGIN = 1.0  # points of Dice
_KINDS = {"all": "all frames", "present": "frames with the organ"}


def missing(rows: Rows) -> list[str]:
    """Cells of the study without a result."""
    found = {(row["network"], row["seed"]) for row in rows}
    return [f"{network}-{seed}" for network, seed in CELLS if (network, seed) not in found]


def subject_dice(row: Mapping[str, Any], kind: str) -> Floats:
    """Average the Dice of a cell within each test subject, in points: of all frames, or of those with the organ."""
    dice, present = unpacked(row["dice"]), unpacked(row["present"]) > 0
    counted = dice if kind == "all" else np.where(present, dice, np.nan)
    return 100 * by_subject(counted, row["subjects"].split())


def difference(rows: Rows, kind: str) -> tuple[Floats, list[int]]:
    """Average standard minus thin ``(subjects,)`` over the seeds that have both, in points; and name these."""
    cells = {(row["network"], row["seed"]): subject_dice(row, kind) for row in rows}
    seeds = [each for each in PROTOCOL["seeds"] if {(STANDARD, each), (THIN, each)} <= cells.keys()]
    differences = [cells[STANDARD, each] - cells[THIN, each] for each in seeds]
    return (np.mean(differences, axis=0) if seeds else np.empty(0)), seeds


def is_within(rows: Rows) -> bool:
    """Tell whether all cells are there and the mean difference over all frames is at most one point."""
    return not missing(rows) and float(difference(rows, "all")[0].mean()) <= MARGIN


def table(rows: Rows | None = None) -> str:
    """Dice of both networks, and what the thin one loses."""
    rows = STUDY.rows() if rows is None else rows
    lines = [
        "| synthetic, list test | standard U-Net | thin U-Net | standard − thin, 95 % interval over subjects | seeds |",
        "|---|---|---|---|---|",
    ]
    for kind, title in _KINDS.items():
        means = {
            network: [float(np.nanmean(subject_dice(row, kind))) for row in rows if row["network"] == network]
            for network in (STANDARD, THIN)
        }
        lost, seeds = difference(rows, kind)
        told = "n/a"
        if seeds:
            low, high = interval_over_subjects(lost)
            told = f"{np.nanmean(lost):+.2f} ({low:+.2f} to {high:+.2f})"
        lines.append(
            f"| Dice by subject, {title} | {spread(means[STANDARD])} | {spread(means[THIN])} | {told} | {len(seeds)} |"
        )
    return "\n".join(lines)


TABLES = {"ultrasound-thin": table}
