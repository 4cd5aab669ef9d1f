"""Table of the control of the study of slides: networks that were trained on instead of masked."""

from benchmarks.studies import Rows, Study, spread
from benchmarks.wsi import tables

STUDY = Study(
    name="wsi-longer",
    protocol_file="wsi_longer.yaml",
    makers=tables.STUDY.makers,
    settings=("benchmarks/protocols/wsi_slides.yaml", *tables.STUDY.settings),
)
PROTOCOL = STUDY.protocol()


def missing(rows: Rows) -> list[str]:
    """List the cells of the study without a result."""
    found = {(row["network"], row["seed"]) for row in rows}
    return [
        f"{name}-{seed}" for name in PROTOCOL["networks"] for seed in PROTOCOL["seeds"] if (name, seed) not in found
    ]


def table() -> str:
    """Format the areas of the networks trained on, and what MHIM differs from them by within a seed."""
    longer = {(row["network"], row["seed"]): row["auc"] for row in STUDY.rows()}
    areas = {(row["network"], row["method"], row["seed"]): row["auc"] for row in tables.STUDY.rows()}
    lines = ["| network | trained on, AUC, % | MHIM v1 − trained on | MHIM v2 − trained on |", "|---|---|---|---|"]
    for network in PROTOCOL["networks"]:
        of_seed = {seed: area for (name, seed), area in longer.items() if name == network}
        gains = [
            spread(
                [areas[key] - area for seed, area in of_seed.items() if (key := (network, each, seed)) in areas], "+"
            )
            for each in ("mhim_v1", "mhim_v2")
        ]
        lines.append(f"| {tables.NETWORKS[network]} | {spread(list(of_seed.values()))} | {' | '.join(gains)} |")
    return "\n".join(lines)


TABLES = {"wsi-longer": table}
