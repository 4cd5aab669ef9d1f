"""The slides of the museum: code that makes each of group E's files, named after its row."""

from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.pipelines.wsi.tiny import picture, write_pyramid
from vision_core.assets import aperio_slide
from vision_core.slides.reading.slide import open_slide

_GLASS = 243
_PEN, _DAB = (20, 120, 60), (140, 90, 50)


def e01_junk(folder: Path) -> Path:
    """Random bytes under a slide's name."""
    path = folder / "junk.svs"
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    return path


def e01_zeros(folder: Path) -> Path:
    """What a failed copy leaves: the right length, and zeros."""
    path = folder / "zeros.svs"
    path.write_bytes(bytes(50_000))
    return path


def e04_jpeg_as_slide(folder: Path) -> Path:
    """A JPEG with a slide's suffix, which OpenSlide would open as a slide of one level."""
    path = folder / "photo.svs"
    Image.fromarray(picture(1)).save(path, "JPEG")
    return path


def e05_no_mpp(folder: Path) -> Path:
    """A pyramid that does not say how large a pixel is."""
    return write_pyramid(folder / "silent.tif", picture(2), mpp=None)


def e06_absurd_mpp(folder: Path) -> Path:
    """The resolution of a screen, 72 dots an inch, which image editors write: 353 microns per pixel."""
    return write_pyramid(folder / "absurd.tif", picture(3), mpp=25_400 / 72)


def e06_oblong_pixels(folder: Path) -> Path:
    """Pixels that are a tenth higher than wide."""
    path = write_pyramid(folder / "oblong.tif", picture(4))
    with tifffile.TiffFile(path, mode="r+") as file:
        for page in file.pages:
            page.tags["XResolution"].overwrite((56_000, 1))  # type: ignore[union-attr]
    return path


def e07_no_objective(folder: Path) -> Path:
    """A pyramid that tells its pixels' size and not its objective's power."""
    return write_pyramid(folder / "lensless.tif", picture(5))


def e09_strips(folder: Path) -> Path:
    """One level in strips instead of tiles."""
    path = folder / "strips.tif"
    tifffile.imwrite(path, picture(6), resolution=(20_000, 20_000), resolutionunit="CENTIMETER", rowsperstrip=8)
    return path


def e10_glass(folder: Path) -> Path:
    """Nothing on the glass."""
    return write_pyramid(folder / "glass.tif", np.full((512, 512, 3), _GLASS, np.uint8))


def e11_pen(folder: Path) -> Path:
    """A third of the piece under green ink."""
    return write_pyramid(folder / "pen.tif", _painted(7, _PEN, share=0.33))


def e11_blur(folder: Path) -> Path:
    """Real tissue out of focus."""
    with open_slide(aperio_slide()) as slide:
        sharp = slide.read(0, 800, 1600, 1024, 512)
    return write_pyramid(folder / "blur.tif", np.asarray(cv2.GaussianBlur(sharp, (0, 0), 6), np.uint8))


def e12_another_stain(folder: Path) -> Path:
    """Brown instead of pink: immunohistochemistry."""
    return write_pyramid(folder / "brown.tif", _painted(8, _DAB, share=0.9))


def e24_name_on_the_label(folder: Path) -> Path:
    """The real Aperio file: label and macro image are junk, so that whoever decodes them meets an error."""
    path = folder / "labelled.svs"
    path.write_bytes(aperio_slide().read_bytes())
    with tifffile.TiffFile(path) as file:
        pages = [page for page in file.pages if not page.is_tiled]  # type: ignore[union-attr]
        places = [place for page in pages for place in zip(page.dataoffsets, page.databytecounts, strict=True)]
    with path.open("r+b") as opened:
        for offset, count in places:
            opened.seek(offset)
            opened.write(np.random.default_rng(0).bytes(count))
    return path


def _painted(seed: int, colour: tuple[int, int, int], share: float) -> NDArray[np.uint8]:
    """The piece of tissue of ``picture``, its left ``share`` in another colour."""
    image = picture(seed)
    tissue = image.min(axis=2) < 200
    edge = int(np.quantile(np.nonzero(tissue)[1], share))
    tissue[:, edge:] = False
    grain = np.random.default_rng(seed).normal(0, 6, (np.count_nonzero(tissue), 3))
    image[tissue] = np.clip(grain + colour, 0, 255)
    return image
