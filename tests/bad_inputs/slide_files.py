"""TIFFs with the properties of public bug reports, made by code from one picture of stained tissue."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.pipelines.wsi.tiny import picture
from tests.vision_core.slides.tiffs import APERIO

Pixels = NDArray[Any]
TILED: dict[str, Any] = {"tile": (128, 128)}
STRIPS: dict[str, Any] = {"rowsperstrip": 64}
_HALF_MICRON: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}


def tissue() -> NDArray[np.uint8]:
    """The picture in all of these files: ``(512, 640, 3)``, a piece of tissue left of the middle."""
    return np.concatenate([picture(21), np.full((512, 128, 3), 243, np.uint8)], axis=1)


def write(path: Path, pixels: Pixels, layout: dict[str, Any] | None = None, **tags: Any) -> Path:  # noqa: ANN401
    """A TIFF of one directory, of half a micron a pixel, with the tags that ``tifffile`` knows by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"photometric": "rgb", **_HALF_MICRON, **(TILED if layout is None else layout), **tags}
    tifffile.imwrite(path, pixels, **options)
    return path


def set_tag(path: Path, code: int, value: Any, page: int = 0) -> Path:  # noqa: ANN401
    """Overwrite a tag of a directory."""
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[page].tags[code].overwrite(value)  # type: ignore[union-attr]
    return path


# Colours and bits; each with the layout of its tiles or strips.


def channels_as_pages(path: Path, layout: dict[str, Any]) -> Path:
    """Red, green and blue as three pages, as Bio-Formats writes them."""
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    planes = tissue().transpose(2, 0, 1)
    return write(path.with_suffix(".ome.tif"), planes, layout, photometric="minisblack", metadata=metadata)


def turned(path: Path, layout: dict[str, Any], orientation: int = 3) -> Path:
    """A tag that asks viewers to turn or mirror the image."""
    return write(path, tissue(), layout, extratags=[(274, 3, 1, orientation, True)])


def twelve_bits(path: Path, layout: dict[str, Any]) -> Path:
    """Twelve bits in sixteen, as cameras give them."""
    return write(path, tissue().astype(np.uint16) * 16, layout)


def signed(path: Path, layout: dict[str, Any]) -> Path:
    """Eight signed bits."""
    return write(path, (tissue().astype(np.int16) - 128).astype(np.int8), layout)


def floats(path: Path, layout: dict[str, Any]) -> Path:
    """Values between zero and one."""
    return write(path, tissue().astype(np.float32) / 255, layout)


def cmyk(path: Path, layout: dict[str, Any]) -> Path:
    """The inks of a printer, with some black."""
    inks = 255 - tissue()
    return write(path, np.concatenate([inks, inks.min(axis=2, keepdims=True)], axis=2), layout, photometric="separated")


def with_alpha(path: Path, layout: dict[str, Any], kind: str, alpha: int = 102) -> Path:
    """A fourth channel: ``unspecified``, ``assocalpha`` (premultiplied, which it is not) or ``unassalpha``."""
    fourth = np.full((*tissue().shape[:2], 1), alpha, np.uint8)
    return write(path, np.concatenate([tissue(), fourth], axis=2), layout, extrasamples=[kind])


def fourth_channel_not_listed(path: Path, layout: dict[str, Any]) -> Path:
    """A fourth channel without the tag that says what it is."""
    content = with_alpha(path, layout, "unspecified").read_bytes()
    entry = struct.pack("<HHIHH", 338, 3, 1, 0, 0)
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, struct.pack("<HHIHH", 65_338, 3, 1, 0, 0)))
    return path


def fluorescence(path: Path, layout: dict[str, Any]) -> Path:
    """Four stains, each in a channel of its own."""
    stains = np.concatenate([255 - tissue(), tissue()[..., :1]], axis=2)
    return write(path, stains, layout, photometric="minisblack", planarconfig="contig", extrasamples=[0, 0, 0])


def many_channels(path: Path, layout: dict[str, Any]) -> Path:
    """Five channels of sixteen bits as pages."""
    stack = np.stack([tissue()[..., 0].astype(np.uint16) * (each + 1) for each in range(5)])
    return write(path.with_suffix(".ome.tif"), stack, layout, photometric="minisblack", metadata={"axes": "CYX"})


def focal_planes(path: Path, layout: dict[str, Any]) -> Path:
    """Three focal planes in colour."""
    stack = np.stack([np.roll(tissue(), each, axis=1) for each in range(3)])
    return write(path.with_suffix(".ome.tif"), stack, layout, metadata={"axes": "ZYXS"})


