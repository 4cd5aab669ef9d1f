"""Tables of the study of pretraining."""

from collections.abc import Callable, Sequence

from benchmarks.studies import Rows, Study, read_results, spread

SEARCH = "pretrain-schedule"
STUDY = Study(
    name="pretrain",
    protocol_file="pretrain.yaml",
    makers=(
        "pipelines/pretrain/demo/crops.py",
        "pipelines/pretrain/demo/small_real.py",
    ),
)
IDENTITY = "identity"
SCRATCH = "scratch"
UNTRAINED = "untrained"
METHODS = {
    "none": "no mask",
    "lr_x8.5": "no mask, learning rate × 8.5",
    "unlearned": "mask that is not learned",
    "released": "learned, released objective",
    "reinforce": "learned, REINFORCE",
}
INPUTS = {"reinforce_224": "224 px, as published", "reinforce_112": "112 px"}
LEARNED = ("released", "reinforce")
UNLEARNED_ENTROPY = "-0.063"  # of Beta(1.6, 1.6)
CONTROLS = ("none", "lr_x8.5", "unlearned")


def missing(rows: Rows) -> list[str]:
    """List the cells of the study without a result."""
    found = {(row["method"], row["seed"]) for row in rows}
    methods = (*METHODS, SCRATCH, UNTRAINED, *INPUTS)
    wanted = [(method, seed) for seed in STUDY.protocol()["seeds"] for method in methods]
    return [f"{method}-{seed}" for method, seed in [*wanted, (IDENTITY, None)] if (method, seed) not in found]


def scores_table() -> str:
    """Format mean and spread over seeds, on the classes of pretraining and the held-out ones."""
    rows = STUDY.rows()
    lines = [
        "| same-subject: an illustration; macro F1, % | seeds | fine-tuned | before it | held out, linear probe "
        "| held out, fine-tuned | entropy of a cell at the end | policy stopped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, name in METHODS.items():
        found = [row for row in rows if row["method"] == method]
        cells = [spread(_column(found, key)) for key in ("macro_f1", "heated_f1", "linear_f1", "full_f1")]
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} | {_policy(method, found)} |")
    found = [row for row in rows if row["method"] == UNTRAINED]
    entropies = spread(_column(found, "policy_entropy"), digits=3)
    lines.append(f"| policy at random weights, masks alone | {len(found)} | | | | | {entropies} | |")
    found = [row for row in rows if row["method"] == SCRATCH]
    lines.append(f"| random weights | {len(found)} | | | | {spread(_column(found, 'full_f1'))} | | |")
    return "\n".join(lines)


