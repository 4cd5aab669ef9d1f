"""Synthetic slides of any size, with tissue in H&E colours."""

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
class SyntheticSlide:
    """Description of a synthetic slide.

    Attributes:
        width: Of level 0, in pixels.
        height: Of level 0, in pixels.
        mpp: Microns per pixel of level 0.
        tile_px: Side of the tiles in the file.
        tissue: Share of the slide that a disc of tissue covers, at most 0.78.
        quality: Of the JPEG; from 90 on, colours are not subsampled.
        is_aperio: Written with the description of an Aperio slide, else as a plain tiled TIFF.
        seed: Equal seeds give equal slides.
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
        """Return the radius of the tissue in pixels of level 0."""
        return float(np.sqrt(self.tissue * self.width * self.height / np.pi))

    def has_tissue(self, x: float, y: float) -> bool:
        """Return whether a pixel of level 0 is tissue."""
        return bool(np.hypot(x - self.width / 2, y - self.height / 2) < self.radius)


def write_synthetic_slide(path: Path, slide: SyntheticSlide) -> Path:
    """Write a slide as a pyramid of JPEG tiles, in bounded memory.

    Returns:
        ``path``.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    vips = require("pyvips", why="it writes synthetic slides")
    image = _slide_image(vips, slide)
    if slide.is_aperio:
        image = image.copy()
        image.set_type(vips.GValue.gstr_type, "image-description", _description(slide))
    options = {"tile": True, "tile_width": slide.tile_px, "tile_height": slide.tile_px, "pyramid": True}
    with atomic_path(path) as partial_path:
        image.tiffsave(
            str(partial_path),
            compression="jpeg",
            Q=slide.quality,
            bigtiff=slide.width * slide.height > 10**9,
            resunit="cm",
            xres=_MM_IN_UM / slide.mpp,
            yres=_MM_IN_UM / slide.mpp,
            **options,
        )
    return path


def _slide_image(vips, slide: SyntheticSlide):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Compose the slide lazily: a repeated patch, cut to a disc."""
    patch = vips.Image.new_from_array(_tissue_patch(slide.seed))
    across, down = -(-slide.width // _PATCH_PX), -(-slide.height // _PATCH_PX)
    tissue = patch.replicate(across, down).crop(0, 0, slide.width, slide.height)
    position = vips.Image.xyz(slide.width, slide.height)
    distance = (position[0] - slide.width / 2) ** 2 + (position[1] - slide.height / 2) ** 2
    return (distance < slide.radius**2).ifthenelse(tissue, list(_GLASS)).cast("uchar").copy(interpretation="srgb")


def _tissue_patch(seed: int) -> NDArray[np.uint8]:
    """Draw seamless tissue ``(1024, 1024, 3)`` uint8, to be repeated."""
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
    """Draw periodic band-pass noise ``(1024, 1024)`` of unit standard deviation."""
    frequency = np.hypot(np.fft.fftfreq(_PATCH_PX)[:, None], np.fft.rfftfreq(_PATCH_PX)[None])
    spectrum = np.fft.rfft2(generator.normal(size=(_PATCH_PX, _PATCH_PX)))
    waves = np.fft.irfft2(spectrum * np.exp(-(((frequency * wavelength - 1) / 0.5) ** 2)))
    return np.asarray(waves / waves.std(), np.float64)


def _description(slide: SyntheticSlide) -> str:
    power = 10 / slide.mpp
    size = f"{slide.width}x{slide.height}"
    tile = f"{slide.tile_px}x{slide.tile_px}"
    tags = f"AppMag = {power:g}|MPP = {slide.mpp:g}"
    return f"Aperio Image Library (made)\n{size} ({tile}) JPEG/YCC Q={slide.quality}|{tags}"