def planes_in_other_files(path: Path, layout: dict[str, Any]) -> Path:
    """The first of three files of an OME data set: its description tells of channels that stand elsewhere."""
    pixels = '<Pixels ID="Pixels:0" SizeX="640" SizeY="512" SizeC="9" SizeZ="1" SizeT="1" Type="uint8"/>'
    ome = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">{pixels}</Image></OME>'
    return write(path, tissue(), layout, description=ome, metadata=None)


def grey(path: Path, layout: dict[str, Any]) -> Path:
    """One grey channel."""
    return write(path, cv2.cvtColor(tissue(), cv2.COLOR_RGB2GRAY), layout, photometric="minisblack")


def white_is_zero(path: Path, layout: dict[str, Any]) -> Path:
    """One grey channel whose zero is white."""
    return write(path, 255 - cv2.cvtColor(tissue(), cv2.COLOR_RGB2GRAY), layout, photometric="miniswhite")


def palette(path: Path, layout: dict[str, Any]) -> Path:
    """256 colours, each pixel the number of one."""
    colours = np.linspace((90, 40, 120), (243, 241, 244), 256).astype(np.uint16).T * 257
    return write(path, cv2.cvtColor(tissue(), cv2.COLOR_RGB2GRAY), layout, photometric="palette", colormap=colours)


def palette_of_greys(path: Path, layout: dict[str, Any]) -> Path:
    """A palette without colour."""
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    return write(path, cv2.cvtColor(tissue(), cv2.COLOR_RGB2GRAY), layout, photometric="palette", colormap=ramp)


def separate_planes(path: Path, layout: dict[str, Any]) -> Path:
    """Red, green and blue each in tiles of its own, which is sound."""
    return write(path, tissue().transpose(2, 0, 1), layout, planarconfig="separate")


def not_marked_as_rgb(path: Path, layout: dict[str, Any]) -> Path:
    """Three samples that the directory calls grey."""
    return write(path, tissue(), layout, photometric="minisblack", planarconfig="contig")


def lab(path: Path, layout: dict[str, Any]) -> Path:
    """CIELab under eight bits."""
    return write(path, cv2.cvtColor(tissue(), cv2.COLOR_RGB2LAB), layout, photometric="cielab")


def log_luv(path: Path, layout: dict[str, Any]) -> Path:
    """The directory says LogLuv."""
    return set_tag(write(path, tissue(), layout), 262, 32845)


def ycbcr_without_jpeg(path: Path, layout: dict[str, Any]) -> Path:
    """Luminance and two colour differences, not compressed."""
    pixels = cv2.cvtColor(tissue(), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    return write(path, pixels, layout, photometric="ycbcr", extratags=[(530, 3, 2, (1, 1), True)])


def old_jpeg(path: Path, layout: dict[str, Any]) -> Path:
    """The directory says old-style JPEG."""
    return set_tag(write(path, tissue(), layout), 259, 6)


def unknown_compression(path: Path, layout: dict[str, Any]) -> Path:
    """LERC, which no reader here knows."""
    return set_tag(write(path, tissue(), layout), 259, 34887)


# Levels and directories.


def thumbnail_first(path: Path, layout: dict[str, Any], *, is_reduced: bool = False) -> Path:
    """A thumbnail in front of the image, as some converters write it."""
    kind = 1 if is_reduced else 0
    with tifffile.TiffWriter(path) as file:
        file.write(
            np.ascontiguousarray(tissue()[::4, ::4]), photometric="rgb", subfiletype=kind, **layout, **_HALF_MICRON
        )
        file.write(tissue(), photometric="rgb", **TILED, **_HALF_MICRON)
    return path


def image_below_a_thumbnail(path: Path, layout: dict[str, Any]) -> Path:
    """The image in a sub-directory of its thumbnail."""
    with tifffile.TiffWriter(path) as file:
        small = np.ascontiguousarray(tissue()[::4, ::4])
        file.write(small, photometric="rgb", subifds=1, **layout, **_HALF_MICRON)
        file.write(tissue(), photometric="rgb", **TILED, **_HALF_MICRON)
    return path


def padded_level(path: Path, layout: dict[str, Any], size: tuple[int, int] = (384, 256)) -> Path:
    """Level 1, half the size of level 0, padded to whole tiles in one direction, as Philips writes it."""
    half = cv2.resize(tissue(), (320, 256), interpolation=cv2.INTER_AREA)
    canvas = np.full((max(size[1], 256), max(size[0], 320), 3), 243, np.uint8)
    canvas[:256, :320] = half
    return two_levels(path, layout, canvas[: size[1], : size[0]])


def picture_of_the_glass(path: Path, layout: dict[str, Any]) -> Path:
    """A macro image of the slide's own proportions, marked as Aperio marks it."""
    glass = cv2.resize(255 - tissue(), (160, 128), interpolation=cv2.INTER_AREA)
    with tifffile.TiffWriter(path) as file:
        file.write(tissue(), photometric="rgb", **layout, **_HALF_MICRON)
        file.write(glass, photometric="rgb", subfiletype=9, **layout)
    return path


def stretched_level(path: Path, layout: dict[str, Any]) -> Path:
    """Level 1 of half the width and a quarter of the height."""
    return two_levels(path, layout, cv2.resize(tissue(), (320, 128), interpolation=cv2.INTER_AREA))


def two_levels(path: Path, layout: dict[str, Any], second: Pixels) -> Path:
    """The picture, and a reduced image."""
    with tifffile.TiffWriter(path) as file:
        file.write(tissue(), photometric="rgb", **layout, **_HALF_MICRON)
        file.write(np.ascontiguousarray(second), photometric="rgb", subfiletype=1, **layout)
    return path


def of_a_picture_editor(path: Path, layout: dict[str, Any]) -> Path:
    """2400 dots an inch in the tags, half a micron a pixel in the description."""
    pixels = 'SizeX="640" SizeY="512" SizeC="3" PhysicalSizeX="0.5" PhysicalSizeY="0.5" Type="uint8"'
    ome = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {pixels}/></Image></OME>'
    scale = {"resolution": (2400, 2400), "resolutionunit": "INCH"}
    return write(path, tissue(), layout, description=ome, metadata=None, **scale)


def mirax_alone(path: Path) -> Path:
    """The file that stands beside the folder of a MIRAX slide: a JPEG."""
    path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(tissue()), quality=90))
    return path


