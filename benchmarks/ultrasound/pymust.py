"""Frames of an independent simulator, PyMUST, before the shipped pair: what its scope guard and its gate make of them.

``make bench-ultrasound-pymust`` makes the frames, goes on after a stop subject by subject, and writes
``results/ultrasound_pymust.json``. Fixed in ``protocols/ultrasound_pymust.yaml``. PyMUST is not installed by
``make setup``: ``pip install --no-deps --require-hashes -r requirements/pymust.txt``. All frames are synthetic.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.studies import RESULTS, ROOT, Study, write_result
from benchmarks.ultrasound.pymust_frames import Simulator
from pipelines.ultrasound.config import FrameLabel, Gate, UltrasoundData
from pipelines.ultrasound.data.lists import SPLITS_FILE, FrameList, read_lists
from pipelines.ultrasound.data.subjects import Splits, hash_keys
from pipelines.ultrasound.evaluation.rows import Models, gate_row, score_list, screen_row
from pipelines.ultrasound.evaluation.scores import by_subject
from pipelines.ultrasound.phantom.study import NOTICE
from pipelines.ultrasound.screening.calibration import chosen_threshold
from pipelines.ultrasound.screening.gate import accepted, count_frames
from pipelines.ultrasound.screening.scope_guard import guard_of
from pipelines.ultrasound.segment import open_masking
from pipelines.ultrasound.weights.bundles import ScreenModel, load_network
from vision_core.console import say
from vision_core.errors import MissingDependencyError
from vision_core.files import atomic_path
from vision_core.training.runtime import pick_device

_PHANTOM = ("anatomy", "imaging", "machines", "observers", "scene", "study")
STUDY = Study(
    name="ultrasound-pymust",
    protocol_file="ultrasound_pymust.yaml",
    makers=(
        *(f"pipelines/ultrasound/phantom/{name}.py" for name in _PHANTOM),
        "benchmarks/ultrasound/pymust_frames.py",
    ),
)
PAIR = ROOT / "demos" / "checkpoints" / "ultrasound-demo"
_LIST = "test"
_RULE: FrameLabel = "observer_majority"


def make_frames(folder: Path, protocol: Mapping[str, Any]) -> list[float]:
    """Write the subjects that are missing, a file each, then all of them as ``frames.h5`` with ``splits.json``.

    Returns:
        CPU seconds of each frame that was made.

    Raises:
        MissingDependencyError: Frames are missing, and PyMUST is not installed.
    """
    first, count = protocol["first_subject"], protocol["subjects"][_LIST]
    paths = {f"{number:04d}": folder / f"subject-{number:04d}.npz" for number in range(first, first + count)}
    left = {subject: path for subject, path in paths.items() if not path.exists()}
    simulator = Simulator(protocol["scatterers"], tuple(protocol["size_px"])) if left else None
    seconds: list[float] = []
    for subject, path in left.items():
        assert simulator is not None
        begun = time.process_time()
        frames = list(simulator.cine(int(subject), protocol["frames"]))
        seconds += [(time.process_time() - begun) / len(frames)] * len(frames)
        images, masks = np.stack([each.image for each in frames]), np.stack([each.masks for each in frames])
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, images=images, masks=masks)
        say(f"subject {subject}: {seconds[-1]:.2f} CPU seconds a frame")
    if left or not (folder / "frames.h5").exists():
        _join(folder, paths)
    return seconds


def judge(frames: FrameList, pair: Path = PAIR) -> dict[str, Any]:
    """Score the frames with a screen and a segmenter: what the guard calls outside, and the figures beside it."""
    device = pick_device("cpu")
    loaded, masking = load_network(pair / "screen", device, "screen"), open_masking(pair / "segment", device)
    assert isinstance(loaded.model, ScreenModel)
    threshold = chosen_threshold(loaded.card, Gate(), masking.identity).value
    models = Models(screen=loaded.model, masking=masking, guard=guard_of(loaded.card))
    found = score_list(frames, _RULE, models, "judge", with_distances=False)
    assert found.outside is not None and found.subjects is not None
    passed = accepted(found.scores, threshold) & (found.areas > 0)
    shares = by_subject(found.outside.astype(np.float64), found.subjects)
    screen, gate = screen_row("screen", found, threshold), gate_row("gate", found, threshold)
    counts = {"all frames": count_frames(passed, found.present)}
    counts["as predict decides"] = count_frames(passed & ~found.outside, found.present)
    return {
        "frames": len(found.present),
        "present": int(found.present.sum()),
        "outside": int(found.outside.sum()),
        "outside_by_subject": [round(float(each), 3) for each in shares],
        "threshold": threshold,
        "screen": _rounded(screen.metrics),
        "gate": _rounded(gate.metrics),
        "intervals": {name: [round(each, 4) for each in ends] for name, ends in gate.intervals.items()},
        "decisions": {name: vars(each) for name, each in counts.items()},
    }


def _join(folder: Path, paths: Mapping[str, Path]) -> None:
    names: list[str] = []
    with atomic_path(folder / "frames.h5") as partial, h5py.File(partial, "w") as file:
        for subject, path in paths.items():
            with np.load(path, allow_pickle=False) as stored:
                for number, (image, masks) in enumerate(zip(stored["images"], stored["masks"], strict=True)):
                    names.append(f"frame_{subject}_{number:03d}")
                    file[names[-1]] = image
                    for observer, mask in enumerate(masks):
                        file[f"label_{subject}_{number:03d}_{observer:02d}"] = mask.astype(np.uint8)
    Splits(seed=0, lists={_LIST: tuple(paths)}, keys_sha256=hash_keys(names)).write(folder / SPLITS_FILE)


def _rounded(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in metrics.items()}


def main() -> int:
    """Make the frames that are missing, score them, write and print the figures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder, protocol = STUDY.work_folder() / "data", STUDY.protocol()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        seconds = make_frames(folder, protocol)
    except MissingDependencyError as error:
        print(error.lines(), file=sys.stderr)
        return error.exit_code
    found = judge(read_lists(UltrasoundData(root=folder / "frames.h5"), [_LIST])[_LIST])
    if seconds:
        found["cpu_seconds_of_a_frame"] = round(float(np.mean(seconds)), 2)
    told = {"study": STUDY.name, "protocol": STUDY.protocol_hash(), "synthetic": f"{NOTICE}, imaged by PyMUST"}
    write_result(RESULTS / "ultrasound_pymust.json", **told, **found, command=f"make bench-{STUDY.name}")
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
