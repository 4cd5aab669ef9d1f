"""Frames of another simulator: the phantom's anatomy and observers, imaged by PyMUST. All synthetic.

Our phantom smooths a field of scatterers by a point spread function. Here PyMUST (Garcia, Comput Methods Programs
Biomed 2022; 218: 106726) computes the pressure field of a phased array, the echoes of single scatterers at its
elements, and delays and sums them. One diverging wave makes a frame. What stays ours: how strongly tissue scatters, its
attenuation, compression, and the pixels of the display.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.ultrasound.phantom.anatomy import anatomy_of
from pipelines.ultrasound.phantom.imaging import compressed, lost_db, raster, scan_converted, wide_steps
from pipelines.ultrasound.phantom.machines import Machine
from pipelines.ultrasound.phantom.observers import observed, observers_of
from pipelines.ultrasound.phantom.scene import Scene, tissue_in
from pipelines.ultrasound.phantom.study import PhantomFrame, sweep
from vision_core.optional import require
from vision_core.randomness import key

Floats = NDArray[np.float64]

PROBE = "P4-2v"  # 64 elements, 2.72 MHz
# The field and the display; frequency and bandwidth are those of the probe. What it says of beams is not used.
MACHINE = Machine(
    geometry="sector", frequency_mhz=2.72, bandwidth=0.74, depth_mm=60.0, face_mm=11.0, width=80.0, beams=96,
    focus_mm=30.0, f_number=3.0, slice_mm=1.6, dynamic_range_db=60.0, gain_db=0.0, tgc_db_cm=3.4, noise_db=-50.0,
    gamma=1.0,
)  # fmt: skip
_NEAREST_MM = 1.0  # to the array
_UNIFORM = 3  # frames of uniform tissue whose strength over depth is evened out
_SMOOTH = 12  # samples of a beam
_SAMPLES = 1152  # of the echoes at an element, as long as from the deepest corner and more


class Simulator:
    """PyMUST's array and beamformer.

    Args:
        scatterers: Number of scatterers of a frame.
        size: ``(height, width)`` of a frame in pixels.

    Raises:
        MissingDependencyError: PyMUST is not installed.
    """

    def __init__(self, scatterers: int, size: tuple[int, int]) -> None:
        self._must: Any = require("pymust", "the frames of the other simulator are made by it")
        self._count = scatterers
        self._array = self._must.getparam(PROBE)
        self._array.fs = 4 * self._array.fc
        self._delays = self._must.txdelay(self._array, 0.0, np.radians(MACHINE.width))
        self.raster = raster(MACHINE, size)

    def cine(self, subject: int, count: int) -> Iterator[PhantomFrame]:
        """Sweep the array through a subject of the phantom, as ``Phantom.cine``."""
        anatomy, observers = anatomy_of(subject), observers_of(subject)
        for number, pose in enumerate(sweep(MACHINE, anatomy, count, subject)):
            scene = Scene(machine=MACHINE, anatomy=anatomy, pose=pose)
            tissue = tissue_in(scene)
            strength_db = tissue.echo_db - lost_db(MACHINE, tissue)
            signal = self._envelope(strength_db, key("pymust", subject, number)) / self._even[:, None]
            grey = compressed(MACHINE, signal.astype(np.float32))
            yield PhantomFrame(
                image=scan_converted(MACHINE, grey, self.raster),
                masks=observed(scene, tissue, self.raster, observers),
                pose=pose,
            )

    @cached_property
    def _even(self) -> Floats:
        """Root mean square ``(samples,)`` of the envelope of uniform tissue, as a gain over depth takes it away."""
        uniform = np.zeros((1, 1), np.float32)
        powers = [self._envelope(uniform, key("pymust uniform", each)) ** 2 for each in range(_UNIFORM)]
        return np.asarray(np.sqrt(ndimage.gaussian_filter1d(np.mean(powers, axis=(0, 2)), _SMOOTH)), np.float64)

    def _envelope(self, strength_db: NDArray[np.float32], seed: int) -> Floats:
        """Compute the envelope ``(samples, beams)`` of scatterers in tissue ``(n, m)`` over range and all beams."""
        rng = np.random.default_rng(seed)
        steps, face = wide_steps(MACHINE), MACHINE.face_mm
        depth = np.sqrt(rng.uniform(face**2, (face + MACHINE.depth_mm) ** 2, self._count))  # even over the area
        angle = rng.uniform(steps[0], steps[-1], self._count)
        across, down = depth * np.sin(angle), depth * np.cos(angle) - face
        rows = ((depth - face) / MACHINE.depth_mm * len(strength_db)).astype(int).clip(0, len(strength_db) - 1)
        columns = np.searchsorted(steps, angle) * strength_db.shape[1] // (len(steps) + 1)
        amplitude = rng.normal(size=self._count) * 10 ** (strength_db[rows, columns] / 20)
        seen = down > _NEAREST_MM
        echoes, _ = self._must.simus(across[seen] / 1e3, down[seen] / 1e3, amplitude[seen], self._delays, self._array)
        baseband = self._must.rf2iq(echoes, self._array)
        kept = np.zeros((_SAMPLES, baseband.shape[1]), baseband.dtype)  # how long the echoes are differs a little
        kept[: len(baseband)] = baseband[:_SAMPLES]
        summed = self._beamformer @ kept.flatten(order="F")
        return np.asarray(np.abs(summed.reshape((len(MACHINE.ranges), len(MACHINE.steps)), order="F")), np.float64)

    @cached_property
    def _beamformer(self) -> Any:  # noqa: ANN401 (a sparse matrix)
        """Make the matrix that delays and sums echoes at the samples of all beams."""
        x, y = MACHINE.positions(MACHINE.ranges[:, None], MACHINE.steps)
        place = np.asarray(x, np.float64) / 1e3, np.maximum(y, _NEAREST_MM).astype(np.float64) / 1e3
        shape = 1j * np.array([_SAMPLES, self._array.Nelements])
        return self._must.dasmtx(shape, *place, self._delays, self._array)
