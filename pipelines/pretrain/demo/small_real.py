"""A small set of real images: slices and blocks of CT, MR, ultrasound, histology and retina files of packages.

Same-subject: every class comes from one file, training and test from different slices or blocks of it. It compares
methods on real pixels; it cannot show how a network generalises to another patient. An illustration, not evidence.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.pretrain.demo.crops import Area, Piece, Slab, blocks_of, frames_of, slices_of
from vision_core import assets
from vision_core.dicom.reader import inspect_dicom, read_dicom_image
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.images.nifti import NiftiFrames
from vision_core.images.reading import read_image

NOTICE = "same-subject: an illustration"
HELD_OUT_FOLDER = "held_out"
PIECES = "pieces.csv"
HELD_OUT = (
    "CT__head__back",
    "CT__head__front",
    "MR__abdomen__left",
    "MR__abdomen__right",
    "MR__brain-white__sagittal-lateral",
    "MR__brain-white__sagittal-medial",
    "fundus__retina__centre",
    "fundus__retina__edge",
    "histology__colon__ihc",
    "histology__tumour__he",
)
_THREADS = 8
_POSITIONS = (
    ("axial-low", 2, 18),
    ("axial-middle", 2, 60),
    ("axial-high", 2, 104),
    ("coronal-back", 1, 34),
    ("coronal-middle", 1, 98),
    ("coronal-front", 1, 162),
    ("sagittal-lateral", 0, 24),
    ("sagittal-medial", 0, 62),
)
_WINDOW = (slice(24, 173), slice(26, 210), slice(2, 155))  # around the brain
_AREAS: dict[str, tuple[Area, ...]] = {
    "ct_head": (
        Area(concept="CT__head__front", box=(64, 112, 280, 464), grid=(3, 4)),
        Area(concept="CT__head__back", box=(280, 112, 496, 464), grid=(3, 4)),
    ),
    "ct_head_top": (Area(concept="CT__head__top", box=(132, 120, 484, 424), grid=(4, 4)),),
    "ct_spine": (Area(concept="CT__spine__thoracic", box=(0, 0, 128, 128), grid=(4, 4)),),
    "mr_abdomen": (
        Area(concept="MR__abdomen__right", box=(10, 0, 270, 220), grid=(4, 4)),
        Area(concept="MR__abdomen__left", box=(10, 220, 270, 440), grid=(4, 4)),
    ),
    "us_heart": (
        Area(concept="US__heart__near", box=(20, 100, 105, 230), grid=(1, 1)),
        Area(concept="US__heart__far", box=(110, 70, 205, 260), grid=(1, 1)),
    ),
    "us_node": (Area(concept="US__lymph-node__doppler", box=(112, 40, 332, 600), grid=(3, 7)),),
    "skin": (Area(concept="histology__skin__he", box=(0, 0, 2967, 2220), grid=(9, 7)),),
    "colon": (Area(concept="histology__colon__ihc", box=(0, 0, 512, 512), grid=(4, 4)),),
    "tumour": (Area(concept="histology__tumour__he", box=(0, 0, 300, 500), grid=(3, 5)),),
    "retina": (
        Area(concept="fundus__retina__centre", box=(345, 345, 1065, 1065), grid=(4, 4)),
        Area(concept="fundus__retina__edge", box=(0, 240, 250, 1170), grid=(1, 6)),
        Area(concept="fundus__retina__edge", box=(1160, 240, 1411, 1170), grid=(1, 6)),
    ),
}
_ABOUT = f"""{NOTICE}.

Slices of an average brain (T1, grey and white matter, three planes, positions), frames of a cine loop of the heart, and
blocks of single pictures. Every class comes from one file; training, validation and test are other slices, frames or
blocks of it and share no pixel. Nothing here says how a network does on a second patient.

"""


def make_small_real(folder: Path, longest_px: int) -> Mapping[str, int]:
    """Write ``train|val|test/<class>/``, also below ``held_out/``, ``pieces.csv`` and ``ATTRIBUTION.txt``.

    Every call writes the same bytes.

    Args:
        folder: Output folder.
        longest_px: Larger images are reduced to this longer side; smaller ones stay as they are.

    Returns:
        Number of images by class.

    Raises:
        MissingDependencyError: A package that contains some of the files is not installed.
    """
    counts: dict[str, int] = {}
    rows, images = [], {}
    for piece in pieces():
        number = counts[piece.concept] = counts.get(piece.concept, 0) + 1
        kept_in = Path(HELD_OUT_FOLDER) if piece.concept in HELD_OUT else Path()
        name = kept_in / piece.part / piece.concept / f"{number:03d}.png"
        images[folder / name] = _reduced(piece.pixels, longest_px)
        rows.append((name.as_posix(), piece.concept, piece.part, piece.source, piece.place()))
    with ThreadPoolExecutor(_THREADS) as threads:  # a file is flushed to disk before the next: most of it is waiting
        list(threads.map(write_png, images.keys(), images.values()))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("file", "concept", "part", "source", "place"), *rows])
    write_atomic(folder / PIECES, table.getvalue())
    write_atomic(folder / "ATTRIBUTION.txt", _ABOUT + "".join(f"{line}\n" for line in attribution()))
    return counts


def attribution() -> list[str]:
    """Name the sources of the pixels, a sentence each."""
    origins = (assets.brain_volumes_origin(), assets.radiology_files_origin(), assets.aperio_slide_origin())
    return [each.line() for each in (*origins, *assets.photographs_origins())]


def pieces() -> Iterator[Piece]:
    """Cut all images, class by class of each file."""
    for brain, path in assets.brain_volumes().items():
        slabs = [Slab(name=f"MR__brain-{brain}__{at}", axis=axis, start=start) for at, axis, start in _POSITIONS]
        yield from slices_of(f"brain_{brain}", _volume(path), slabs, _WINDOW)
    for name, path in assets.radiology_files().items():
        if name == "us_heart":
            yield from frames_of(name, _frames(path), _AREAS[name])
        else:
            yield from blocks_of(name, read_dicom_image(path), _AREAS[name])
    with Image.open(assets.aperio_slide()) as slide:  # the first page is the scan
        yield from blocks_of("skin", np.array(slide.convert("RGB")), _AREAS["skin"])
    for photograph, path in assets.photographs().items():
        yield from blocks_of(photograph, read_image(path), _AREAS[photograph])


def _volume(path: Path) -> NDArray[np.uint8]:
    """Read a volume ``(x, y, z)`` of 8 bits, as stored."""
    planes = NiftiFrames(path)
    return np.stack([planes.read(z).T for z in range(planes.count)], axis=-1).astype(np.uint8, casting="safe")


def _frames(path: Path) -> NDArray[np.uint8]:
    return np.stack([read_dicom_image(path, frame) for frame in range(inspect_dicom(path).num_frames)])


def _reduced(pixels: NDArray[np.generic], longest_px: int) -> NDArray[np.uint8]:
    image = pixels.astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    height, width = image.shape[:2]
    if max(height, width) <= longest_px:
        return image
    size = [max(1, round(edge * longest_px / max(height, width))) for edge in (width, height)]
    return np.array(Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BOX))