# Tiles that are not stored.


def without_tiles(path: Path, layout: dict[str, Any], missing: Callable[[int], bool]) -> Path:
    """Tiles or strips of length 0 at no place, as sparse files have them."""
    write(path, tissue(), layout)
    codes = (324, 325) if "tile" in layout else (273, 279)
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        for code in codes:
            tags[code].overwrite(tuple(0 if missing(each) else value for each, value in enumerate(tags[code].value)))
    return path


# JPEG that contradicts what stands in front of it.


def mislabelled_jpeg(path: Path, *, is_rgb_in_header: bool, mark: bytes) -> Path:
    """One JPEG of YCbCr as the only tile, with this mark, behind a directory that may say RGB."""
    stream = bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(tissue()[:, :512]), quality=90, colorsubsampling="444"))
    return _one_tile(path, marked(stream, mark), 512, photometric=2 if is_rgb_in_header else 6)


JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
ADOBE_YCBCR = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"


def marked(stream: bytes, mark: bytes) -> bytes:
    """The JPEG with its own JFIF segment replaced."""
    length = int.from_bytes(stream[4:6], "big")
    assert stream[2:4] == b"\xff\xe0"
    return stream[:2] + mark + stream[4 + length :]


def transformed_jpeg2000(path: Path) -> Path:
    """Aperio's JPEG 2000 that should hold YCbCr, and transforms its colours itself."""
    stream = io.BytesIO()
    Image.fromarray(tissue()[:, :512]).save(stream, "JPEG2000", no_jp2=True, irreversible=True, mct=1)
    return _one_tile(path, stream.getvalue(), 512, photometric=2, compression=33003)


def _one_tile(path: Path, data: bytes, side: int, photometric: int, compression: int = 7) -> Path:
    """A TIFF byte by byte: one tile."""
    data += b"\0" * (len(data) % 2)
    start = 8 + len(data)
    described = APERIO.encode() + b"\0"
    tags = {
        256: (4, side),
        257: (4, side),
        258: (3, 3),
        259: (3, compression),
        262: (3, photometric),
        270: (2, 0),
        277: (3, 3),
        282: (5, 0),
        283: (5, 0),
        284: (3, 1),
        296: (3, 3),
        322: (4, side),
        323: (4, side),
        324: (4, 8),
        325: (4, len(data)),
    }
    extra_at = start + 2 + 12 * len(tags) + 4
    entries = b""
    for code, (kind, value) in sorted(tags.items()):
        if code == 258:
            entries += struct.pack("<HHII", code, kind, 3, extra_at)
        elif code == 270:
            entries += struct.pack("<HHII", code, kind, len(described), extra_at + 16)
        elif kind == 5:
            entries += struct.pack("<HHII", code, kind, 1, extra_at + 8)
        else:
            entries += struct.pack("<HHII", code, kind, 1, value)
    extra = struct.pack("<HHHH", 8, 8, 8, 0) + struct.pack("<II", 20_000, 1) + described
    head = struct.pack("<2sHI", b"II", 42, start)
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + extra)
    return path
