"""Anatomy of the phantom: an organ, look-alikes, layers and texture, in mm around the probe's first place.

``x`` runs across the image, ``y`` away from the probe, ``z`` across the images, along the sweep. Bodies are stars in
every plane: a radius for each angle around a centre.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.randomness import key

Floats = NDArray[np.float32]
Kind = Literal["organ", "bladder", "muscle", "vessel"]

NUM_ANGLES = 128
ANGLES: Floats = (np.arange(NUM_ANGLES) * (2 * np.pi / NUM_ANGLES)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body with a smooth surface.

    Attributes:
        kind: What it is.
        centre: ``(x, y, z)``.
        tilt: Shift of the centre in x and y per mm of z.
        radii: Half extents in x, y and z.
        waves: ``(n, 4)``: order, amplitude, phase and turn per mm of z of the waves around its outline.
        blunt: Exponent of its ends in z: 0.5 an ellipsoid, less a blunter one.
        echo_db: Scattering within, relative to the tissue around.
        wall_db: Scattering of its wall beyond that, where beams meet it squarely.
        loss: Attenuation within, in dB/cm/MHz.
    """

    kind: Kind
    centre: tuple[float, float, float]
    tilt: tuple[float, float]
    radii: tuple[float, float, float]
    waves: Floats
    blunt: float
    echo_db: float
    wall_db: float
    loss: float

    def centre_at(self, z: float) -> tuple[float, float]:
        """Return the centre of its section."""
        x, y, middle = self.centre
        return x + self.tilt[0] * (z - middle), y + self.tilt[1] * (z - middle)

    def outline(self, z: float) -> Floats:
        """Return the radius of its section for each of ``ANGLES``; zeros beyond its ends."""
        along = (z - self.centre[2]) / self.radii[2]
        if abs(along) >= 1:
            return np.zeros(NUM_ANGLES, np.float32)
        order, amplitude, phase, turn = self.waves.T[:, :, None]
        waves = 1 + (amplitude * np.cos(order * ANGLES + phase + turn * (z - self.centre[2]))).sum(axis=0)
        ellipse = 1 / np.hypot(np.cos(ANGLES) / self.radii[0], np.sin(ANGLES) / self.radii[1])
        return np.asarray((1 - along**2) ** self.blunt * ellipse * waves, np.float32)


@dataclass(frozen=True, kw_only=True)
class Stone:
    """A calcification that throws a shadow: place and radius, in mm."""

    centre: tuple[float, float, float]
    radius: float


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Anatomy of a subject.

    Attributes:
        organ: What is to be found.
        others: Bodies that look like it.
        stones: Calcifications.
        layers: ``(n, 5)``: depth, amplitude, wave number, phase and strength in dB of bright layers.
        lumps: ``(n, 5)``: wave vector in x, y and z, phase and strength in dB of the tissue's texture.
        inner: Share of the organ's radius within which it is darker.
        loss: Attenuation of the tissue around, in dB/cm/MHz.
    """

    organ: Body
    others: tuple[Body, ...]
    stones: tuple[Stone, ...]
    layers: Floats
    lumps: Floats
    inner: float
    loss: float


def anatomy_of(seed: int) -> Anatomy:
    """Draw the anatomy of a subject."""
    rng = np.random.default_rng(key("anatomy", seed))
    organ = _organ(rng)
    return Anatomy(
        organ=organ,
        others=_look_alikes(rng, organ),
        stones=tuple(_stone(rng, organ) for _ in range(rng.poisson(1.6))),
        layers=_layers(rng),
        lumps=_lumps(rng),
        inner=rng.uniform(0.5, 0.68),
        loss=rng.uniform(0.55, 0.72),
    )


def texture(anatomy: Anatomy, x: Floats, y: Floats, z: float) -> Floats:
    """Compute the strength in dB of the tissue's lumps at points in mm."""
    across, down, along, phase, strength = anatomy.lumps.T
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size, np.float32)])
    waves = np.cos(np.stack([across, down, along * np.float32(z) + phase], axis=1) @ points)  # (waves, points)
    return np.asarray((strength @ waves).reshape(x.shape))


def _organ(rng: np.random.Generator) -> Body:
    size = rng.normal(1, 0.11)
    return Body(
        kind="organ",
        centre=(rng.normal(0, 3), rng.uniform(21, 27), 0.0),
        tilt=(rng.normal(0, 0.06), rng.normal(0, 0.1)),
        radii=(22.0 * size * rng.normal(1, 0.06), 14.0 * size * rng.normal(1, 0.08), 20.0 * size),
        waves=_waves(rng, (2, 3, 4, 5), 0.05),
        blunt=rng.uniform(0.32, 0.5),
        echo_db=rng.uniform(-8.0, -3.0),
        wall_db=rng.uniform(8, 13),
        loss=rng.uniform(0.5, 0.7),
    )


