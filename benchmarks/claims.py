"""Write the tables of README and docs from the result files, or check that they follow from them.

``make bench-claims`` writes; ``ARGS=--check`` exits 1 when a table or a claim does not follow from the files.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from typing import Any

import yaml

from benchmarks.trees import ROOT, protocol_hash

RESULTS = ROOT / "benchmarks" / "results"
PROTOCOL = ROOT / "benchmarks" / "protocols" / "sfod_trees.yaml"
PAGES = [ROOT / "README.md", ROOT / "docs" / "sfod.md"]
NAMES = {
    "source": "source only",
    "source-strong": "source only, strong augmentation and weight averaging",
    "bn": "BN statistics",
    "mt": "Mean Teacher",
    "lpld": "LPLD",
}
TITLES = {"night": "night", "fog": "fog", "osbs": "OSBS", "soap": "SOAP"}

Rows = list[dict[str, Any]]


def read_study(name: str) -> Rows:
    """All results of a study."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RESULTS / name).glob("*.json"))]


def trees_table() -> str:
    """Mean and spread over seeds, by method and target."""
    rows = read_study("sfod-trees")
    boxes = {row["target"]: row["boxes"] for row in rows}
    head = [f"{title} ({boxes.get(target, 0)} boxes)" for target, title in TITLES.items()]
    lines = [f"| VOC-2007 AP50, % | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for method, name in NAMES.items():
        cells = [
            _spread([row["ap50"] for row in rows if (row["method"], row["target"]) == (method, target)])
            for target in TITLES
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paired_table() -> str:
    """Differences within a seed, by target: what each step adds."""
    rows = {(row["method"], row["target"], row["seed"]): row["ap50"] for row in read_study("sfod-trees")}
    seeds = sorted({seed for _, _, seed in rows})
    pairs = [("mt", "source"), ("mt", "source-strong"), ("lpld", "source"), ("lpld", "mt")]
    lines = [f"| difference within a seed | {' | '.join(TITLES.values())} |", f"|---|{'---|' * len(TITLES)}"]
    for first, second in pairs:
        cells = []
        for target in TITLES:
            found = [
                rows[first, target, seed] - rows[second, target, seed]
                for seed in seeds
                if {(first, target, seed), (second, target, seed)} <= rows.keys()
            ]
            cells.append(_spread(found, sign="+"))
        lines.append(f"| {NAMES[first]} − {NAMES[second]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval_table() -> str:
    """The bootstrap interval of every seed on the targets that count."""
    rows = {(row["method"], row["target"], row["seed"]): row for row in read_study("sfod-trees")}
    seeds = sorted({seed for _, _, seed in rows})
    lines = [
        f"| 95 % interval over tiles | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        f"|---|{'---|' * len(seeds)}",
    ]
    for target in ("night", "fog"):
        for method in ("source", "mt", "lpld"):
            found = [rows.get((method, target, seed)) for seed in seeds]
            cells = [f"{row['interval'][0]:.0f} to {row['interval'][1]:.0f}" if row else "" for row in found]
            lines.append(f"| {NAMES[method]}, {target} | {' | '.join(cells)} |")
    return "\n".join(lines)


def schedule_table() -> str:
    """The search on other shifts: gain of the mean teacher by setting."""
    groups: dict[str, dict[str, float]] = {}
    for row in read_study("sfod-schedule"):
        settings = row["settings"]
        name = f"{settings['optim.lr']:g} | {settings['pseudo_labels.threshold']:g}"
        groups.setdefault(name, {})[row["shift"]] = row["ap50"] - row["source_ap50"]
    ordered = sorted(groups.items(), key=lambda item: -statistics.fmean(item[1].values()))
    lines = ["| learning rate | threshold | noise | blur | colour cast | mean gain |", "|---|---|---|---|---|---|"]
    for name, gains in ordered:
        cells = [f"{gains[shift]:+.1f}" for shift in ("noise", "blur", "colour_cast")]
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.fmean(gains.values()):+.1f} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "sfod-trees": trees_table,
    "sfod-trees-paired": paired_table,
    "sfod-trees-intervals": interval_table,
    "sfod-schedule": schedule_table,
}


def problems() -> list[str]:
    """What does not follow from the files."""
    protocol = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    rows = read_study("sfod-trees")
    wanted = {
        (method, target, seed) for method in NAMES for target in protocol["targets"] for seed in protocol["seeds"]
    }
    missing = wanted - {(row["method"], row["target"], row["seed"]) for row in rows}
    found = [f"sfod-trees: {len(missing)} of {len(wanted)} cells are missing"] if missing else []
    current = protocol_hash(PROTOCOL)
    stale = [row for row in rows if row["protocol"] != current]
    if stale:
        found.append(f"sfod-trees: {len(stale)} results are of another protocol than {current}")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            found.append(f"{page.relative_to(ROOT)}: a table does not follow from the result files")
    return found


def filled(text: str) -> str:
    """A page with its tables made anew, between ``<!-- name -->`` and ``<!-- end -->``."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if pattern.search(text):
            table = make()
            text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def _spread(values: list[float], sign: str = "") -> str:
    if not values:
        return "n/a"
    mean = format(statistics.fmean(values), f"{sign}.1f")
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something does not follow")
    arguments = parser.parse_args()
    if not arguments.check:
        for page in PAGES:
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    found = problems()
    print("\n".join(found) or "claims: every table follows from its files")
    return int(bool(found) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
