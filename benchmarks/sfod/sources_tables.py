"""Tables of the study ``sfod-sources``: what source training gives, and what adaptation adds to it."""

import math
import statistics
from collections.abc import Callable, Sequence

from scipy import stats

from benchmarks.sfod import tables
from benchmarks.studies import Rows, Study, read_results, spread

Setting = dict[str, float]

STUDY = Study(
    name="sfod-sources",
    protocol_file="sfod_sources.yaml",
    makers=tables.STUDY.makers,
    settings=("configs/sfod/demo_ordinary.yaml", "configs/sfod/demo_strong.yaml"),
)
SEARCH, LABELS = "sfod-sources-search", "sfod-sources-labels"
NAMES = {"ordinary": "ordinary source", "strong": "strong source"}
METHODS = {"mt": "Mean Teacher", "lpld": "LPLD"}
TITLES = {"clean": "clear day", "night": "night", "fog": "fog"}
_TIE = 1.0  # points of AP50


def cells() -> list[str]:
    """Name all cells: every source on every target, and adapted to those that are adapted to."""
    protocol = STUDY.protocol()
    alone = [f"{source}-{target}" for source in NAMES for target in ("clean", *protocol["targets"])]
    methods = [f"{source}+{method}" for source in NAMES for method in METHODS]
    adapted = [f"{method}-{target}" for method in methods for target in protocol["targets"]]
    return [f"{each}-{seed}" for seed in protocol["seeds"] for each in (*alone, *adapted)]


def missing(rows: Rows) -> list[str]:
    """List the cells of the study without a result."""
    found = {f"{row['model']}-{row['target']}-{row['seed']}" for row in rows}
    return [name for name in cells() if name not in found]


def best_epochs(source: str) -> int:
    """Choose the epochs of a source by the search.

    Raises:
        LookupError: Runs of the search are missing.
    """
    return fewest_epochs(SEARCH, source, STUDY.protocol()["search"]["train.epochs"])


def fewest_epochs(search: str, source: str, tried: Sequence[int]) -> int:
    """Choose the fewest epochs within a point of AP50 of the best of a search; raises as ``best_epochs``."""
    scores: dict[int, float] = {row["epochs"]: row["ap50"] for row in read_results(search) if row["source"] == source}
    if len(scores) < len(tried):
        raise LookupError(f"{search}: runs of the {source} source are missing")
    return min(epochs for epochs, ap50 in scores.items() if ap50 >= max(scores.values()) - _TIE)


def label_gains() -> list[tuple[Setting, dict[str, float]]]:
    """List the points of the search of labels an image with their gain on every shift, best mean first.

    Raises:
        LookupError: Runs of the search are missing.
    """
    protocol = STUDY.protocol()["labels"]
    searched = ("pseudo_labels.per_image", "optim.lr")
    groups: dict[tuple[float, ...], dict[str, float]] = {}
    for row in read_results(LABELS):
        point = tuple(row["settings"][key] for key in searched)
        groups.setdefault(point, {})[row["shift"]] = row["ap50"] - row["source_ap50"]
    if len(groups) < math.prod(len(protocol[key]) for key in searched) or any(
        set(each) != set(protocol["shifts"]) for each in groups.values()
    ):
        raise LookupError(f"{LABELS}: runs are missing")
    ordered = sorted(groups.items(), key=lambda item: -statistics.fmean(item[1].values()))
    return [(dict(zip(searched, point, strict=True)), gains) for point, gains in ordered]


def scores_table() -> str:
    """Format mean and spread over seeds, by model and target."""
    rows = STUDY.rows()
    models = {source: name for source, name in NAMES.items()}
    for source, name in NAMES.items():
        models |= {f"{source}+{method}": f"{called}, from the {name}" for method, called in METHODS.items()}
    lines = [f"| VOC-2007 AP50, % | {' | '.join(TITLES.values())} |", f"|---|{'---|' * len(TITLES)}"]
    for model, name in models.items():
        found = [spread(list(_scores(rows, model, target).values())) for target in TITLES]
        lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join(lines)


def paired_table() -> str:
    """Format the differences within a seed with their 95 % t interval."""
    rows = STUDY.rows()
    pairs = [("ordinary+mt", "ordinary"), ("ordinary+lpld", "ordinary"), ("ordinary+lpld", "ordinary+mt")]
    pairs += [("strong", "ordinary"), ("strong+mt", "strong"), ("strong+lpld", "strong"), ("strong", "ordinary+lpld")]
    shown = [target for target in TITLES if target != "clean"]
    lines = [
        f"| difference within a seed, 95 % interval | {' | '.join(TITLES[each] for each in shown)} |",
        f"|---|{'---|' * len(shown)}",
    ]
    for first, second in pairs:
        found = [interval(differences(rows, first, second, target)) for target in shown]
        lines.append(f"| {_called(first)} − {_called(second)} | {' | '.join(found)} |")
    return "\n".join(lines)


def search_table() -> str:
    """Format both searches: AP50 on source_val by epochs, and the gain by labels an image and rate."""
    shifts: list[str] = STUDY.protocol()["labels"]["shifts"]
    lines = ["| source | epochs | AP50 on source_val |", "|---|---|---|"]
    for row in sorted(read_results(SEARCH), key=lambda each: (each["source"], each["epochs"])):
        lines.append(f"| {NAMES[row['source']]} | {row['epochs']} | {row['ap50']:.1f} |")
    head = ["labels an image", "learning rate", *(shift.replace("_", " ") for shift in shifts), "mean gain"]
    lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for setting, gains in label_gains():
        told = [f"{value:g}" for value in setting.values()] + [f"{gains[shift]:+.1f}" for shift in shifts]
        lines.append(f"| {' | '.join(told)} | {statistics.fmean(gains.values()):+.1f} |")
    return "\n".join(lines)


def differences(rows: Rows, first: str, second: str, target: str) -> list[float]:
    """Subtract two models' scores within each seed that has both."""
    one, other = _scores(rows, first, target), _scores(rows, second, target)
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def interval(values: Sequence[float]) -> str:
    """Format the mean and its 95 % t interval."""
    if len(values) < 2:
        return "n/a"
    mean, half = statistics.fmean(values), 0.0
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def _scores(rows: Rows, model: str, target: str) -> dict[int, float]:
    return {row["seed"]: row["ap50"] for row in rows if (row["model"], row["target"]) == (model, target)}


def _called(model: str) -> str:
    source, _, method = model.partition("+")
    return f"{METHODS[method]} from {source}" if method else NAMES[source]


TABLES: dict[str, Callable[[], str]] = {
    "sfod-sources": scores_table,
    "sfod-sources-paired": paired_table,
    "sfod-sources-search": search_table,
}
