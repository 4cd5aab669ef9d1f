"""The phantom study: subjects with a machine, an anatomy and a sweep each, written in the published HDF5 layout."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.subjects import Splits, hash_keys
from pipelines.ultrasound.phantom.anatomy import Anatomy, anatomy_of
from pipelines.ultrasound.phantom.imaging import Scatterers, compressed, envelope, raster, scan_converted
from pipelines.ultrasound.phantom.machines import OTHER, TRAINING, Machine, drawn
from pipelines.ultrasound.phantom.observers import observed, observers_of
from pipelines.ultrasound.phantom.scene import Pose, Scene, tissue_in
from vision_core.files import atomic_path
from vision_core.images.drawing import write_png
from vision_core.optional import require
from vision_core.randomness import key

NOTICE = "synthetic: a phantom made by code, no patient"
LISTS: Mapping[str, int] = {"train": 40, "val": 20, "calibration": 20, "test": 30, "other_machine": 30}
FRAMES = 32
# More subjects with fewer frames each: a screen learns anatomy from subjects, and neighbours of a sweep are alike.
DEMO_LISTS: Mapping[str, int] = {"train": 40, "val": 12, "calibration": 10, "test": 16}
_DEMO_FRAMES = 10
_SHOWN = 2  # subjects of the demo whose frames are written as pictures too, for predict
_LIFTED_SHARE = 0.3  # of subjects; the probe comes off at an end of their sweep
_GAP_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class PhantomFrame:
    """A frame of the phantom.

    Attributes:
        image: ``(H, W)`` uint8.
        masks: ``(3, H, W)``, one of each observer.
        pose: Where the probe was.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    pose: Pose


class Phantom:
    """A synthetic subject.

    Args:
        seed: From which all of it is drawn.
        preset: Machine around which its own is drawn.
        size: ``(height, width)`` of its frames in pixels.
    """

    def __init__(self, seed: int, preset: Machine = TRAINING, size: tuple[int, int] = (128, 128)) -> None:
        self.seed = seed
        self.machine = drawn(preset, np.random.default_rng(key("machine", seed)))
        self.anatomy = anatomy_of(seed)
        self.raster = raster(self.machine, size)
        self._observers = observers_of(seed)
        self._scatterers = Scatterers(self.machine, key("scatterers", seed))

    def frame(self, pose: Pose, number: int = 0) -> PhantomFrame:
        """Image the plane of a pose; ``number`` draws the electronic noise."""
        scene = Scene(machine=self.machine, anatomy=self.anatomy, pose=pose)
        tissue = tissue_in(scene)
        field = self._scatterers.at(pose.z, (pose.samples, pose.beams))
        signal = envelope(self.machine, tissue, field, key("noise", self.seed, number))
        image = scan_converted(self.machine, compressed(self.machine, signal), self.raster)
        masks = observed(scene, tissue, self.raster, self._observers)
        return PhantomFrame(image=image, masks=masks, pose=pose)

    def cine(self, count: int = FRAMES) -> Iterator[PhantomFrame]:
        """Sweep the probe through the organ and out again at both ends."""
        for number, pose in enumerate(sweep(self.machine, self.anatomy, count, self.seed)):
            yield self.frame(pose, number)


def sweep(machine: Machine, anatomy: Anatomy, count: int, seed: int) -> list[Pose]:
    """Draw the poses of a cine: through the organ, with breathing, tremor, gaps at the face, perhaps lifted off."""
    rng = np.random.default_rng(key("sweep", seed))
    length = anatomy.organ.radii[2]
    start, stop = -length * rng.uniform(1.25, 1.9), length * rng.uniform(1.25, 1.9)
    if rng.random() < 0.5:
        start, stop = stop, start
    share = np.linspace(0, 1, count)
    warped = share + rng.uniform(-0.08, 0.08) * np.sin(2 * np.pi * share)  # a hand is not even
    places = start + (stop - start) * warped + rng.normal(0, 0.15, count)
    breath = rng.uniform(2, 4) * np.sin(2 * np.pi * (share * rng.uniform(1.5, 3) + rng.random()))
    rocking = rng.uniform(2, 6) * np.sin(2 * np.pi * (share * rng.uniform(0.5, 1.5) + rng.random()))
    step_mm = machine.depth_mm / len(machine.ranges)
    contact = _gaps(rng)
    lifted = int(rng.integers(1, 4)) if rng.random() < _LIFTED_SHARE else 0
    return [
        Pose(
            z=float(places[number]),
            samples=round(breath[number] / step_mm),
            beams=round(rocking[number]),
            contact=contact,
            is_lifted=number < lifted,
        )
        for number in range(count)
    ]


