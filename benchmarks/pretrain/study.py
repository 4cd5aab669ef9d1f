"""The study behind the tables in docs/pretrain.md: five ways to pretrain on a small set of real images, three seeds.

``make bench-pretrain ARGS='--workers 2 --seeds 0,1'`` resumes per cell, each in a process and on a thread of its own;
``claims.py`` makes the tables. What it does is fixed in ``protocols/pretrain.yaml``. Same-subject: an illustration.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.pretrain.control import identity_scores
from benchmarks.pretrain.runs import (
    DATA,
    HELD_OUT,
    PROTOCOL,
    WORK,
    is_stopped,
    last_entropy,
    method_settings,
    prepare,
    run,
    score,
)
from benchmarks.pretrain.schedule import best_rate
from benchmarks.pretrain.tables import IDENTITY, SCRATCH, STUDY, UNTRAINED
from benchmarks.pretrain.untrained import untrained_entropy
from benchmarks.studies import RESULTS, write_result
from pipelines.pretrain.demo.small_real import NOTICE


def method_cell(method: str, seed: int) -> None:
    """Train both stages of a method on the 28 classes, and transfer to the ten in both ways."""
    settings = method_settings(method, best_rate()) | {"transfer.data.root": str(HELD_OUT)}
    out = run(WORK / f"{method}-{seed}", DATA, seed, settings)
    heated = score(out / "pretrain" / "model", DATA, "test")
    linear, full = (score(out / f"transfer-{part}" / "model", HELD_OUT, "test") for part in ("linear", "full"))
    _write(
        method,
        seed,
        settings=settings,
        **_tuned(out, DATA),
        heated_f1=heated.macro_f1,
        held_out_images=full.images,
        linear_f1=linear.macro_f1,
        full_f1=full.macro_f1,
        full_accuracy=full.accuracy,
        full_interval=full.interval,
    )


def scratch_cell(method: str, seed: int) -> None:
    """Train on the held-out classes from random weights, as long as a transfer takes."""
    settings = {key: value for key, value in method_settings("none", best_rate()).items() if key.startswith("data.")}
    kept = {**PROTOCOL["settings"], "optim.lr": PROTOCOL["settings"]["transfer.optim.lr"]}
    chosen = (
        "classifier",
        "averaging.last_epochs",
        "train.save_every",
        "optim.schedule",
        "optim.schedule_by",
        "optim.lr",
    )
    settings |= {key: kept[key] for key in chosen}
    settings |= {f"train.{key}": kept[f"transfer.{key}"] for key in ("epochs", "batch_size")}
    settings |= {"policy": "none", "then": [], "train.eval_every": 0, "train.drop_last": False}
    out = run(WORK / f"{method}-{seed}", HELD_OUT, seed, settings)
    found = score(out / "model", HELD_OUT, "test")
    _write(
        method,
        seed,
        settings=settings,
        held_out_images=found.images,
        full_f1=found.macro_f1,
        full_accuracy=found.accuracy,
        full_interval=found.interval,
    )


def input_cell(method: str, seed: int) -> None:
    """Train under a policy that sees so many pixels, at the published size of images and masks."""
    wanted = PROTOCOL["policy_input"]
    settings = method_settings("reinforce", best_rate()) | wanted["settings"] | wanted["methods"][method]
    out = run(WORK / f"{method}-{seed}", HELD_OUT, seed, settings)
    _write(method, seed, settings=settings, **_tuned(out, HELD_OUT))


def untrained_cell(method: str, seed: int) -> None:
    """Measure the masks of a policy that is never trained, which seed 0 of the study asked for."""
    settings = method_settings("reinforce", best_rate()) | {"then": ["finetune"]}
    _write(method, seed, settings=settings, policy_entropy=untrained_entropy(DATA, seed, settings))


def identity_cell(method: str, _seed: None) -> None:
    """Score by the file alone."""
    _write(method, None, **identity_scores(DATA))


def _cell(kind: Callable[..., None], method: str, seed: int | None) -> None:
    if not _path(method, seed).exists():
        kind(method, seed)


def _tuned(out: Path, data: Path) -> dict[str, object]:
    """Score the classifier of both stages; with what became of the policy that it was pretrained under."""
    found = score(out / "finetune" / "model", data, "test")
    return {
        "images": found.images,
        "macro_f1": found.macro_f1,
        "accuracy": found.accuracy,
        "interval": found.interval,
        "is_stopped": is_stopped(out / "pretrain"),
        "policy_entropy": last_entropy(out / "pretrain"),
    }


def _write(method: str, seed: int | None, **facts: object) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    write_result(
        _path(method, seed),
        study=STUDY.name,
        protocol=STUDY.protocol_hash(),
        method=method,
        seed=seed,
        data=NOTICE,
        **facts,
        processor_seconds=used.ru_utime + used.ru_stime,
        command="make bench-pretrain",
    )


def _path(method: str, seed: int | None) -> Path:
    return RESULTS / STUDY.name / (f"{method}.json" if seed is None else f"{method}-{seed}.json")


def main() -> int:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default=",".join(map(str, PROTOCOL["seeds"])))
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    prepare()
    print(f"learning rate {best_rate():g}, the best of {len(PROTOCOL['search']['optim.lr'])} tries on validation")
    _cell(identity_cell, IDENTITY, None)
    kinds = [(method_cell, method) for method in PROTOCOL["methods"]] + [(scratch_cell, SCRATCH)]
    kinds += [(untrained_cell, UNTRAINED)]
    cells = [(kind, method, seed) for seed in seeds for kind, method in kinds]
    cells += [(input_cell, method, seed) for seed in seeds for method in PROTOCOL["policy_input"]["methods"]]
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as workers:
        for future in [workers.submit(_cell, *cell) for cell in cells]:
            future.result()
    found = {f"{row['method']}-{row['seed']}": row.get("macro_f1", row.get("full_f1")) for row in STUDY.rows()}
    print(json.dumps({name: value and round(value, 1) for name, value in found.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
