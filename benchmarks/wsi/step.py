"""What a training step of MHIM-MIL costs beside one of the network alone, in time and memory.

A step is all that training does with a bag: teacher, masking, student, losses, backward pass, Adam, and the teacher's
move. Bags are random, of 1024 features. Every measurement is a process of its own on one thread: CPU seconds, the
median of its steps after one to warm up, and the peak of its memory above what it had before model and bag. The
processes of a row take turns; a ratio is the median over the rounds.

v1 has the masks published for CAMELYON-16, at their start; v2 masks 3 % and keeps 80 % of the others as tiles. Bounds
are those of the task, else the ratio of the reference implementation (another machine) and a fifth.
torchmil's networks run beside ours where that package can be imported. ``make bench-wsi-step``.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vision_core.environment import peak_resident_mib

FEATURES, CLASSES = 1024, 2
SIZES = (1000, 10_000, 50_000)
NETWORKS = ("abmil", "dsmil", "transmil")
METHODS = ("plain", "mhim_v1", "mhim_v2")
PEER = "torchmil"
SLACK = 1.2
# Seconds and MB of the reference implementation: plain, v1, v2 at each of SIZES.
REFERENCE = {
    "abmil": (((0.054, 0.067, 0.089), (0.381, 0.561, 0.831), (2.33, 3.43, 4.47)),
              ((210, 203, 243), (503, 372, 530), (982, 966, 1569))),
    "dsmil": (((0.061, 0.091, 0.137), (0.676, 0.805, 1.034), (3.90, 4.66, 6.68)),
              ((221, 219, 251), (480, 390, 577), (1256, 1096, 1810))),
    "transmil": (((1.07, 1.06, 1.52), (7.18, 4.40, 9.39), (36.3, 21.9, 48.9)),
                 ((602, 493, 632), (1818, 1170, 1660), (5628, 2998, 5316))),
}  # fmt: skip
# Bounds on v1 that the task sets, by network, size, and 0 for seconds or 1 for memory.
TARGETS = {
    ("transmil", 10_000, 0): 0.8,
    ("transmil", 50_000, 0): 0.8,
    ("transmil", 10_000, 1): 0.7,
    ("transmil", 50_000, 1): 0.6,
    **{("abmil", size, 0): 1.6 for size in SIZES},
}
UNITS = ("time", "memory")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a step: CPU seconds, and MB at the peak."""

    seconds: float
    megabytes: float


def main() -> int:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bound is missed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES, help="tiles in a bag")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--steps", type=int, default=3, help="steps that a process measures")
    parser.add_argument("--cell", nargs=3, metavar=("NETWORK", "METHOD", "SIZE"), help="measure one, in this process")
    arguments = parser.parse_args()
    if arguments.cell:
        network, method, size = arguments.cell
        print(json.dumps(vars(measure(network, method, int(size), arguments.steps))))
        return 0
    methods = [*METHODS, *([PEER] if importlib.util.find_spec(PEER) else [])]
    print(f"peer: {PEER} {version(PEER)}" if PEER in methods else f"peer: {PEER} is not installed")
    missed = 0
    for network in arguments.networks:
        for size in arguments.sizes:
            rounds = [
                {method: in_process(network, method, size, arguments.steps) for method in methods}
                for _ in range(arguments.rounds)
            ]
            missed += tell(network, size, rounds)
    print(f"wsi_step: {missed} bounds missed (target <= 0)")
    return int(arguments.check and missed > 0)


def in_process(network: str, method: str, size: int, steps: int) -> Cost:
    """Measure the cost of a step in a process of its own."""
    words = ["-m", "benchmarks.wsi.step", "--steps", str(steps), "--cell", network, method, str(size)]
    run = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
    return Cost(**json.loads(run.stdout.splitlines()[-1]))


def tell(network: str, size: int, rounds: list[dict[str, Cost]]) -> int:
    """Print a row for each method; returns how many bounds are missed."""
    missed = 0
    for method in rounds[0]:
        seconds, megabytes = _medians([each[method] for each in rounds])
        line = f"{network:8} {size:6} {method:8} {seconds:8.3f} s {megabytes:7.0f} MB"
        if method != "plain":
            ratios = [_ratios(each[method], each["plain"]) for each in rounds]
            for unit, name in enumerate(UNITS):
                values = [each[unit] for each in ratios]
                ratio, bound = statistics.median(values), _bound(network, method, size, unit)
                told = f" (<= {bound:.2f}{'' if ratio <= bound else ' MISSED'})" if bound else ""
                missed += bool(bound and ratio > bound)
                line += f"   {name} {ratio:.2f}, {min(values):.2f} to {max(values):.2f}{told}"
        print(line, flush=True)
    return missed


