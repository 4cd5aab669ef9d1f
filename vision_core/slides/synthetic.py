"""Made slides of any size, for tests and benchmarks: grained tissue in H&E colours on glass, written as scanners do."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_core.files import atomic_path
from vision_core.optional import require
from vision_core.randomness import key

_PATCH_PX = 1024
_GLASS = (243, 241, 244)
_COLOURS = np.array([(232, 178, 205), (214, 140, 186), (124, 84, 152)], np.float32)  # stroma, cytoplasm, nuclei
_MM_IN_UM = 1000.0


@dataclass(frozen=True, kw_only=True)
class MadeSlide:
    """What to write.

    Attributes:
        width: Pixels of level 0.
        height: Likewise.
        mpp: Microns per pixel.
        tile_px: Side of the file's tiles.
        tissue: Share of the slide that a disc of tissue covers, at most 0.78.
        quality: Of the JPEG; from 90 on its colours are not subsampled.
        is_aperio: Described as an Aperio slide, objective and pixel size included; else a plain tiled TIFF.
        seed: The same seed makes the same slide.
    """

    width: int
    height: int
    mpp: float = 0.5
    tile_px: int = 256
    tissue: float = 0.3
    quality: int = 80
    is_aperio: bool = True
    seed: int = 0

    @property
    def radius(self) -> float:
        """Pixels from the centre of the slide to the end of its tissue."""
        return float(np.sqrt(self.tissue * self.width * self.height / np.pi))

    def has_tissue(self, x: float, y: float) -> bool:
        """Whether there is tissue at a pixel of level 0."""
        return bool(np.hypot(x - self.width / 2, y - self.height / 2) < self.radius)


def write_made_slide(path: Path, made: MadeSlide) -> Path:
    """Write a pyramid of JPEG tiles, each level half of the one before; memory does not grow with its size.

    Returns:
        ``path``.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    vips = require("pyvips", why="it writes made slides")
    image = _picture(vips, made)
    if made.is_aperio:
        image = image.copy()
        image.set_type(vips.GValue.gstr_type, "image-description", _description(made))
    options = {"tile": True, "tile_width": made.tile_px, "tile_height": made.tile_px, "pyramid": True}
    with atomic_path(path) as partial_path:
        image.tiffsave(
            str(partial_path),
            compression="jpeg",
            Q=made.quality,
            bigtiff=made.width * made.height > 10**9,
            resunit="cm",
            xres=_MM_IN_UM / made.mpp,
            yres=_MM_IN_UM / made.mpp,
            **options,
        )
    return path


def _picture(vips, made: MadeSlide):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Rows as they are asked for: a patch repeated, cut to a disc."""
    patch = vips.Image.new_from_array(_patch(made.seed))
    across, down = -(-made.width // _PATCH_PX), -(-made.height // _PATCH_PX)
    tissue = patch.replicate(across, down).crop(0, 0, made.width, made.height)
    place = vips.Image.xyz(made.width, made.height)
    distance = (place[0] - made.width / 2) ** 2 + (place[1] - made.height / 2) ** 2
    return (distance < made.radius**2).ifthenelse(tissue, list(_GLASS)).cast("uchar").copy(interpretation="srgb")


def _patch(seed: int) -> NDArray[np.uint8]:
    """``(1024, 1024, 3)`` uint8 without a seam where it repeats."""
    generator = np.random.default_rng(key("made slide", seed))
    density = sum(_noise(generator, wavelength) for wavelength in (9.0, 28.0, 150.0)) / 3
    shade = np.clip(density * 1.6 + 1.0, 0, 2)[..., None]
    colours = np.where(
        shade < 1,
        _COLOURS[0] + shade * (_COLOURS[1] - _COLOURS[0]),
        _COLOURS[1] + (shade - 1) * (_COLOURS[2] - _COLOURS[1]),
    )
    grain = generator.normal(0, 3, colours.shape)
    return np.asarray(np.clip(colours + grain, 0, 255), np.uint8)


def _noise(generator: np.random.Generator, wavelength: float) -> NDArray[np.float64]:
    """``(1024, 1024)``, waves of about one length in all directions, of unit spread, that join at the edges."""
    frequency = np.hypot(np.fft.fftfreq(_PATCH_PX)[:, None], np.fft.rfftfreq(_PATCH_PX)[None])
    spectrum = np.fft.rfft2(generator.normal(size=(_PATCH_PX, _PATCH_PX)))
    waves = np.fft.irfft2(spectrum * np.exp(-(((frequency * wavelength - 1) / 0.5) ** 2)))
    return np.asarray(waves / waves.std(), np.float64)


def _description(made: MadeSlide) -> str:
    power = 10 / made.mpp
    size = f"{made.width}x{made.height}"
    tile = f"{made.tile_px}x{made.tile_px}"
    return (
        f"Aperio Image Library (made)\n{size} ({tile}) JPEG/YCC Q={made.quality}|AppMag = {power:g}|MPP = {made.mpp:g}"
    )
