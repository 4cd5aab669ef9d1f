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
Candidate = dict[str, Any]  # the source or a teacher of a cell
_COLLAPSED = 0.8  # of the source's AP50

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


def alarm_table() -> str:
    """What each sign of the alarm would have done: collapses it leaves little of, and gains it would have cut short.

    A run collapses where its last teacher has lost a fifth of the source's AP50, and gains where it is above the
    source. With an alarm the teacher before it counts.
    """
    rows = STUDY.rows()
    lines = ["| alarm by | collapses after which 80 % are left | gaining runs with an alarm |", "|---|---|---|"]
    for name, is_sign in ALARMS.items():
        kept, cut = [], []
        for source, *teachers in (row["candidates"] for row in rows):
            fired = next((at for at, each in enumerate(teachers) if is_sign(source, each)), None)
            left = teachers[-1] if fired is None else [source, *teachers][fired]
            if teachers[-1]["ap50"] < _COLLAPSED * source["ap50"]:
                kept.append(left["ap50"] >= _COLLAPSED * source["ap50"])
            elif teachers[-1]["ap50"] > source["ap50"]:
                cut.append(fired is not None)
        lines.append(f"| {name} | {sum(kept)} of {len(kept)} | {sum(cut)} of {len(cut)} |")
    return "\n".join(lines)


def _fewer(source: Candidate, teacher: Candidate) -> bool:
    return sum(teacher["boxes_per_image"]) < sum(source["boxes_per_image"]) / 3


def _more(source: Candidate, teacher: Candidate) -> bool:
    return sum(teacher["boxes_per_image"]) > 3 * sum(source["boxes_per_image"])


def _fewer_or_unsteady(fall: float) -> Callable[[Candidate, Candidate], bool]:
    def is_sign(source: Candidate, teacher: Candidate) -> bool:
        return _fewer(source, teacher) or _difference(teacher["mirror"], source["mirror"]) < -fall

    return is_sign


ALARMS: dict[str, Callable[[Candidate, Candidate], bool]] = {
    "nothing": lambda *_: False,
    "fewer than a third of the boxes": _fewer,
    "that, or more than three times": lambda *pair: _fewer(*pair) or _more(*pair),
    **{
        f"the first, or agreement with the mirrored image lower by {fall:g}": _fewer_or_unsteady(fall)
        for fall in (0.05, 0.1, 0.15, 0.2)
    },
}


def _by_group(errors: Floats, names: NDArray[np.str_], groups: list[str]) -> str:
    return " | ".join(f"{100 * np.sqrt(np.mean(errors[names == group] ** 2)):.1f}" for group in groups)


def _difference(after: float | None, before: float | None) -> float:
    return float("nan") if after is None or before is None else after - before


TABLES: dict[str, Callable[[], str]] = {"sfod-verdict-rule": rule_table, "sfod-verdict-alarm": alarm_table}