def write_study(
    folder: Path, *, size: tuple[int, int] = (128, 128), frames: int = FRAMES, lists: Mapping[str, int] = LISTS
) -> str:
    """Write ``phantom.h5``, ``splits.json`` and ``phantom.json``; returns a description.

    Args:
        folder: Output folder.
        size: ``(height, width)`` of the frames in pixels.
        frames: Frames of each subject.
        lists: Number of subjects of each list; those of ``other_machine`` are imaged by another machine.
    """
    h5py = require("h5py", "the phantom study is written by it")
    members: dict[str, tuple[str, ...]] = {}
    keys: list[str] = []
    facts: dict[str, object] = {}
    with atomic_path(folder / "phantom.h5") as partial, h5py.File(partial, "w") as file:
        for name, count in lists.items():
            first = sum(map(len, members.values()))
            members[name] = tuple(f"{number:04d}" for number in range(first, first + count))
            for subject in members[name]:
                phantom = Phantom(int(subject), OTHER if name == "other_machine" else TRAINING, size)
                keys += _write_subject(file, subject, phantom, frames)
                facts[subject] = {"spacing_mm": phantom.raster.spacing_mm, "machine": asdict(phantom.machine)}
    Splits(seed=0, lists=members, keys_sha256=hash_keys(keys)).write(folder / "splits.json")
    with atomic_path(folder / "phantom.json") as partial:
        partial.write_text(json.dumps({"notice": NOTICE, "subjects": facts}, indent=1) + "\n", encoding="utf-8")
    return f"Phantom study ({NOTICE}): {len(facts)} subjects with {frames} frames each and three simulated observers."


def write_demo(folder: Path) -> str:
    """Write a small study, and as ``frames/`` some frames of its test list to predict; returns a description."""
    told = write_study(folder, frames=_DEMO_FRAMES, lists=DEMO_LISTS)
    first = sum(DEMO_LISTS.values()) - DEMO_LISTS["test"]
    for subject in range(first, first + _SHOWN):
        for number, frame in enumerate(Phantom(subject).cine(_DEMO_FRAMES)):
            path = folder / "frames" / f"{subject:04d}_{number:03d}.png"
            write_png(path, np.repeat(frame.image[..., None], 3, axis=2))
    with atomic_path(folder / "ATTRIBUTION.txt") as partial:
        partial.write_text(f"All frames and masks: {NOTICE} (pipelines/ultrasound/phantom).\n", encoding="utf-8")
    return told


def _write_subject(file: object, subject: str, phantom: Phantom, frames: int) -> list[str]:
    keys = []
    for number, frame in enumerate(phantom.cine(frames)):
        key = f"{subject}_{number:03d}"
        keys.append(f"frame_{key}")
        stored = {f"frame_{key}": frame.image}
        stored |= {f"label_{key}_{each:02d}": mask.astype(np.uint8) for each, mask in enumerate(frame.masks)}
        for name, values in stored.items():
            file.create_dataset(name, data=values, compression="gzip", compression_opts=1)  # type: ignore[attr-defined]
    return keys


def _gaps(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    if rng.random() >= _GAP_SHARE:
        return ()
    side = rng.choice([rng.uniform(0.05, 0.3), rng.uniform(0.7, 0.95)])
    return ((float(side), rng.uniform(0.06, 0.16), rng.uniform(8, 20)),)
