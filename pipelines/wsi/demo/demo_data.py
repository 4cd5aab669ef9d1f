"""Demo slides: real tissue of one scanned region, recomposed, with a synthetic alteration to detect.

All pixels come from one slide: an illustration, not evidence. The region is divided between five groups before anything
is composed, and a slide is made of its group's pixels alone, so that folds by group share no pixel.

Half of the patients carry a few foci of altered nuclei (``alteration.py``); the others carry sham foci, drawn alike.
Layout, outline, stain and scanner are drawn without regard to the label.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipelines.wsi.demo.alteration import MARGIN_PX, Change, Focus, change_focus
from pipelines.wsi.demo.blocks import Pool, divide
from pipelines.wsi.demo.composing import compose, draw_outline
from pipelines.wsi.demo.nuclei import Nucleus, find_nuclei
from pipelines.wsi.demo.pictures import Floats, Picture
from pipelines.wsi.demo.stains import draw_look, restain
from vision_core.assets import aperio_slide, aperio_slide_origin
from vision_core.console import track
from vision_core.files import atomic_path, write_atomic
from vision_core.randomness import key
from vision_core.results import RESEARCH_NOTICE

CLASSES = ("normal", "synthetic_alteration")
ALTERED = Change(scales=(1.35, 1.8), grain=0.23, exchanged=0.3, added=10.0)
SHAM = Change(scales=(1.0, 1.0), grain=0.0, exchanged=0.3, added=0.0)
MPP = 0.5  # the region's own is 0.499
SIDE_PX = 1280

_SPLITS = ("train", "train", "train", "val", "test")  # list of each group under data.protocol=given without folds
_PATIENTS = 16  # of each group; every second one is altered
_PATIENTS_WITH_TWO = 8
_TISSUE_SHARES = (0.55, 0.65)
_FOCI = 2
_RADII_PX = (110, 135)
_LEAST_DEPTH = 0.7  # of the radius, between a focus' centre and the edge of the tissue
_FILE_TILE_PX = 256
_THREADS = 2  # each takes about 200 MB


@dataclass(frozen=True, kw_only=True)
class DemoSlide:
    """Plan of one slide: a row of ``labels.csv``."""

    slide: str
    label: str
    patient: str
    split: str
    fold: int

    @property
    def change(self) -> Change:
        """Alteration of its foci."""
        return ALTERED if self.label == CLASSES[1] else SHAM


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Source pixels and nuclei of the slides of a group."""

    pool: Pool
    nuclei: Sequence[Nucleus]


def make_demo_data(folder: Path, slides: Sequence[DemoSlide] = (), side_px: int = SIDE_PX) -> Path:
    """Write the demo data, the same bytes at every call.

    These are ``slides/<name>.tif``, ``labels.csv``, ``foci.csv`` and ``ATTRIBUTION.txt``.

    Args:
        folder: Folder to write to.
        slides: Some of ``plan_slides``; empty: all.
        side_px: Width and height of a slide, at least 512.

    Raises:
        MissingDependencyError: The package that carries the region is not installed.
        EnvironmentFault: ``folder`` cannot be written to.
    """
    slides = slides or plan_slides()
    make = partial(_make_slide, folder / "slides", read_tissues(), side_px)
    with ThreadPoolExecutor(_THREADS) as threads:
        foci = list(track(threads.map(make, slides), len(slides), "demo slides", "slides"))
    write_atomic(folder / "labels.csv", _table([vars(slide) for slide in slides]))
    write_atomic(folder / "foci.csv", _table([row for rows in foci for row in rows]))
    write_atomic(folder / "ATTRIBUTION.txt", _attribution())
    return folder


def plan_slides() -> list[DemoSlide]:
    """Plan all slides: balanced classes in every group, names in random order."""
    drawn = [
        (group, patient)
        for group in range(len(_SPLITS))
        for patient in range(_PATIENTS)
        for _ in range(2 if patient < _PATIENTS_WITH_TWO else 1)
    ]
    order = np.random.default_rng(key("wsi demo", "names")).permutation(len(drawn))
    return [_planned(number, *drawn[place]) for number, place in enumerate(order)]


def read_tissues() -> list[Tissue]:
    """Read the tissue of every group."""
    import pyvips  # an extra: the task is also used without it

    region = pyvips.Image.tiffload(str(aperio_slide())).numpy()[..., :3]
    pools = divide(region, len(_SPLITS))
    return [
        Tissue(pool=pool, nuclei=[found for block in pool.blocks for found in find_nuclei(block)]) for pool in pools
    ]


def draw_slide(slide: DemoSlide, tissue: Tissue, side_px: int) -> tuple[Picture, list[Focus]]:
    """Draw a slide in the region's own stain, and return its foci."""
    generator = np.random.default_rng(key("wsi demo", "layout", slide.slide))
    outline = draw_outline(side_px, generator.uniform(*_TISSUE_SHARES), generator)
    picture = compose(tissue.pool, outline, generator)
    foci = place_foci(outline, generator)
    for focus in foci:
        change_focus(picture, focus, slide.change, tissue.nuclei, generator)
    return picture, foci


def place_foci(outline: Floats, generator: np.random.Generator) -> list[Focus]:
    """Place foci deep in tissue and apart from each other; fewer without room."""
    tissue = (outline > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(tissue, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    foci: list[Focus] = []
    for radius in generator.integers(*_RADII_PX, size=_FOCI, endpoint=True).tolist():
        reach = radius + MARGIN_PX
        places = reach + np.argwhere(depth[reach:-reach, reach:-reach] >= _LEAST_DEPTH * radius)
        if len(places):
            y, x = generator.choice(places).tolist()
            foci.append(Focus(x=x, y=y, radius=radius))
            cv2.circle(depth, (x, y), 2 * _RADII_PX[1], 0, -1)
    return foci


def write_slide(path: Path, picture: Picture, jpeg_quality: int) -> None:
    """Write a tiled JPEG pyramid with its microns per pixel, atomically."""
    import pyvips

    with atomic_path(path) as partial_path:
        pyvips.Image.new_from_array(picture).tiffsave(
            str(partial_path),
            compression="jpeg",
            Q=jpeg_quality,
            pyramid=True,
            tile=True,
            tile_width=_FILE_TILE_PX,
            tile_height=_FILE_TILE_PX,
            xres=1000 / MPP,
            yres=1000 / MPP,
        )


def _planned(number: int, group: int, patient: int) -> DemoSlide:
    return DemoSlide(
        slide=f"slide-{number:03d}",
        label=CLASSES[patient % len(CLASSES)],
        patient=f"patient-{group * _PATIENTS + patient:02d}",
        split=_SPLITS[group],
        fold=group,
    )


def _make_slide(folder: Path, tissues: Sequence[Tissue], side_px: int, slide: DemoSlide) -> list[dict[str, object]]:
    picture, foci = draw_slide(slide, tissues[slide.fold], side_px)
    look = draw_look(np.random.default_rng(key("wsi demo", "look", slide.slide)))
    write_slide(folder / f"{slide.slide}.tif", restain(picture, look), look.jpeg_quality)
    return [{"slide": slide.slide, "label": slide.label, **vars(focus)} for focus in foci]


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _attribution() -> str:
    return (
        f"{aperio_slide_origin().line()}\n"
        "Cut into blocks and recomposed; nuclei altered, stain and scanner varied by rendering.\n"
        "All pixels come from one slide: an illustration, not evidence. The alteration is synthetic.\n"
        f"{RESEARCH_NOTICE}\n"
    )
