"""Tables of the study of the open-vocabulary ladder on composed scenes."""

import statistics
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from benchmarks.studies import Rows, Study, spread

STUDY = Study(
    name="ovd-scenes",
    protocol_file="ovd_scenes.yaml",
    makers=(
        "vision_core/detection/cut_outs.py",
        "vision_core/detection/scenes.py",
        "benchmarks/ovd/scenes/data.py",
        "benchmarks/ovd/scenes/check.py",
        "benchmarks/ovd/scenes/measures.py",
    ),
    settings=("vision_core/detection/stamps.yaml",),
)
NAMES = {
    "base_only": "base boxes alone",
    "vl_plm": "VL-PLM",
    "weak_strong": "+ weak and strong view",
    "stratified": "+ assignment in strata",
    "mining": "+ mining",
    "marvel": "+ reweighting = MarvelOVD",
    "oracle": "oracle: novel boxes labelled",
}
TITLES = {"clothes": "clothing", "photographs": "photographs"}
SHORT = {**{row: name.removeprefix("+ ") for row, name in NAMES.items()}, "marvel": "MarvelOVD", "oracle": "oracle"}
PAIRS = (
    ("vl_plm", "base_only"),
    ("weak_strong", "vl_plm"),
    ("stratified", "weak_strong"),
    ("mining", "stratified"),
    ("marvel", "mining"),
    ("marvel", "vl_plm"),
    ("marvel", "base_only"),
    ("oracle", "marvel"),
)
CHECK_LIMIT = 10  # AP50 of the detector of saturation and edge density, from which on a world is not used
_CHECK = "check"
Key = tuple[str, str, str, int]


def cells() -> list[Key]:
    """List world, choice, row and seed of all cells, seed 0 of every row first."""
    protocol = STUDY.protocol()
    return [
        (world, choice, row, seed)
        for seed in protocol["seeds"]
        for world, settings in protocol["worlds"].items()
        for row in settings["rows"]
        for choice in settings["choices"]
    ]


def missing(rows: Rows) -> list[str]:
    """Cells and checks of the study without a result."""
    found = {_key(row) for row in rows if row["row"] != _CHECK}
    checked = {row["world"] for row in rows if row["row"] == _CHECK}
    wanted = ["-".join(map(str, cell)) for cell in cells() if cell not in found]
    return [*wanted, *(f"{world}-check" for world in STUDY.protocol()["worlds"] if world not in checked)]


def ladder_table(world: str) -> str:
    """Mean and spread over choices and seeds of each row."""
    rows = [row for row in STUDY.rows() if row["world"] == world and row["row"] != _CHECK]
    lines = [
        "| COCO AP50, % (synthetic scenes) | novel | base | all | candidates: precision | recall | false boxes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in STUDY.protocol()["worlds"][world]["rows"]:
        own = [row for row in rows if row["row"] == name]
        scores = [spread(_present(row["ap50"][group] for row in own)) for group in ("novel", "base", "all")]
        rates = [spread(_present(row["candidates"][rate] for row in own)) for rate in ("precision", "recall")]
        false = spread(_present(row["false_boxes"] for row in own), digits=2)
        lines.append(f"| {NAMES[name]} | {' | '.join([*scores, *rates, false])} |")
    return "\n".join(lines)


def paired_table(world: str) -> str:
    """Differences within a choice and seed, with 95 % intervals over resampled tests and seeds."""
    rows = {_key(row): row for row in STUDY.rows() if row["world"] == world and row["row"] != _CHECK}
    lines = ["| difference within a choice and seed | novel | base |", "|---|---|---|"]
    known = STUDY.protocol()["worlds"][world]["rows"]
    for first, second in PAIRS:
        if first in known and second in known:
            told = [_told(paired(rows, first, second, group)) for group in ("novel", "base")]
            lines.append(f"| {SHORT[first]} − {SHORT[second]} | {told[0]} | {told[1]} |")
    return "\n".join(lines)


def paired(
    rows: dict[Key, dict[str, object]], first: str, second: str, group: str
) -> tuple[float, float, float] | None:
    """Compute the mean difference of two rows and its 95 % interval; None without a pair.

    A resample draws the test, the same for both rows, and seeds within each choice; the choices are fixed.
    """
    pairs: dict[str, list[tuple[float, np.ndarray]]] = {}
    for (world, choice, row, seed), one in rows.items():
        other = rows.get((world, choice, second, seed))
        if row == first and other is not None:
            means = one["ap50"][group] - other["ap50"][group]  # type: ignore[index]
            draws = np.subtract(one["resampled"][group], other["resampled"][group])  # type: ignore[index]
            pairs.setdefault(choice, []).append((means, draws))
    if not pairs:
        return None
    generator = np.random.default_rng(0)
    count = len(next(iter(pairs.values()))[0][1])
    values = [
        statistics.fmean(
            statistics.fmean(found[place][1][draw] for place in generator.integers(0, len(found), len(found)))
            for found in pairs.values()
        )
        for draw in range(count)
    ]
    low, high = np.percentile(values, [2.5, 97.5])
    mean = statistics.fmean(statistics.fmean(each for each, _ in found) for found in pairs.values())
    return mean, float(low), float(high)


def checks_table() -> str:
    """What a detector of saturation and edge density finds, and how far added names move the scores of others."""
    rows = STUDY.rows()
    lines = ["| | clothing | photographs |", "|---|---|---|"]
    checks = {row["world"]: f"{row['ap50']:.1f}" for row in rows if row["row"] == _CHECK}
    lines.append(f"| AP50 of saturation and edge density alone (limit {CHECK_LIMIT}) | {_by_world(checks)} |")
    moved = {
        title: {world: spread(_moves(rows, world, name), digits=3) for world in TITLES}
        for title, name in (
            ("median (limit 0.02)", "median"),
            ("95th percentile (limit 0.1)", "p95"),
            ("median for the name that moves most", "worst_median"),
            ("95th percentile for the name that moves most", "worst_p95"),
        )
    }
    lines += [f"| move of a score by an added name, {title} | {_by_world(each)} |" for title, each in moved.items()]
    return "\n".join(lines)


def _moves(rows: Rows, world: str, name: str) -> list[float]:
    return _present(row["drift"][name] for row in rows if row["world"] == world and "drift" in row)


def _by_world(values: dict[str, str]) -> str:
    return " | ".join(values.get(world, "n/a") for world in TITLES)


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _told(found: Sequence[float] | None) -> str:
    return "n/a" if found is None else f"{found[0]:+.1f} ({found[1]:+.1f} to {found[2]:+.1f})"


def _key(row: dict[str, object]) -> Key:
    return str(row["world"]), str(row["choice"]), str(row["row"]), int(row["seed"])  # type: ignore[call-overload]


TABLES: dict[str, Callable[[], str]] = {
    "ovd-scenes-clothes": lambda: ladder_table("clothes"),
    "ovd-scenes-clothes-paired": lambda: paired_table("clothes"),
    "ovd-scenes-photographs": lambda: ladder_table("photographs"),
    "ovd-scenes-photographs-paired": lambda: paired_table("photographs"),
    "ovd-scenes-checks": checks_table,
}