def paired_table() -> str:
    """Compare each learned policy with each control within a seed; tells in how many seeds it is ahead."""
    rows = {(row["method"], row["seed"]): row for row in STUDY.rows()}
    lines = [
        "| difference in macro F1 within a seed | fine-tuned | ahead in | held out, linear probe | ahead in "
        "| held out, fine-tuned | ahead in |",
        "|---|---|---|---|---|---|---|",
    ]
    for first in LEARNED:
        for second in CONTROLS:
            cells = []
            for key in ("macro_f1", "linear_f1", "full_f1"):
                found = differences(rows, first, second, key)
                cells += [spread(found, sign="+"), f"{sum(each > 0 for each in found)} of {len(found)}"]
            lines.append(f"| {METHODS[first]} − {METHODS[second]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(rows: dict[tuple[str, int], dict[str, float]], first: str, second: str, key: str) -> list[float]:
    """Subtract ``second`` from ``first`` in every seed that has both."""
    seeds = sorted(seed for method, seed in rows if method == first and (second, seed) in rows)
    return [rows[first, seed][key] - rows[second, seed][key] for seed in seeds]


def verdict() -> str:
    """Answer the question of the study in one sentence, as the files have it."""
    rows = {(row["method"], row["seed"]): row for row in STUDY.rows()}
    told = []
    for first in LEARNED:
        found = {second: differences(rows, first, second, "macro_f1") for second in CONTROLS}
        wanted = len(STUDY.protocol()["seeds"])
        if any(len(each) < wanted for each in found.values()):
            told.append(f"{METHODS[first]}: not finished")
            continue
        ahead = [METHODS[second] for second, each in found.items() if min(each) > 0]
        others = [METHODS[second] for second in CONTROLS if METHODS[second] not in ahead]
        shown = f"ahead in every seed of: {'; '.join(ahead)}" if ahead else "ahead of none in every seed"
        told.append(f"{METHODS[first]}: {shown}" + (f". Not shown against: {'; '.join(others)}" if others else ""))
    return "\n".join(f"* {line}." for line in told)


def interval_table() -> str:
    """Format how sure one seed is of its own number."""
    rows = {(row["method"], row["seed"]): row for row in STUDY.rows()}
    seeds = STUDY.protocol()["seeds"]
    lines = [
        f"| 95 % interval over test images | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        f"|---|{'---|' * len(seeds)}",
    ]
    for method, name in METHODS.items():
        found = [rows.get((method, seed)) for seed in seeds]
        cells = [f"{row['interval'][0]:.0f} to {row['interval'][1]:.0f}" if row else "n/a" for row in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def identity_table() -> str:
    """Format what the file alone scores, beside the networks' accuracy."""
    rows = STUDY.rows()
    lines = ["| same-subject: an illustration; accuracy, % | 28 classes | 10 held-out classes |", "|---|---|---|"]
    control = next((row for row in rows if row["method"] == IDENTITY), None)
    names = {
        "file": "the file, named by mean, spread and histogram",
        "guess": "the class, by one who knows the file and guesses",
        "concept": "the class, by mean, spread and histogram",
    }
    for key, name in names.items():
        cells = [f"{control[f'{part}_{key}']:.1f}" if control else "n/a" for part in ("seen", "held_out")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for method, name in METHODS.items():
        found = [row for row in rows if row["method"] == method]
        cells = [spread(_column(found, key)) for key in ("accuracy", "full_accuracy")]
        lines.append(f"| the class, by the network: {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def input_table() -> str:
    """Format what a policy that sees fewer pixels costs in accuracy, and what it saves."""
    rows = STUDY.rows()
    lines = [
        "| what the policy sees | seeds | macro F1, % | accuracy, % | processor seconds, both stages |",
        "|---|---|---|---|---|",
    ]
    for method, name in INPUTS.items():
        found = [row for row in rows if row["method"] == method]
        cells = [spread(_column(found, key)) for key in ("macro_f1", "accuracy")]
        seconds = spread(_column(found, "processor_seconds"), digits=0)
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)


def schedule_table() -> str:
    """Format the search of the learning rate."""
    rows = sorted(read_results(SEARCH), key=lambda row: float(row["settings"]["optim.lr"]))
    lines = ["| learning rate | macro F1 on validation, % |", "|---|---|"]
    return "\n".join([*lines, *(f"| {row['settings']['optim.lr']:g} | {row['val_f1']:.1f} |" for row in rows)])


def _policy(method: str, rows: Rows) -> str:
    """What became of the policy: two cells, empty where there is none."""
    if method not in LEARNED:
        return f"{UNLEARNED_ENTROPY} |" if method == "unlearned" else "|"
    entropies = [row["policy_entropy"] for row in rows if row["policy_entropy"] is not None]
    return f"{spread(entropies, digits=3)} | {sum(row['is_stopped'] for row in rows)} of {len(rows)}"


def _column(rows: Rows, key: str) -> Sequence[float]:
    return [row[key] for row in rows]


TABLES: dict[str, Callable[[], str]] = {
    "pretrain": scores_table,
    "pretrain-paired": paired_table,
    "pretrain-verdict": verdict,
    "pretrain-intervals": interval_table,
    "pretrain-identity": identity_table,
    "pretrain-policy-input": input_table,
    "pretrain-schedule": schedule_table,
}
