"""Imaging of the phantom: speckle under a point spread function, attenuation, compression, scan conversion.

Echoes are complex, at baseband. A field of independent complex normal scatterers is scaled by how strongly tissue
scatters and by the attenuation on the way there and back, then smoothed along the beam by the pulse and across it by a
beam whose width changes with depth, each of unit energy. The envelope of developed speckle follows Rayleigh's law.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pipelines.ultrasound.phantom.machines import Machine
from vision_core.randomness import key

Floats = NDArray[np.float32]
Complex = NDArray[np.complex64]

_MARGIN = 16  # beams beyond both edges of the field, which the beam's width reaches
_FLOOR = 1e-12
_TISSUE_GREY = 0.45  # of tissue of 0 dB, without gain
_SHOWN_WIDTH = 0.72  # of the field's width; displays cut off its corners
_NEPER = np.float32(math.log(10) / 20)  # of a decibel of amplitude
_REACH = 3  # standard deviations of the slice's thickness that count


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Tissue as the beams meet it, on a grid over range and all beams with their margins, as fine as its details.

    Attributes:
        echo_db: How strongly it scatters.
        loss_db_mm: Attenuation per mm of way, at the machine's frequency.
    """

    echo_db: Floats
    loss_db_mm: Floats


class Scatterers:
    """Scatterers of a subject in three dimensions: planes of samples and beams, a slice's thickness apart.

    A frame sees the planes around it by the thickness of the slice, so that speckle changes smoothly with the place of
    the probe. Each plane follows from the seed and its number; the last ones are kept.

    Args:
        machine: Its grid.
        seed: Of this subject.
    """

    def __init__(self, machine: Machine, seed: int) -> None:
        self._shape = (len(machine.ranges), machine.beams + 2 * _MARGIN)
        self._slice_mm, self._seed = machine.slice_mm, seed
        self._planes: dict[int, Complex] = {}

    def at(self, place_mm: float, shift: tuple[int, int] = (0, 0)) -> Complex:
        """Return the field ``(samples, beams + margins)`` of unit power at a place of the probe across the image.

        Args:
            place_mm: Along the direction in which the probe is swept.
            shift: Samples and beams by which the probe has moved in its plane.
        """
        spot = place_mm / self._slice_mm
        numbers = range(math.ceil(spot - _REACH), math.floor(spot + _REACH) + 1)
        weights = np.exp(-((np.array(numbers) - spot) ** 2))  # sent and received: the square of the beam's profile
        weights = (weights / np.sqrt((weights**2).sum())).astype(np.float32)
        field = np.zeros(self._shape, np.complex64)
        for weight, number in zip(weights, numbers, strict=True):
            if weight > 1e-3:
                cv2.scaleAdd(_pairs(self._plane(number)), float(weight), _pairs(field), _pairs(field))
        self._planes = {number: plane for number, plane in self._planes.items() if abs(number - spot) <= 2 * _REACH}
        return np.roll(field, (-shift[0], -shift[1]), (0, 1)) if any(shift) else field

    def _plane(self, number: int) -> Complex:
        if number not in self._planes:
            self._planes[number] = _normal(self._shape, key("plane", self._seed, number))
        return self._planes[number]


def envelope(machine: Machine, tissue: Tissue, field: Complex, noise_seed: int | None = None) -> Floats:
    """Compute the envelope of the echoes ``(samples, beams)``, before gain and compression.

    Args:
        machine: Pulse, beam, noise.
        tissue: ``(n, beams + margins)``.
        field: ``(samples, beams + margins)``, scatterers of unit power.
        noise_seed: Of the electronic noise; None leaves it out.
    """
    amplitude = np.exp(_NEPER * (tissue.echo_db - lost_db(machine, tissue)))
    echoes = blurred(machine, field * cv2.resize(amplitude, field.shape[::-1], interpolation=cv2.INTER_LINEAR))
    inner = echoes[:, _MARGIN:-_MARGIN]
    if noise_seed is not None:
        shift = np.random.default_rng(noise_seed).integers(inner.shape)
        noise = np.roll(_noise(machine), tuple(shift), (0, 1))  # a hundredth of the time of drawing it anew
        inner = inner + np.float32(10 ** (machine.noise_db / 20)) * noise
    return np.abs(inner)


def lost_db(machine: Machine, tissue: Tissue) -> Floats:
    """Compute the attenuation in dB on the way to each place of the tissue's grid and back."""
    step_mm = machine.depth_mm / len(tissue.loss_db_mm)
    loss = tissue.loss_db_mm
    return np.asarray(2 * step_mm * (np.cumsum(loss, axis=0) - loss / 2), np.float32)


def blurred(machine: Machine, field: Complex) -> Complex:
    """Smooth a field by pulse and beam, keeping the power of white noise."""
    return _across(machine, _along(machine, field))


