"""Tables of the study ``sfod-trees-more``, beside the rows of ``sfod-trees``."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.sfod import tables
from benchmarks.sfod.tables import paired_rows, score_rows
from benchmarks.studies import Rows, Study, read_results

Setting = dict[str, float]

STUDY = Study(
    name="sfod-trees-more",
    protocol_file="sfod_trees_more.yaml",
    makers=tables.STUDY.makers,
    settings=tables.STUDY.settings,
)
SEARCH = "sfod-trees-more-search"
NAMES = {
    "fixed_pl": "labels written once by the source model",
    "wscol_core": "WSCoL",
    "wsco_full": "WSCo",
    "wsco_full+lpld": "WSCo and LPLD",
}
_SEARCHED = ("optim.lr", "pseudo_labels.threshold")


def missing(rows: Rows) -> list[str]:
    """List the cells of the study without a result."""
    protocol = STUDY.protocol()
    found = {(row["method"], row["target"], row["seed"]) for row in rows}
    cells = [(method, target, seed) for method in NAMES for target in protocol["targets"] for seed in protocol["seeds"]]
    return [f"{method}-{target}-{seed}" for method, target, seed in cells if (method, target, seed) not in found]


def name_of(setting: Setting) -> str:
    """Name the file of a point of the search."""
    return "-".join(f"{key.rpartition('.')[2]}{value:g}" for key, value in setting.items())


def gains(method: str) -> list[tuple[Setting, dict[str, float]]]:
    """List the points of a method's search with their gain over the source on every shift, best mean first.

    Raises:
        LookupError: Runs of the search are missing.
    """
    protocol = STUDY.protocol()["search"]
    groups: dict[tuple[float, ...], dict[str, float]] = {}
    for row in read_results(SEARCH):
        if row["method"] == method:
            point = tuple(row["settings"][key] for key in _SEARCHED)
            groups.setdefault(point, {})[row["shift"]] = row["ap50"] - row["source_ap50"]
    num_points = len(protocol["optim.lr"]) * len(protocol["pseudo_labels.threshold"])
    if len(groups) < num_points or any(set(each) != set(protocol["shifts"]) for each in groups.values()):
        raise LookupError(f"{SEARCH}: runs of {method} are missing")
    ordered = sorted(groups.items(), key=lambda item: -statistics.fmean(item[1].values()))
    return [(dict(zip(_SEARCHED, point, strict=True)), found) for point, found in ordered]


def best_setting(method: str) -> Setting:
    """Choose a method's setting by the search; other methods of contrast take that of ``wscol_core``."""
    searched: list[str] = STUDY.protocol()["search"]["methods"]
    return gains(method if method in searched else "wscol_core")[0][0]


def more_table() -> str:
    """Format mean and spread over seeds, under the rows that they are compared with."""
    return score_rows({**{name: tables.NAMES[name] for name in ("source", "mt", "lpld")}, **NAMES}, _rows())


def more_paired_table() -> str:
    """Format the differences within a seed."""
    pairs = [("fixed_pl", "mt"), ("wscol_core", "mt"), ("wsco_full", "mt"), ("wsco_full+lpld", "mt")]
    pairs += [("wsco_full+lpld", "lpld"), ("wsco_full", "wscol_core")]
    return paired_rows(pairs, {**tables.NAMES, **NAMES}, _rows())


def search_table() -> str:
    """Format the search on other shifts: gain by method and setting."""
    shifts: list[str] = STUDY.protocol()["search"]["shifts"]
    head = ["method", "learning rate", "threshold", *(shift.replace("_", " ") for shift in shifts), "mean gain"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method in STUDY.protocol()["search"]["methods"]:
        for setting, found in gains(method):
            cells = [f"{setting[key]:g}" for key in _SEARCHED] + [f"{found[shift]:+.1f}" for shift in shifts]
            lines.append(f"| {NAMES[method]} | {' | '.join(cells)} | {statistics.fmean(found.values()):+.1f} |")
    return "\n".join(lines)


def _rows() -> list[dict[str, Any]]:
    return [*tables.STUDY.rows(), *STUDY.rows()]


TABLES: dict[str, Callable[[], str]] = {
    "sfod-trees-more": more_table,
    "sfod-trees-more-paired": more_paired_table,
    "sfod-trees-more-search": search_table,
}
