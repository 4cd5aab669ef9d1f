"""The search of the learning rate for the study of pretraining: the baseline alone, one seed, the validation list.

``make bench-pretrain-schedule`` resumes per value; the protocol is ``protocols/pretrain.yaml``.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.pretrain.runs import DATA, HELD_OUT, PROTOCOL, WORK, method_settings, prepare, run, score
from benchmarks.pretrain.tables import SEARCH, STUDY
from benchmarks.studies import RESULTS, read_results, write_result


def try_rate(rate: float) -> None:
    """Train both stages of the baseline at a learning rate, and score them on the validation list."""
    path = RESULTS / SEARCH / f"lr{rate:g}.json"
    if path.exists():
        return
    search = PROTOCOL["search"]
    settings = method_settings(search["method"], rate) | {"then": ["finetune"], "transfer.data.root": str(HELD_OUT)}
    out = run(WORK / f"search-lr{rate:g}", DATA, search["seed"], settings)
    found = score(out / "finetune" / "model", DATA, "val")
    write_result(
        path,
        study=SEARCH,
        protocol=STUDY.protocol_hash(),
        method=search["method"],
        seed=search["seed"],
        settings=settings,
        val_f1=found.macro_f1,
        images=found.images,
        command="make bench-pretrain-schedule",
    )


def best_rate() -> float:
    """Choose the rate with the best score.

    Raises:
        RuntimeError: A value was not tried yet.
    """
    tried = {row["settings"]["optim.lr"]: row["val_f1"] for row in read_results(SEARCH)}
    if absent := set(PROTOCOL["search"]["optim.lr"]) - set(tried):
        raise RuntimeError(f"Learning rates not tried yet: {sorted(absent)}. Run make bench-pretrain-schedule.")
    return float(max(tried, key=lambda rate: tried[rate]))


def main() -> int:
    """Try what is missing and say which is best."""
    prepare()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as workers:
        list(workers.map(try_rate, PROTOCOL["search"]["optim.lr"]))
    print(f"tries: {len(PROTOCOL['search']['optim.lr'])}; best learning rate on validation: {best_rate():g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
