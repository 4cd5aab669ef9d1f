"""Frames a second of the ultrasound task: ``make bench-ultrasound-fps``; ``ARGS=--check`` exits 1 at a missed target.

Networks: the published U-Net alone, behind the bedside screen with half of the frames rejected, and the thin U-Net, on
frames of 256 x 256 in parts of 16 as ``predict`` takes them, from grey values to the largest component; runs are
interleaved. Their weights are random: the time does not depend on them. End to end: JPEG cines of 640 x 480 in DICOM,
decoded in the child process, through the shipped pair to a drawn outline, a frame at a time, twice. As fast as it goes
gives the frames a second that can be kept up; there every frame waits for the one before, so that its latency would
measure the queue. At the pace of a camera, 25 a second, gives the latency: from when a frame comes to its outline. All
frames are synthetic. Streams take one thread of torch: single frames of 128 pixels are too small for two, which would
wait for each other and for the decoder. Written to ``results/ultrasound_fps.json``.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies import RESULTS, ROOT, write_result
from benchmarks.ultrasound.cines import SIZE, Grey, sweep_frames, write_jpeg_cine
from pipelines.ultrasound.config import BEDSIDE, UltrasoundConfig
from pipelines.ultrasound.predict import UltrasoundPredictor
from pipelines.ultrasound.result_files import outlined
from pipelines.ultrasound.screening.screen import Screen
from pipelines.ultrasound.segment import ModelMasks
from pipelines.ultrasound.weights.bundles import Frames, ScreenModel, SegmentModel, quicken
from vision_core.environment import usable_cores
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import THIN, Segmenter

_PAIR = ROOT / "demos" / "checkpoints" / "ultrasound-demo"
_SUBJECTS = (64, 65, 66, 67)
_SIDE, _AT_ONCE = 256, 16
_CAMERA, _WAITING = 25.0, 2  # frames a second of a camera, and the frames that may wait
_WINDOW, _STREAM_THREADS = 250, 1
_TARGETS = {
    "gate_ratio": 1.6,
    "thin_ratio": 4.5,
    "thin_frames_per_second": 30.0,
    "half_positive_frames_per_second": 25.0,
    "all_positive_frames_per_second": 25.0,
}
_MOST_P95_MS = 60.0


def time_networks(parts: int, rounds: int) -> dict[str, Any]:
    """Time the networks on ``parts`` of 16 frames, in interleaved rounds; frames a second, and ratios by round."""
    images = sweep_frames(_SUBJECTS[0], (_SIDE, _SIDE))[:_AT_ONCE]
    frames = Frames(images=images, white=[255.0] * len(images))
    names = [""] * len(images)
    standard, thin, screen = _segmenter(Segmenter()), _segmenter(THIN), ScreenModel(Screen(BEDSIDE).eval())
    quicken(screen)

    def gated() -> None:
        scores, _ = screen.with_features(frames)
        passed = np.flatnonzero(scores > np.median(scores))
        some = Frames(images=[images[each] for each in passed], white=[255.0] * len(passed))
        standard(some, names[: len(passed)])

    ways: dict[str, Callable[[], object]] = {
        "standard": lambda: standard(frames, names),
        "gate": gated,
        "thin": lambda: thin(frames, names),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            for _ in range(parts if number else 1):
                way()
            if number:  # the first is to warm up
                rates[name].append(parts * len(images) / (time.perf_counter() - began))
    found: dict[str, Any] = {f"{name}_frames_per_second": _rounded(each) for name, each in rates.items()}
    for name in ("gate", "thin"):
        ratios = [way / alone for way, alone in zip(rates[name], rates["standard"], strict=True)]
        found |= {f"{name}_ratio": _rounded(ratios), f"{name}_ratios": [round(each, 2) for each in ratios]}
    return found


def time_rate(predictor: UltrasoundPredictor, path: Path, length: int) -> dict[str, Any]:
    """Stream a cine to drawn outlines as fast as it goes: frames a second, and frames that a camera would lose."""
    ends, seen, positive = [], set(), 0
    began = time.perf_counter()
    for frame in predictor.stream(path):
        outlined(frame.image, frame.mask)
        ends.append(time.perf_counter())
        seen.add(frame.number)
        positive += frame.mask is not None and bool(frame.mask.any())
    steps = np.diff([began, *ends])
    window = min(_WINDOW, length)
    slowest = max(steps[start : start + window].sum() for start in range(0, length - window + 1, window))
    return {
        "frames": length,
        "positive": positive,
        "dropped": length - len(seen),
        "frames_per_second": round(length / (ends[-1] - began), 1),
        "frames_per_second_of_the_slowest_250": round(window / float(slowest), 1),
        "lost_by_a_camera_of_25": lost_frames((1000 * steps).tolist()),
    }


def time_latency(predictor: UltrasoundPredictor, path: Path) -> dict[str, float]:
    """Stream a cine at the pace of a camera: milliseconds from when a frame comes to its drawn outline."""
    latencies = []
    for frame in predictor.stream(path, _CAMERA):
        drawing = time.perf_counter()
        outlined(frame.image, frame.mask)
        latencies.append(1000 * (frame.seconds + time.perf_counter() - drawing))
    after = latencies[1:]  # the first has started the decoder
    return {f"p{share}_ms": round(float(np.percentile(after, share)), 1) for share in (50, 95, 99)}


def lost_frames(steps_ms: Sequence[float]) -> int:
    """Count the frames that a camera of 25 a second would lose where two may wait, if frames took so long."""
    apart = 1000 / _CAMERA
    free, lost = 0.0, 0
    for number, step in enumerate(steps_ms):
        comes = number * apart
        if free - comes > _WAITING * apart:
            lost += 1
        else:
            free = max(free, comes) + step
    return lost


def positive_and_empty(predictor: UltrasoundPredictor, folder: Path) -> tuple[list[Grey], list[Grey]]:
    """Make frames that the pair marks, and frames that it rejects."""
    images = [image for subject in _SUBJECTS for image in sweep_frames(subject)]
    write_jpeg_cine(path := folder / "all.dcm", images, len(images))
    found = predictor(path)
    positive = [image for image, kept in zip(images, found.present, strict=True) if kept]
    return positive, [image for image, kept in zip(images, found.accepted, strict=True) if not kept]


def main() -> int:
    """Measure all, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000, help="of each cine, streamed twice")
    parser.add_argument("--parts", type=int, default=8, help="of 16 frames, of each network in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    load = os.getloadavg()[0]
    found = time_networks(arguments.parts, arguments.rounds) | {"threads_of_a_stream": _STREAM_THREADS}
    torch.set_num_threads(_STREAM_THREADS)
    predictor = UltrasoundPredictor.from_checkpoint(
        _PAIR / "screen", "cpu", UltrasoundConfig(segment=_PAIR / "segment")
    )
    with tempfile.TemporaryDirectory(prefix="ultrasound-fps-") as temporary:
        positive, empty = positive_and_empty(predictor, Path(temporary))
        few = min(len(positive), len(empty))
        for name, images in {"half_positive": positive[:few] + empty[:few], "all_positive": positive}.items():
            write_jpeg_cine(path := Path(temporary) / f"{name}.dcm", images, arguments.frames)
            timed = time_rate(predictor, path, arguments.frames) | time_latency(predictor, path)
            found |= {f"{name}_{key}": value for key, value in timed.items()}
    predictor.close()
    told = {"synthetic": "frames of a phantom made by code", "cores": usable_cores(), "load_at_start": round(load, 1)}
    write_result(RESULTS / "ultrasound_fps.json", **told, size=list(SIZE), **found, command="make bench-ultrasound-fps")
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value}{_target(name)}")
    return int(arguments.check and bool(missed_targets(found)))


def missed_targets(found: dict[str, Any]) -> list[str]:
    """Name the figures that miss their target; a dropped frame is one."""
    cines = ("half_positive", "all_positive")
    return [
        *(name for name, least in _TARGETS.items() if found[name] < least),
        *(f"{name}_p95_ms" for name in cines if found[f"{name}_p95_ms"] > _MOST_P95_MS),
        *(f"{name}_dropped" for name in cines if found[f"{name}_dropped"]),
    ]


def _target(name: str) -> str:
    if name in _TARGETS:
        return f" (target ≥ {_TARGETS[name]:g})"
    if name.endswith("_p95_ms"):
        return f" (target ≤ {_MOST_P95_MS:g})"
    return " (target 0)" if name.endswith("_dropped") else ""


def _segmenter(settings: Segmenter) -> ModelMasks:
    torch.manual_seed(0)
    network = ResidualUNet(settings).eval()
    torch.nn.init.constant_(network.head.bias, -4)  # type: ignore[arg-type]  # no mask of noise to find a component in
    model = SegmentModel(network.requires_grad_(False), size_px=None)
    quicken(model)
    return ModelMasks(model)


def _rounded(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2)


if __name__ == "__main__":
    sys.exit(main())