def _look_alikes(rng: np.random.Generator, organ: Body) -> tuple[Body, ...]:
    """Draw a bladder beyond one end of the organ, a muscle beyond the other, and vessels along it."""
    end = organ.radii[2]
    found = []
    if rng.random() < 0.85:
        length = rng.uniform(13, 18)
        found.append(
            Body(
                kind="bladder", centre=(rng.normal(0, 5), rng.uniform(22, 31), end + length * rng.uniform(0.75, 1.0)),
                tilt=(rng.normal(0, 0.1), rng.normal(0, 0.15)),
                radii=(rng.uniform(13, 24), rng.uniform(9, 14), length),
                waves=_waves(rng, (2, 3, 4), 0.06), blunt=0.45,
                echo_db=rng.uniform(-36, -20), wall_db=rng.uniform(8, 12), loss=0.35,
            )
        )  # fmt: skip
    if rng.random() < 0.85:
        length = rng.uniform(12, 17)
        found.append(
            Body(
                kind="muscle", centre=(rng.normal(0, 7), rng.uniform(18, 28), -end - length * rng.uniform(0.75, 1.0)),
                tilt=(rng.normal(0, 0.1), rng.normal(0, 0.1)),
                radii=(rng.uniform(13, 21), rng.uniform(7, 12), length),
                waves=_waves(rng, (2, 3, 4), 0.07), blunt=0.45,
                echo_db=rng.uniform(-8, -3), wall_db=rng.uniform(6, 12), loss=0.75,
            )
        )  # fmt: skip
    for side in (-1, 1):
        if rng.random() < 0.6:
            radius = rng.uniform(2.0, 4.5)
            found.append(
                Body(
                    kind="vessel", centre=(side * rng.uniform(24, 36), rng.uniform(14, 34), rng.normal(0, 10)),
                    tilt=(rng.normal(0, 0.25), rng.normal(0, 0.2)),
                    radii=(radius, radius * rng.uniform(0.8, 1.2), 60.0),
                    waves=_waves(rng, (2, 3), 0.05), blunt=0.3,
                    echo_db=rng.uniform(-26, -18), wall_db=rng.uniform(6, 10), loss=0.15,
                )
            )  # fmt: skip
    return tuple(found)


def _stone(rng: np.random.Generator, organ: Body) -> Stone:
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.75)
    z = rng.uniform(-0.6, 0.6) * organ.radii[2]
    x, y = organ.centre_at(z)
    place = (x + share * organ.radii[0] * math.cos(angle), y + share * organ.radii[1] * math.sin(angle), z)
    return Stone(centre=place, radius=rng.uniform(0.7, 1.8))


def _layers(rng: np.random.Generator) -> Floats:
    near = np.array([[1.6, 0.2, 0.12, 0, -7], [2.6, 0.25, 0.12, 0, 5], [3.9, 0.3, 0.12, 0, -6]])  # the gut's wall
    near[:, 3] = rng.uniform(0, 2 * np.pi)
    near[:, 0] *= rng.uniform(0.85, 1.25)
    count = rng.integers(4, 8)
    far = np.stack(
        [
            rng.uniform(6, 60, count), rng.uniform(0.5, 3.0, count), rng.uniform(0.04, 0.14, count),
            rng.uniform(0, 2 * np.pi, count), rng.uniform(3, 9, count),
        ],
        axis=1,
    )  # fmt: skip
    return np.vstack([near, far]).astype(np.float32)


def _lumps(rng: np.random.Generator) -> Floats:
    """Draw waves of three kinds: wide lumps, small lumps, and fibres along the face."""
    kinds = ((10, 20.0, 0.7, 1.0), (14, 6.0, 0.7, 1.0), (10, 3.5, 1.0, 0.15))  # number, length in mm, dB, slope
    found = []
    for count, length, strength, slope in kinds:
        directions = rng.normal(0, 1, (count, 3)) * (slope, 1, slope)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        vectors = 2 * np.pi / (length * rng.uniform(0.7, 1.5, (count, 1))) * directions
        others = np.stack([rng.uniform(0, 2 * np.pi, count), rng.normal(0, strength, count)], axis=1)
        found.append(np.hstack([vectors, others]))
    return np.vstack(found).astype(np.float32)


def _waves(rng: np.random.Generator, orders: tuple[int, ...], amplitude: float) -> Floats:
    count = len(orders)
    amplitudes = rng.normal(0, amplitude, count) * 2 / np.array(orders)
    phases, turns = rng.uniform(0, 2 * np.pi, count), rng.normal(0, 0.03, count)
    return np.stack([np.array(orders), amplitudes, phases, turns], axis=1).astype(np.float32)
