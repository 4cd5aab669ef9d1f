"""Ultrasound machines of the phantom: geometry, pulse, beam, display; drawn for each subject around a preset."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SPEED_MM_US = 1.54  # of sound in soft tissue
_HALF_WIDTH = 2 * math.sqrt(2 * math.log(2))  # full width at half height of a Gaussian, in standard deviations


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Settings of a machine.

    Attributes:
        geometry: ``sector``, whose beams leave a curved face, or ``linear``, whose beams are parallel.
        frequency_mhz: Centre frequency of the pulse.
        bandwidth: Relative width of its spectrum at half amplitude, of pulse and echo together.
        depth_mm: Range from the face of the probe.
        face_mm: Radius of the curved face.
        width: Of the field: degrees for a sector, mm for a linear one.
        beams: Number of beams.
        focus_mm: Range of the narrowest beam.
        f_number: Focal length over aperture.
        slice_mm: Standard deviation of the beam's thickness across the image.
        dynamic_range_db: Range from black to white.
        gain_db: Added before compression.
        tgc_db_cm: Gain over depth; it balances the mean attenuation where both are equal.
        noise_db: Level of electronic noise, relative to tissue of 0 dB at the face.
        gamma: Exponent of the grey curve after compression.
    """

    geometry: Literal["sector", "linear"]
    frequency_mhz: float
    bandwidth: float
    depth_mm: float
    face_mm: float
    width: float
    beams: int
    focus_mm: float
    f_number: float
    slice_mm: float
    dynamic_range_db: float
    gain_db: float
    tgc_db_cm: float
    noise_db: float
    gamma: float

    @property
    def wavelength_mm(self) -> float:
        """Return the length of a wave in tissue."""
        return SPEED_MM_US / self.frequency_mhz

    @property
    def pulse_mm(self) -> float:
        """Return the standard deviation of the pulse's envelope over range."""
        spectrum_mhz = self.bandwidth * self.frequency_mhz / _HALF_WIDTH
        return SPEED_MM_US / 2 / (2 * math.pi * spectrum_mhz)

    @property
    def ranges(self) -> Floats:
        """Return the ranges of the samples along a beam in mm, as many as the pulse asks for."""
        count = 8 * math.ceil(self.depth_mm / self.pulse_mm / 8)  # one a standard deviation, enough for a Gaussian
        return ((np.arange(count) + 0.5) * self.depth_mm / count).astype(np.float32)

    @property
    def steps(self) -> Floats:
        """Return the places of the beams: radians for a sector, mm for a linear one."""
        places = (np.arange(self.beams) + 0.5) / self.beams - 0.5
        return (places * (math.radians(self.width) if self.geometry == "sector" else self.width)).astype(np.float32)

    def beam_mm(self, ranges: Floats) -> Floats:
        """Compute the lateral standard deviation of the beam, sent and received, by range."""
        waist = self.wavelength_mm * self.f_number / _HALF_WIDTH
        rayleigh = 4 * self.wavelength_mm * self.f_number**2  # where it is wider by the root of two
        return np.asarray(waist * np.sqrt(1 + ((ranges - self.focus_mm) / rayleigh) ** 2), np.float32)

    def positions(self, ranges: Floats, steps: Floats) -> tuple[Floats, Floats]:
        """Compute ``(x, y)`` in mm, y away from the probe, of ranges ``(n, 1)`` on beams ``(m,)``: each ``(n, m)``."""
        if self.geometry == "linear":
            return np.broadcast_to(steps, (len(ranges), len(steps))), np.broadcast_to(ranges, (len(ranges), len(steps)))
        return (self.face_mm + ranges) * np.sin(steps), (self.face_mm + ranges) * np.cos(steps) - self.face_mm

    def samples(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Compute range and place on the beams' axis of points in mm: the inverse of ``positions``."""
        if self.geometry == "linear":
            return y, x
        return np.hypot(x, y + self.face_mm) - self.face_mm, np.arctan2(x, y + self.face_mm)


# An endocavity probe; subjects differ as rooms and operators do.
TRAINING = Machine(
    geometry="sector", frequency_mhz=6.0, bandwidth=0.45, depth_mm=62.0, face_mm=11.0, width=100.0, beams=128,
    focus_mm=30.0, f_number=4.5, slice_mm=1.6, dynamic_range_db=60.0, gain_db=0.0, tgc_db_cm=5.0, noise_db=-46.0,
    gamma=1.0,
)  # fmt: skip
# Another vendor's: linear, higher in frequency, with a steeper curve and more gain. Never trained on.
OTHER = Machine(
    geometry="linear", frequency_mhz=7.5, bandwidth=0.5, depth_mm=55.0, face_mm=0.0, width=64.0, beams=192,
    focus_mm=24.0, f_number=3.6, slice_mm=1.2, dynamic_range_db=54.0, gain_db=3.0, tgc_db_cm=6.2, noise_db=-50.0,
    gamma=0.85,
)  # fmt: skip


def drawn(preset: Machine, rng: np.random.Generator) -> Machine:
    """Draw the machine of a subject: frequency, depth, focus, gain, gain over depth, dynamic range, noise."""
    frequency = preset.frequency_mhz * rng.uniform(0.9, 1.12)
    depth = preset.depth_mm * rng.uniform(0.92, 1.1)
    return replace(
        preset,
        frequency_mhz=frequency,
        depth_mm=depth,
        focus_mm=depth * rng.uniform(0.35, 0.65),
        width=preset.width * rng.uniform(0.92, 1.06),
        dynamic_range_db=float(np.clip(preset.dynamic_range_db + rng.normal(0, 3), 50, 70)),
        gain_db=preset.gain_db + rng.normal(0, 2.5),
        # Operators balance the mean attenuation of about 0.65 dB/cm/MHz, there and back, less well than exactly.
        tgc_db_cm=2 * 0.62 * frequency * rng.uniform(0.88, 1.08),
        noise_db=preset.noise_db + rng.normal(0, 3),
    )