def measure(network: str, method: str, size: int, steps: int) -> Cost:
    """Measure the cost of a step in this process."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    step_of = _peer_step if method == PEER else _own_step
    _import_for(method)
    before = _peak_megabytes(reset=True)
    step = step_of(network, method, torch.randn(size, FEATURES))
    step()
    seconds = []
    for _ in range(steps):
        begun = time.process_time()
        step()
        seconds.append(time.process_time() - begun)
    return Cost(seconds=statistics.median(seconds), megabytes=_peak_megabytes() - before)


def _import_for(method: str) -> None:
    """What is loaded belongs to no step."""
    import torch

    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # the first optimizer of a process loads the compiler
    if method == PEER:
        import torchmil.models  # type: ignore[import-not-found, unused-ignore] # noqa: F401
    else:
        import pipelines.wsi.learner  # noqa: F401


def _own_step(network: str, method: str, bag: "object") -> Callable[[], None]:
    import torch

    from pipelines.wsi.config import WsiConfig
    from pipelines.wsi.features.bags import Bag
    from pipelines.wsi.learner import make_learner
    from vision_core.config.loading import from_mapping

    masks = {"random": 0.0, "low": 0.8, "high": 0.03} if network == "transmil" else {}
    keys = {
        "method": method,
        "model": {"name": network},
        "mhim_v1": {"masking": masks, "teacher": {"mode": "train"}},
        "mhim_v2": {"masking": {"high": 0.03}, "recycling": {"keep": 0.8}, "teacher": {"mode": "train"}},
    }
    learner = make_learner(from_mapping(WsiConfig, keys, [], "benchmark"), FEATURES, CLASSES, total=1000).train()
    optimizer = torch.optim.Adam([each for each in learner.parameters() if each.requires_grad], 2e-4, weight_decay=1e-5)
    assert isinstance(bag, torch.Tensor)
    batch = Bag(features=bag, label=torch.tensor(1), name="bag")

    def step() -> None:
        torch.stack(list(learner(batch).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        learner.after_step(0)

    return step


def _peer_step(network: str, _method: str, bag: "object") -> Callable[[], None]:
    import torch
    from torchmil.models import ABMIL, DSMIL, TransMIL  # type: ignore[import-not-found, unused-ignore]

    assert isinstance(bag, torch.Tensor)
    layer = torch.nn.Sequential(torch.nn.Linear(FEATURES, 512), torch.nn.ReLU(), torch.nn.Dropout(0.25))
    match network:
        case "abmil":
            model = ABMIL(in_shape=(FEATURES,), att_dim=128, feat_ext=layer)
        case "dsmil":
            model = DSMIL(in_shape=(FEATURES,), att_dim=128, nonlinear_q=True, nonlinear_v=True, feat_ext=layer)
        case _:
            model = TransMIL(in_shape=(FEATURES,), att_dim=512, n_heads=8, n_landmarks=256, feat_ext=layer)
    optimizer = torch.optim.Adam(model.parameters(), 2e-4, weight_decay=1e-5)
    inputs, label = bag[None], torch.ones(1)

    def step() -> None:
        _, losses = model.compute_loss(label, inputs)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _peak_megabytes(*, reset: bool = False) -> float:
    """The largest resident set of this process so far; ``reset`` makes now the beginning, where the kernel lets it."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return peak_resident_mib()


def _medians(costs: list[Cost]) -> tuple[float, float]:
    return statistics.median(each.seconds for each in costs), statistics.median(each.megabytes for each in costs)


def _ratios(cost: Cost, plain: Cost) -> tuple[float, float]:
    return cost.seconds / plain.seconds, cost.megabytes / plain.megabytes


def _bound(network: str, method: str, size: int, unit: int) -> float | None:
    if method == PEER:
        return None
    published = REFERENCE[network][unit][SIZES.index(size)]
    of_reference = SLACK * published[METHODS.index(method)] / published[0]
    return min(of_reference, TARGETS.get((network, size, unit), of_reference)) if method == "mhim_v1" else of_reference


if __name__ == "__main__":
    sys.exit(main())
