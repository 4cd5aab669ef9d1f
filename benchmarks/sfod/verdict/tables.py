"""The rule of the verdict without labels, fitted on the meta-set, and how well it predicts a corruption left out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sfod import sources_tables
from benchmarks.studies import Rows, Study
from pipelines.sfod.verdict.numbers import NUMBERS
from pipelines.sfod.verdict.rule import fit_rule, left_out_errors

Floats = NDArray[np.float64]

STUDY = Study(
    name="sfod-verdict",
    protocol_file="sfod_verdict.yaml",
    makers=(*sources_tables.STUDY.makers, "benchmarks/sfod/verdict/strip.py"),
    settings=sources_tables.STUDY.settings,
)


def missing(rows: Rows) -> list[str]:
    """Cells of the study without a result."""
    protocol = STUDY.protocol()
    runs = [f"strong-{method}-{setting}" for method in protocol["methods"] for setting in protocol["settings"]]
    wanted = [f"{each}-{name}" for name in protocol["corruptions"] for each in (*runs, "ordinary-mt-good")]
    keys = ("source", "method", "setting", "corruption")
    found = {"-".join(row[key] for key in keys) for row in rows}
    return [name for name in wanted if name not in found]


def differences(rows: Rows) -> tuple[Floats, Floats, list[str]]:
    """Differences of each kept teacher to the source: numbers ``(M, 6)``, AP50 ``(M,)`` in 0 to 1, and corruption."""
    found, gains, groups = [], [], []
    for row in rows:
        first, *teachers = row["candidates"]
        for each in teachers:
            found.append([_difference(each[name], first[name]) for name in NUMBERS])
            gains.append((each["ap50"] - first["ap50"]) / 100)
            groups.append(str(row["corruption"]))
    return np.array(found, np.float64).reshape(-1, len(NUMBERS)), np.array(gains), groups


def fitted() -> dict[str, Any]:
    """Fit the rule on all cells.

    Raises:
        LookupError: Cells are missing.
    """
    rows = STUDY.rows()
    if absent := missing(rows):
        raise LookupError(f"{STUDY.name}: {len(absent)} cells are missing, the first is {absent[0]}")
    found, gains, groups = differences(rows)
    rule = fit_rule(found, gains, groups)
    known = int(np.isfinite(found).all(axis=1).sum())
    about = {"study": STUDY.name, "protocol": STUDY.protocol_hash(), "teachers": len(gains), "with_all_numbers": known}
    return {**rule.to_record(), **about}


def rule_table() -> str:
    """Root mean square error in AP50 by corruption left out: of the rule, each number alone, and no prediction."""
    found, gains, groups = differences(STUDY.rows())
    corruptions: list[str] = STUDY.protocol()["corruptions"]
    penalty = fit_rule(found, gains, groups).penalty
    known = np.isfinite(found).all(axis=1)
    found, gains, names = found[known], gains[known], np.array(groups)[known]
    columns = {"the rule": list(range(len(NUMBERS))), **{f"{name} alone": [at] for at, name in enumerate(NUMBERS)}}
    head = [name.replace("_", " ") for name in corruptions]
    lines = [f"| error when left out, AP50 | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for name, places in columns.items():
        errors = left_out_errors(found[:, places], gains, names, penalty)
        lines.append(f"| {name.replace('_', ' ')} | {_by_group(errors, names, corruptions)} |")
    lines.append(f"| no difference | {_by_group(gains, names, corruptions)} |")
    return "\n".join(lines)


def _by_group(errors: Floats, names: NDArray[np.str_], groups: list[str]) -> str:
    return " | ".join(f"{100 * np.sqrt(np.mean(errors[names == group] ** 2)):.1f}" for group in groups)


def _difference(after: float | None, before: float | None) -> float:
    return float("nan") if after is None or before is None else after - before


TABLES: dict[str, Callable[[], str]] = {"sfod-verdict-rule": rule_table}
