"""Tables of the study of whole slides."""

from collections.abc import Callable, Sequence

from benchmarks.studies import Rows, Study, spread

STUDY = Study(
    name="wsi-slides",
    protocol_file="wsi_slides.yaml",
    makers=(
        "pipelines/wsi/demo/demo_data.py",
        "pipelines/wsi/demo/alteration.py",
        "pipelines/wsi/demo/blocks.py",
        "pipelines/wsi/demo/composing.py",
        "pipelines/wsi/demo/nuclei.py",
        "pipelines/wsi/demo/pictures.py",
        "pipelines/wsi/demo/stains.py",
    ),
    settings=("configs/wsi/demo.yaml",),
)
CONTROL = "colour"
NETWORKS = {"abmil": "ABMIL", "dsmil": "DSMIL", "transmil": "TransMIL"}
METHODS = {"plain": "plain", "mhim_v1": "MHIM v1", "mhim_v2": "MHIM v2"}


def missing(rows: Rows) -> list[str]:
    """List the cells of the study without a result."""
    protocol = STUDY.protocol()
    found = {(row["network"], row["method"], row["seed"]) for row in rows}
    wanted = [(network, method, seed) for network in NETWORKS for method in METHODS for seed in protocol["seeds"]]
    cells = ["-".join(map(str, cell)) for cell in wanted if cell not in found]
    return cells if any(row["method"] == CONTROL for row in rows) else [*cells, CONTROL]


def area_table() -> str:
    """Format area, its spread over seeds, seconds and memory, by network and method."""
    rows = STUDY.rows()
    lines = ["| network | method | AUC, % | CPU seconds a fold | peak memory, MiB |", "|---|---|---|---|---|"]
    for network, title in NETWORKS.items():
        for method, name in METHODS.items():
            found = [row for row in rows if (row["network"], row["method"]) == (network, method)]
            areas, seconds, memory = (_column(found, key) for key in ("auc", "cpu_seconds_per_fold", "peak_mib"))
            cells = [spread(areas), spread(seconds), spread(memory, digits=0)]
            lines.append(f"| {title} | {name} | {' | '.join(cells)} |")
    colour = [row["auc"] for row in rows if row["method"] == CONTROL]
    lines.append(f"| none | colour alone, a control | {spread(colour)} | | |")
    return "\n".join(lines)


def paired_table() -> str:
    """Format the differences within a seed: what masking adds to each network."""
    areas = {(row["network"], row["method"], row["seed"]): row["auc"] for row in STUDY.rows()}
    seeds = sorted({seed for *_, seed in areas if seed is not None})
    lines = ["| difference in AUC within a seed | MHIM v1 − plain | MHIM v2 − plain |", "|---|---|---|"]
    for network, title in NETWORKS.items():
        cells = [
            spread(
                [
                    areas[network, method, seed] - areas[network, "plain", seed]
                    for seed in seeds
                    if {(network, method, seed), (network, "plain", seed)} <= areas.keys()
                ],
                sign="+",
            )
            for method in ("mhim_v1", "mhim_v2")
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _column(rows: Rows, key: str) -> Sequence[float]:
    return [row[key] for row in rows]


TABLES: dict[str, Callable[[], str]] = {"wsi-slides": area_table, "wsi-slides-paired": paired_table}