def compressed(machine: Machine, signal: Floats) -> Floats:
    """Turn an envelope ``(samples, beams)`` into grey from 0 to 1: gain over depth, logarithm, range, curve."""
    decibels = cv2.log(signal + np.float32(_FLOOR)) / _NEPER  # a tenth of the time of numpy's log10
    decibels += machine.gain_db + (machine.tgc_db_cm / 10 * machine.ranges)[:, None]
    top_db = (1 - _TISSUE_GREY) * machine.dynamic_range_db
    grey = np.clip((decibels - np.float32(top_db)) / np.float32(machine.dynamic_range_db) + 1, 0, 1)
    return np.asarray(grey if machine.gamma == 1 else cv2.pow(grey, machine.gamma), np.float32)


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Pixels of the displayed image, and where each lies among samples and beams.

    Attributes:
        x: ``(H, W)`` position in mm.
        y: ``(H, W)`` distance from the face of the probe at its middle, in mm.
        inside: ``(H, W)`` whether the field of view covers it.
        spacing_mm: Side of a pixel.
        columns: ``(H, W)`` place among the beams.
        rows: ``(H, W)`` place among the samples.
    """

    x: Floats
    y: Floats
    inside: NDArray[np.bool_]
    spacing_mm: float
    columns: Floats
    rows: Floats


def raster(machine: Machine, size: tuple[int, int]) -> Raster:
    """Lay pixels ``(height, width)`` over the field of view, whole in depth, its corners cut off."""
    across, down = machine.positions(machine.ranges[[0, -1], None], machine.steps)
    low, high = float(down.min()), float(down.max())
    spacing = max((high - low) / (size[0] - 2), _SHOWN_WIDTH * float(np.ptp(across)) / (size[1] - 2))
    y = (np.arange(size[0]) - (size[0] - 1) / 2) * spacing + (low + high) / 2
    x = (np.arange(size[1]) - (size[1] - 1) / 2) * spacing
    x, y = np.broadcast_arrays(x[None].astype(np.float32), y[:, None].astype(np.float32))
    distance, step = machine.samples(x, y)
    steps = machine.steps
    rows = distance / machine.depth_mm * len(machine.ranges) - 0.5
    columns = (step - steps[0]) / (steps[1] - steps[0])
    inside = (rows >= 0) & (rows <= len(machine.ranges) - 1) & (columns >= 0) & (columns <= machine.beams - 1)
    return Raster(
        x=x, y=y, inside=inside, spacing_mm=spacing, columns=columns.astype(np.float32), rows=rows.astype(np.float32)
    )


def scan_converted(machine: Machine, grey: Floats, raster: Raster) -> NDArray[np.uint8]:
    """Bring grey ``(samples, beams)`` to the pixels of the display ``(H, W)``; black outside the field.

    Samples finer than a pixel are averaged first.
    """
    samples = len(machine.ranges)
    kept = max(16, min(samples, round(machine.depth_mm / raster.spacing_mm * 1.25)))
    smaller = cv2.resize(grey, (grey.shape[1], kept), interpolation=cv2.INTER_AREA)
    rows = (raster.rows + np.float32(0.5)) * np.float32(kept / samples) - np.float32(0.5)
    shown = cv2.remap(smaller, raster.columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.rint(255 * shown * raster.inside), np.uint8)


def wide_steps(machine: Machine) -> Floats:
    """Return the places of the beams with those of both margins."""
    steps = machine.steps
    beyond = (np.arange(1, _MARGIN + 1) * (steps[1] - steps[0])).astype(np.float32)
    return np.concatenate([steps[0] - beyond[::-1], steps, steps[-1] + beyond])


def _normal(shape: tuple[int, ...], seed: int) -> Complex:
    """Draw complex normal numbers of unit power."""
    rng = np.random.Generator(np.random.SFC64(seed))
    pairs = rng.standard_normal((*shape, 2), np.float32)
    pairs *= np.float32(math.sqrt(0.5))
    return np.asarray(pairs.view(np.complex64)[..., 0])


def _pairs(field: Complex) -> Floats:
    """View a field as real and imaginary parts ``(samples, beams, 2)``."""
    return field.view(np.float32).reshape(*field.shape, 2)


def _along(machine: Machine, field: Complex) -> Complex:
    """Smooth along the beams by the pulse."""
    sigma = machine.pulse_mm / (machine.depth_mm / len(machine.ranges))
    offsets = np.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)
    smoothed = cv2.sepFilter2D(
        _pairs(np.ascontiguousarray(field)), -1, np.ones(1, np.float32), kernel, borderType=cv2.BORDER_REFLECT
    )
    return np.asarray(smoothed.view(np.complex64)[..., 0])


def _across(machine: Machine, field: Complex) -> Complex:
    """Smooth across the beams, by a Gaussian whose width in beams differs from row to row."""
    spectrum = fft.fft(field, axis=1)
    transfer = _transfer(machine, field.shape[1])
    return np.asarray(fft.ifft(spectrum * transfer, axis=1, overwrite_x=True), np.complex64)


@lru_cache(maxsize=4)
def _noise(machine: Machine) -> Complex:
    return _along(machine, _normal((len(machine.ranges), machine.beams), key("noise", machine.frequency_mhz)))


@lru_cache(maxsize=8)
def _transfer(machine: Machine, width: int) -> Floats:
    ranges, steps = machine.ranges, machine.steps
    step_mm = (steps[1] - steps[0]) * (machine.face_mm + ranges if machine.geometry == "sector" else 1)
    sigma = machine.beam_mm(ranges) / step_mm * np.ones_like(ranges)  # in beams
    angular = 2 * np.pi * fft.fftfreq(width)
    transfer = np.exp(-((sigma[:, None] * angular) ** 2) / 2)
    return np.asarray(transfer / np.sqrt((transfer**2).mean(axis=1, keepdims=True)), np.float32)
