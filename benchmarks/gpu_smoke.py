"""What one GPU makes of this package, in at most five minutes: its tests, a step of each method, features, predict.

``make bench-gpu-smoke``, on a machine with a GPU, runs ``make test-gpu``'s tests, then measures a training step of each
method at its published size, the encoding of tiles and the prediction of an input: seconds (the median of the steps
after two to warm up), the peak of the GPU's memory, how often the host waits for the GPU, and the share of the time in
which no kernel runs. The result is written to ``benchmarks/results/gpu-smoke/``. ``--device cpu --tiny`` tries the
script itself: it measures seconds alone, at small sizes, and writes nothing. It has not been run on a GPU yet.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.sfod.step import make_detector, thresholds
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.views import Batch as ImageBatch
from pipelines.pretrain.learner import Goal
from pipelines.pretrain.learner import make_learner as make_classifier_learner
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learners.adaptation import adaptation_learner
from pipelines.sfod.learners.source import SourceLearner
from pipelines.sfod.learners.statistics import StatisticsLearner
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.bags import Bag
from pipelines.wsi.learner import make_learner as make_bag_learner
from vision_core.backbones.networks import build_backbone
from vision_core.config import loading as configs
from vision_core.detection.model.detector import Targets
from vision_core.detection.views import Batch
from vision_core.environment import quiet_libraries
from vision_core.errors import UserError
from vision_core.slides.encoders.networks import build_encoder
from vision_core.slides.settings import EncoderSettings
from vision_core.training.learner import Learner
from vision_core.training.loaders import to_device
from vision_core.training.optimizers import make_optimizers
from vision_core.training.runtime import Runtime, launch, machine, tune_convolutions

RESULTS = Path(__file__).parent / "results" / "gpu-smoke"
WARM_UP, STEPS = 2, 5
_WAIT = "synchronizing CUDA operation"

Action = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the inputs; the defaults are the published ones."""

    image: tuple[int, int] = (600, 1200)
    regions: int = 512
    tiles: int = 10_000
    features: int = 1024
    pretrain_images: int = 64
    pretrain_px: int = 224
    classifier: str = "resnet50"
    encoded: int = 256


TINY = Sizes(image=(128, 160), regions=32, tiles=300, features=64, pretrain_images=2, pretrain_px=64,
             classifier="resnet10t", encoded=4)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one action: seconds, and on a GPU the peak of its memory, the host's waits, the share of time it idles."""

    name: str
    seconds: float
    peak_mib: float | None = None
    waits: int | None = None
    idle: float | None = None

    def line(self) -> str:
        """Format one row of the printed table."""
        if self.peak_mib is None or self.idle is None:
            return f"{self.name:28} {self.seconds:9.4f} s"
        return (
            f"{self.name:28} {self.seconds:9.4f} s {self.peak_mib:9.0f} MiB {self.waits:5} waits {self.idle:6.0%} idle"
        )


def actions(runtime: Runtime, sizes: Sizes) -> Iterator[tuple[str, Action]]:
    """List everything to measure, by name; each is made when it is asked for, and freed before the next."""
    for make in (_detection, _bags, _images, _inference):
        yield from make(runtime, sizes)


def _detection(runtime: Runtime, sizes: Sizes) -> Iterator[tuple[str, Action]]:
    view = torch.randint(0, 256, (3, *sizes.image), dtype=torch.uint8)
    box = torch.tensor([[8.0, 8.0, sizes.image[1] / 2, sizes.image[0] / 2]])
    batch = Batch(weak=[view], strong=[255 - view], indices=[0], targets=[Targets(boxes=box, labels=torch.tensor([1]))])
    detector = make_detector(sizes.regions)
    sure = thresholds(detector, view, 20)
    for method in ("mt", "lpld", "fixed_pl", "wscol_core", "wsco_full", "wsco_full+lpld"):
        config = configs.replace(SfodConfig(), {"method": method, **sure})
        learner = adaptation_learner(config, make_detector(sizes.regions), num_images=1000)
        yield f"sfod {method}", _step(learner, config, batch, runtime)
    yield "sfod source", _step(SourceLearner(make_detector(sizes.regions)), SfodConfig(), batch, runtime)
    adapting = make_detector(sizes.regions)
    for name, buffer in adapting.named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(1.5)
    yield "sfod bn", _step(StatisticsLearner(adapting), SfodConfig(), batch, runtime)


def _bags(runtime: Runtime, sizes: Sizes) -> Iterator[tuple[str, Action]]:
    bag = Bag(features=torch.randn(sizes.tiles, sizes.features), label=torch.tensor(1), name="bag", key=1)
    for network in ("abmil", "dsmil", "transmil"):
        for method in ("plain", "mhim_v1", "mhim_v2"):
            config = configs.load(WsiConfig, None, [f"method={method}", f"model.name={network}"])
            learner = make_bag_learner(config, sizes.features, 2, 1000)
            yield f"wsi {method} {network}", _step(learner, config, bag, runtime)


