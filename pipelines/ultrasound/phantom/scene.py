"""What the beams meet at one place of the probe: the anatomy on the grid of samples and beams, and shadows."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.phantom.anatomy import ANGLES, NUM_ANGLES, Anatomy, Body, texture
from pipelines.ultrasound.phantom.imaging import Tissue, wide_steps
from pipelines.ultrasound.phantom.machines import Machine

Floats = NDArray[np.float32]

_EVERY = 4  # the tissue is described on every fourth sample of all beams, finer than a wall is thick
_COARSE = 8, 4  # its smooth fields are computed on every eighth sample of every fourth beam: a tenth of the time
_SOFT_MM = 0.35
_WALL_MM = 0.65
_FLUID_DB = -12.0  # below it there is no texture within
_EVENNESS = 0.5  # share of the texture around that a solid body lacks
_LAYER_MM = 0.6
_RINGING_DB, _RINGING_MM = 14.0, 0.9
_LIFTED_DB, _LIFTED_MM = -70.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Place of the probe.

    Attributes:
        z: Along the sweep, in mm.
        samples: Shift of the tissue along the beams, in samples.
        beams: Shift of the probe across the beams, in beams.
        contact: ``(n, 3)``: middle, width (both as shares of the field) and loss in dB of gaps at the face.
        is_lifted: Whether the probe is off the skin: nothing but its own ringing.
    """

    z: float
    samples: int = 0
    beams: int = 0
    contact: tuple[tuple[float, float, float], ...] = ()
    is_lifted: bool = False


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A machine, an anatomy, and where the probe is on it."""

    machine: Machine
    anatomy: Anatomy
    pose: Pose


def tissue_in(scene: Scene) -> Tissue:
    """Describe the tissue in the plane of the probe."""
    anatomy, pose, frequency_mhz = scene.anatomy, scene.pose, scene.machine.frequency_mhz
    grid = _Grid(scene.machine, pose)
    if pose.is_lifted:
        fading = _LIFTED_DB * (1 - np.exp(-grid.ranges / _LIFTED_MM))  # the gel's echoes die away within it
        echo = np.broadcast_to(fading[:, None], grid.shape)
        return Tissue(echo_db=echo + _ringing(grid), loss_db_mm=np.zeros(grid.shape, np.float32))
    echo = grid.fine(texture(anatomy, grid.x, grid.y, pose.z)) + _layers(grid, anatomy)
    loss = np.full(grid.shape, anatomy.loss, np.float32)  # dB/cm/MHz
    tissue = Tissue(echo_db=echo, loss_db_mm=loss)
    for body in (*anatomy.others, anatomy.organ):
        _insert(grid, body, pose.z, tissue, inner=anatomy.inner if body is anatomy.organ else 0.0)
    loss *= frequency_mhz / 10  # dB/mm
    for stone in anatomy.stones:
        away = abs(stone.centre[2] - pose.z)
        if away < 2 * stone.radius + 1:
            spot = np.exp(
                -((grid.fine(np.hypot(grid.x - stone.centre[0], grid.y - stone.centre[1])) / stone.radius) ** 2)
            )
            strength = np.float32(np.exp(-((away / (stone.radius + 0.8)) ** 2)))
            echo += 17 * strength * spot
            loss += 4.5 * strength * spot
    _lose_contact(grid, pose, loss)
    echo += _ringing(grid)
    return tissue


def section(body: Body, z: float, x: Floats, y: Floats, outline: Floats | None = None) -> Floats:
    """Compute the distance in mm beyond a body's outline, along rays from its centre; negative within.

    Args:
        body: The body.
        z: Place of the plane.
        x: Points in mm.
        y: Points in mm.
        outline: Radius for each of ``ANGLES`` to use instead of the body's own.
    """
    outline = body.outline(z) if outline is None else outline
    centre = body.centre_at(z)
    across, down = x - np.float32(centre[0]), y - np.float32(centre[1])
    place = np.arctan2(down, across) * np.float32(NUM_ANGLES / (2 * np.pi)) % NUM_ANGLES
    before = np.minimum(place.astype(np.int32), NUM_ANGLES - 1)
    share = place - before
    return np.asarray(
        np.hypot(across, down) - (1 - share) * outline[before] - share * outline[(before + 1) % NUM_ANGLES]
    )


def outline_points(body: Body, z: float) -> tuple[Floats, Floats]:
    """Return the points of its outline in mm, one for each of ``ANGLES``."""
    radius, centre = body.outline(z), body.centre_at(z)
    return centre[0] + radius * np.cos(ANGLES), centre[1] + radius * np.sin(ANGLES)


class _Grid:
    """Positions of samples and beams in the tissue under a pose, coarse; and enlargement to all of them."""

    def __init__(self, machine: Machine, pose: Pose) -> None:
        ranges, steps = machine.ranges, wide_steps(machine)
        self.ranges, self.share = _thinned(ranges, _EVERY), np.linspace(0, 1, len(steps), dtype=np.float32)
        moved = ranges + np.float32(pose.samples) * (ranges[1] - ranges[0])
        turned = steps + np.float32(pose.beams) * (steps[1] - steps[0])
        self.shape = (len(self.ranges), len(steps))
        self.x, self.y = machine.positions(_thinned(moved, _COARSE[0])[:, None], _thinned(turned, _COARSE[1]))
        self.x, self.y = np.ascontiguousarray(self.x), np.ascontiguousarray(self.y)
        angle = _thinned(turned, _COARSE[1]) * (machine.geometry == "sector")
        self.beam = np.sin(angle), np.cos(angle)  # directions

    def fine(self, coarse: Floats) -> Floats:
        return np.asarray(cv2.resize(coarse, self.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _insert(grid: _Grid, body: Body, z: float, tissue: Tissue, inner: float) -> None:
    """Put a body into the plane: what is within, its wall, and the refraction at its edges."""
    outline, echo, loss = body.outline(z), tissue.echo_db, tissue.loss_db_mm
    if not outline.any():
        return
    x, y = body.centre_at(z)
    ray = np.stack([grid.x - x, grid.y - y])
    ray /= np.maximum(np.hypot(*ray), 1e-3)
    square = np.clip(np.abs(ray[0] * grid.beam[0] + ray[1] * grid.beam[1]), 0, 1)  # cosine of incidence
    beyond = section(body, z, grid.x, grid.y, outline)
    distance = grid.fine(beyond)
    share = np.clip(0.5 - distance / (2 * _SOFT_MM), 0, 1)
    within_db = np.full(grid.shape, body.echo_db, np.float32)
    if inner:
        core = section(body, z, grid.x, grid.y, outline * np.float32(inner))
        within_db -= 3 * grid.fine(np.clip(0.5 - core / 4, 0, 1))
    wall = np.exp(-((distance / _WALL_MM) ** 2))
    echo *= 1 - share * (1.0 if body.echo_db < _FLUID_DB else _EVENNESS)
    echo += share * within_db + wall * grid.fine(np.float32(body.wall_db) * square**1.5)
    loss += share * (np.float32(body.loss) - loss) + wall * grid.fine(2 * (1 - square) ** 3)


def _layers(grid: _Grid, anatomy: Anatomy) -> Floats:
    """Compute the strength in dB of bright and dark layers where beams meet them squarely."""
    total = np.zeros(grid.shape, np.float32)
    square = grid.fine(np.broadcast_to(np.abs(grid.beam[1]) ** 4, grid.x.shape).astype(np.float32))
    range_of = grid.ranges[:, None]
    for depth, amplitude, wave, phase, strength in anatomy.layers:
        if depth < 6:  # the wall follows the face of the probe
            place = depth + amplitude * np.sin(40 * wave * grid.share + phase)
            total += strength * np.exp(-(((range_of - place) / _LAYER_MM) ** 2))
        else:
            away = grid.fine(grid.y - (depth + amplitude * np.sin(wave * grid.x + phase)))
            total += strength * square * np.exp(-((away / _LAYER_MM) ** 2))
    return total


def _lose_contact(grid: _Grid, pose: Pose, loss: Floats) -> None:
    """Add the loss of gaps between face and skin, at the first samples."""
    step_mm = grid.ranges[1] - grid.ranges[0]
    for middle, width, loss_db in pose.contact:
        profile = 1 / (1 + ((grid.share - middle) / (width / 2)) ** 6)
        loss[0] += (loss_db / (2 * step_mm) * profile).astype(np.float32)


def _ringing(grid: _Grid) -> Floats:
    return np.asarray((_RINGING_DB * np.exp(-grid.ranges / _RINGING_MM))[:, None], np.float32)


def _thinned(places: Floats, every: int) -> Floats:
    return np.asarray(places.reshape(-1, every).mean(axis=1))
