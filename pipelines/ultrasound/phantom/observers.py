"""Observers of the phantom: each has a bias, moves the contour smoothly, and sees the organ's ends sooner or later.

Displacements grow where the contour lies deep, in shadow, or along the beams. They are waves around the outline and
along the sweep: never noise of single pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.phantom.anatomy import ANGLES
from pipelines.ultrasound.phantom.imaging import Raster, Tissue, lost_db, wide_steps
from pipelines.ultrasound.phantom.scene import Scene, outline_points, section
from vision_core.randomness import key

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

NUM_OBSERVERS = 3
_ORDERS = np.arange(1, 8, dtype=np.float32)
# What sets the three apart in every subject: a shift of the whole contour in mm, and the smallest area in mm² that one
# of them calls the organ.
_BIAS_MM = (-0.7, 0.1, 0.8)
_LEAST_MM2 = (220.0, 120.0, 60.0)
_SURE_MM = 0.55  # standard deviation of the displacement at the face, in full view
_SHADOW_DB = 12.0


@dataclass(frozen=True, kw_only=True)
class Observer:
    """An observer of one subject.

    Attributes:
        bias_mm: Shift of the whole contour, outwards.
        lean_mm: Further shift towards ``lean_angle``.
        lean_angle: In radians.
        waves: ``(n, 3)``: amplitude, phase, and turn per mm of the sweep of the waves around the outline.
        least_mm2: Smallest visible area that is called the organ.
    """

    bias_mm: float
    lean_mm: float
    lean_angle: float
    waves: Floats
    least_mm2: float

    def displacement(self, z: float, unsure: Floats) -> Floats:
        """Compute the shift of the contour in mm for each of ``ANGLES``, outwards.

        Args:
            z: Place of the plane.
            unsure: Standard deviation of the shift in mm, for each angle.
        """
        amplitude, phase, turn = self.waves.T[:, :, None]
        waves = (amplitude * np.cos(_ORDERS[:, None] * ANGLES + phase + turn * np.float32(z))).sum(axis=0)
        return np.asarray(self.bias_mm + self.lean_mm * np.cos(ANGLES - self.lean_angle) + unsure * waves, np.float32)


def observers_of(seed: int) -> tuple[Observer, ...]:
    """Draw the three observers for a subject, around what sets them apart in all subjects."""
    return tuple(_observer(np.random.default_rng(key("observer", seed, each)), each) for each in range(NUM_OBSERVERS))


def observed(scene: Scene, tissue: Tissue, raster: Raster, observers: tuple[Observer, ...]) -> Mask:
    """Outline the organ as each observer does: ``(k, H, W)``; empty where one does not see it."""
    masks = np.zeros((len(observers), *raster.x.shape), bool)
    outline = scene.anatomy.organ.outline(scene.pose.z)
    if scene.pose.is_lifted or not outline.any():
        return masks
    unsure = doubt(scene, tissue)
    for mask, observer in zip(masks, observers, strict=True):
        radius = np.maximum(outline + observer.displacement(scene.pose.z, unsure), 0)
        drawn = covered(scene, raster, radius)
        if drawn.sum() * raster.spacing_mm**2 >= observer.least_mm2:
            mask[:] = drawn
    return masks


def covered(scene: Scene, raster: Raster, radius: Floats | None = None) -> Mask:
    """Compute the pixels of the organ ``(H, W)`` in view, with another outline where one is given."""
    small = tuple((side + 2) // 3 for side in raster.x.shape)
    x, y = (np.asarray(cv2.resize(each, small[::-1]), np.float32) for each in (raster.x, raster.y))
    beyond = section(scene.anatomy.organ, scene.pose.z, *_in_tissue(scene, x, y), radius)  # smooth: enlarged afterwards
    full = cv2.resize(beyond, raster.x.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray((full < 0) & raster.inside)


def doubt(scene: Scene, tissue: Tissue) -> Floats:
    """Compute the standard deviation of a contour's shift in mm for each of ``ANGLES``.

    It is larger at depth, in shadow, and where the contour runs along the beams.
    """
    machine = scene.machine
    x, y = outline_points(scene.anatomy.organ, scene.pose.z)
    ranges, steps = machine.samples(x, y)
    depth = np.clip(ranges / machine.depth_mm, 0, 1)
    lost = lost_db(machine, tissue)
    usual = np.median(lost, axis=1)
    places = wide_steps(machine)
    rows = np.clip((depth * len(lost)).astype(int), 0, len(lost) - 1)
    columns = np.clip(np.searchsorted(places, steps), 0, len(places) - 1)
    shadow = np.clip((lost[rows, columns] - usual[rows]) / _SHADOW_DB, 0, 2)
    beam = np.stack([np.sin(steps), np.cos(steps)]) if machine.geometry == "sector" else np.array([[0.0], [1.0]])
    along = 1 - np.abs((np.stack([np.cos(ANGLES), np.sin(ANGLES)]) * beam).sum(axis=0))
    return np.asarray(_SURE_MM * (0.6 + 1.2 * depth + 0.6 * along + 1.3 * shadow), np.float32)


def _in_tissue(scene: Scene, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Find the points of the tissue that a moved probe shows at points of the image."""
    machine, pose = scene.machine, scene.pose
    ranges, steps = machine.samples(x, y)
    moved = ranges + np.float32(pose.samples * machine.depth_mm / len(machine.ranges))
    turned = steps + np.float32(pose.beams * (machine.steps[1] - machine.steps[0]))
    if machine.geometry == "linear":
        return turned, moved
    return (machine.face_mm + moved) * np.sin(turned), (machine.face_mm + moved) * np.cos(turned) - machine.face_mm


def _observer(rng: np.random.Generator, number: int) -> Observer:
    strength = 1 / (1 + (_ORDERS / 3) ** 2)
    amplitudes = rng.normal(0, 1, len(_ORDERS)) * strength
    amplitudes *= np.sqrt(2 / (strength**2).sum())  # waves of unit variance on average
    waves = np.stack([amplitudes, rng.uniform(0, 2 * np.pi, len(_ORDERS)), rng.normal(0, 0.12, len(_ORDERS))], axis=1)
    return Observer(
        bias_mm=_BIAS_MM[number] + rng.normal(0, 0.3),
        lean_mm=abs(rng.normal(0, 0.5)),
        lean_angle=rng.uniform(0, 2 * np.pi),
        waves=waves.astype(np.float32),
        least_mm2=_LEAST_MM2[number] * rng.uniform(0.6, 1.6),
    )