def _images(runtime: Runtime, sizes: Sizes) -> Iterator[tuple[str, Action]]:
    count, px = sizes.pretrain_images, sizes.pretrain_px
    images = torch.randint(0, 256, (count, 3, px, px), dtype=torch.uint8)
    batch = ImageBatch(images=images, labels=torch.arange(count) % 3, indices=torch.arange(count))
    goal = Goal(backbone=sizes.classifier, classes=("a", "b", "c"))
    for policy in ("none", "released", "reinforce"):
        words = [f"policy={policy}", "then=[]", f"data.image_px={px}", f"mask.grid={px // 8}"]
        config = configs.load(PretrainConfig, None, words)
        learner = make_classifier_learner(config, build_backbone(sizes.classifier, 3), goal)
        yield f"pretrain {policy}", _step(learner, config, batch, runtime)


def _inference(runtime: Runtime, sizes: Sizes) -> Iterator[tuple[str, Action]]:
    encoder = build_encoder(EncoderSettings(name="lite0", input_px=224), runtime.device)
    tiles = torch.randint(0, 256, (sizes.encoded, 224, 224, 3), dtype=torch.uint8)
    yield f"features of {sizes.encoded} tiles", lambda: encoder.encode(tiles).cpu()
    detector = make_detector(sizes.regions).freeze().to(runtime.device)
    view = torch.randint(0, 256, (3, *sizes.image), dtype=torch.uint8)
    yield "predict an image", lambda: _without_gradient(lambda: detector.detect(detector.features([view]))[0].boxes)
    config = configs.load(WsiConfig, None, ["model.name=transmil"])
    network = make_bag_learner(config, sizes.features, 2, 1000).product().eval().to(runtime.device)
    features = torch.randn(sizes.tiles, sizes.features)
    yield "predict a slide", lambda: _without_gradient(lambda: network.probabilities(features.to(runtime.device)))


def _without_gradient(action: Callable[[], Tensor]) -> Tensor:
    with torch.inference_mode():
        return action().cpu()


def _step(learner: Learner, config: SfodConfig | WsiConfig | PretrainConfig, batch: object, runtime: Runtime) -> Action:
    """A training step as ``fit`` takes it, from a batch in the host's memory."""
    learner.to(runtime.device).train()
    tune_convolutions(has_fixed_sizes=learner.has_fixed_sizes)
    optimizers = make_optimizers(learner.trained(config.optim))

    def step() -> None:
        with runtime.autocast():
            losses = learner(to_device(batch, runtime.device))
        if losses:
            torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
            torch.stack([loss.float() for loss in losses.values()]).sum().backward()
            for each in optimizers:
                each.torch.step()
                each.torch.zero_grad(set_to_none=True)
            learner.after_step(learner.step + 1)
        learner.step += 1

    return step


def measure(name: str, action: Action, device: torch.device) -> Measured:
    """Take an action some times."""
    is_gpu = device.type == "cuda"
    for _ in range(WARM_UP if is_gpu else 1):
        action()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [_seconds(action, device) for _ in range(STEPS if is_gpu else 1)]
    middle = statistics.median(seconds)
    if not is_gpu:
        return Measured(name=name, seconds=middle)
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    return Measured(name=name, seconds=middle, peak_mib=peak, waits=_waits(action), idle=_idle(action, device))


def _seconds(action: Action, device: torch.device) -> float:
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _waits(action: Action) -> int:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            action()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum(_WAIT in str(each.message) for each in told)


def _idle(action: Action, device: torch.device) -> float:
    """The share of an action's time without a kernel; kernels of several streams could overlap, ours has one."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        seconds = _seconds(action, device)
    busy: float = sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6
    return max(0.0, 1 - busy / seconds)


def run_tests() -> dict[str, object]:
    """Run ``make test-gpu``; returns whether it passed, its last line, and its seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
    return {"passed": done.returncode == 0, "told": last, "seconds": round(time.perf_counter() - started, 1)}


def main() -> int:
    """Measure, print, and on a GPU write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=("off", "bf16", "fp16"), default="off")
    parser.add_argument("--tiny", action="store_true", help="small inputs, to try the script")
    parser.add_argument("--only", default="", help="measure what has this in its name; runs no tests, writes nothing")
    arguments = parser.parse_args()
    quiet_libraries()
    try:
        runtime = launch(arguments.device, arguments.precision)
    except UserError as error:
        print(error.lines(), file=sys.stderr)
        return error.exit_code
    is_gpu = runtime.device.type == "cuda"
    is_whole = is_gpu and not (arguments.tiny or arguments.only)
    tests = run_tests() if is_whole else None
    if tests:
        print(f"make test-gpu: {tests['told']}")
    found = []
    for name, action in actions(runtime, TINY if arguments.tiny else Sizes()):
        if arguments.only in name:
            found.append(measure(name, action, runtime.device))
            print(found[-1].line(), flush=True)
        del action
        if is_gpu:
            torch.cuda.empty_cache()
    if tests is not None:
        card = torch.cuda.get_device_name(runtime.device)
        result = {"card": card, "precision": arguments.precision, "machine": machine(), "tests": tests,
                  "measured": [asdict(each) for each in found]}  # fmt: skip
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{card.replace(' ', '-').lower()}-{arguments.precision}.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"Written: {path}")
    return 0 if tests is None or tests["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
