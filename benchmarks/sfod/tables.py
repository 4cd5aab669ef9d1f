"""Tables of the studies of source-free adaptation."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.studies import Rows, Study, read_results, spread

STUDY = Study(
    name="sfod-trees",
    protocol_file="sfod_trees.yaml",
    makers=("pipelines/sfod/demo/demo_data.py", "pipelines/sfod/demo/shifts.py", "pipelines/sfod/demo/tiles.py"),
    settings=("configs/sfod/demo_source.yaml",),
)
NAMES = {
    "source": "source only",
    "source-strong": "source only, strong augmentation and weight averaging",
    "bn": "BN statistics",
    "mt": "Mean Teacher",
    "lpld": "LPLD",
}
TITLES = {"night": "night", "fog": "fog", "osbs": "OSBS", "soap": "SOAP"}


def missing(rows: Rows) -> list[str]:
    """List the cells of the study without a result."""
    protocol = STUDY.protocol()
    found = {(row["method"], row["target"], row["seed"]) for row in rows}
    return [
        f"{method}-{target}-{seed}"
        for method in NAMES
        for target in protocol["targets"]
        for seed in protocol["seeds"]
        if (method, target, seed) not in found
    ]


def trees_table() -> str:
    """Format mean and spread over seeds, by method and target."""
    return score_rows(NAMES, STUDY.rows())


def score_rows(names: Mapping[str, str], rows: Rows) -> str:
    """Format mean and spread over seeds, a line for each method of ``names``."""
    boxes = {row["target"]: row["boxes"] for row in rows}
    head = [f"{title} ({boxes.get(target, 0)} boxes)" for target, title in TITLES.items()]
    lines = [f"| VOC-2007 AP50, % | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for method, name in names.items():
        cells = [
            spread([row["ap50"] for row in rows if (row["method"], row["target"]) == (method, target)])
            for target in TITLES
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paired_table() -> str:
    """Format the differences within a seed, by target: what each step adds."""
    pairs = [("mt", "source"), ("mt", "source-strong"), ("lpld", "source"), ("lpld", "mt")]
    return paired_rows(pairs, NAMES, STUDY.rows())


def paired_rows(pairs: Sequence[tuple[str, str]], names: Mapping[str, str], rows: Rows) -> str:
    """Format the differences within a seed, a line for each pair of methods."""
    scores = {(row["method"], row["target"], row["seed"]): row["ap50"] for row in rows}
    seeds = sorted({seed for _, _, seed in scores})
    lines = [f"| difference within a seed | {' | '.join(TITLES.values())} |", f"|---|{'---|' * len(TITLES)}"]
    for first, second in pairs:
        cells = []
        for target in TITLES:
            found = [
                scores[first, target, seed] - scores[second, target, seed]
                for seed in seeds
                if {(first, target, seed), (second, target, seed)} <= scores.keys()
            ]
            cells.append(spread(found, sign="+"))
        lines.append(f"| {names[first]} − {names[second]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval_table() -> str:
    """Format the bootstrap interval of every seed on the targets that count."""
    rows = {(row["method"], row["target"], row["seed"]): row for row in STUDY.rows()}
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
    """Format the search on other shifts: gain of the mean teacher by setting."""
    groups: dict[str, dict[str, float]] = {}
    for row in read_results("sfod-schedule"):
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
