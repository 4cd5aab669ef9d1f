"""Image files that are easily read wrong: made by code, their right values by hand."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.bad_inputs.dicom_values import lab_profile
from vision_core.errors import InputError
from vision_core.images.reading import read_noted_image
from vision_core.images.untrusted import UntrustedImages

Shown = tuple[Path, NDArray[Any]]
_DRAW = np.random.default_rng(0)
DEEP = _DRAW.integers(0, 65536, (20, 24, 3)).astype(np.uint16)
FLAT = (_DRAW.integers(0, 256, (20, 24, 3))).astype(np.uint8)


def _scaled(values: NDArray[Any], bits: int) -> NDArray[Any]:
    shades = np.rint(values * (255 / (2.0**bits - 1)))
    return shades if shades.ndim == 3 else np.repeat(shades[..., None], 3, axis=2)


def _grey(folder: Path, bits: int, suffix: str = "png", **options: Any) -> Shown:  # noqa: ANN401 (of tifffile)
    values = DEEP[..., 0] >> (16 - bits)
    values[0, 0] = 2**bits - 1
    path = folder / f"grey.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, values, **options)
    else:
        Image.fromarray(values).save(path)
    right = _scaled(values, bits)
    return path, 255 - right if options.get("photometric") == "miniswhite" else right


def _colour(folder: Path, bits: int, suffix: str = "png") -> Shown:
    values = DEEP >> (16 - bits)
    values[0, 0] = 2**bits - 1
    path = folder / f"colour.{suffix}"
    assert cv2.imwrite(str(path), values[..., ::-1])
    return path, _scaled(values, bits)


def _deep_alpha(folder: Path) -> Shown:
    alpha = np.where(np.arange(24) % 2, 0, 65535).astype(np.uint16)
    values = np.dstack([DEEP, np.broadcast_to(alpha, (20, 24))])
    assert cv2.imwrite(str(folder / "alpha.png"), values[..., [2, 1, 0, 3]])
    return folder / "alpha.png", np.where(alpha[:, None] > 0, _scaled(DEEP, 16), 255)


def _deep_turned(folder: Path) -> Shown:
    """Colours of 16 bits, to be turned by 90 degrees."""
    path, right = _colour(folder, 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    content, block = path.read_bytes(), exif.tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(content[:33] + _chunk(b"eXIf", block) + content[33:])
    return path, np.rot90(right, -1)


def _chunk(kind: bytes, content: bytes) -> bytes:
    import zlib

    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def _turned(folder: Path, suffix: str, orientation: int) -> Shown:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / f"turned.{suffix}"
    Image.fromarray(FLAT).save(path, exif=exif)
    turns = {3: lambda x: np.rot90(x, 2), 6: lambda x: np.rot90(x, -1), 2: lambda x: x[:, ::-1]}
    return path, turns[orientation](FLAT)


def _transparent_palette(folder: Path) -> Shown:
    """A palette of red and, seen through, blue."""
    image = Image.fromarray((np.arange(480) % 2).reshape(20, 24).astype(np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(folder / "palette.png", transparency=1)
    return folder / "palette.png", np.where((np.arange(480) % 2).reshape(20, 24, 1), 255, [255, 0, 0])


def _grey_alpha(folder: Path) -> Shown:
    values = np.dstack([np.full((20, 24), 100), np.full((20, 24), 51)]).astype(np.uint8)
    Image.fromarray(values, mode="LA").save(folder / "la.png")
    return folder / "la.png", np.full((20, 24, 3), 224)


def _one_bit(folder: Path) -> Shown:
    Image.fromarray(FLAT[..., 0] > 127).save(folder / "bit.png")
    return folder / "bit.png", np.repeat(np.where(FLAT[..., :1] > 127, 255, 0), 3, axis=2)


def _cmyk(folder: Path, suffix: str) -> Shown:
    """Red and black in CMYK; a JPEG has Adobe's inverted values."""
    values = np.zeros((16, 16, 4), np.uint8)
    values[:, :8] = 0, 255, 255, 0
    values[:, 8:] = 0, 0, 0, 255
    Image.fromarray(values, mode="CMYK").save(folder / f"cmyk.{suffix}", quality=100)
    return folder / f"cmyk.{suffix}", np.where(np.arange(16)[:, None] < 8, [255, 0, 0], 0) * np.ones((16, 1, 1))


def _float(folder: Path) -> Shown:
    """Floating-point values that are whole and of 8 bits."""
    tifffile.imwrite(folder / "float.tif", FLAT[..., 0].astype(np.float32))
    return folder / "float.tif", np.repeat(FLAT[..., :1], 3, axis=2)


def _profile(folder: Path) -> Shown:
    Image.fromarray(FLAT).save(folder / "profile.png", icc_profile=lab_profile())
    return folder / "profile.png", FLAT


def _srgb(folder: Path) -> Shown:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(FLAT).save(folder / "srgb.png", icc_profile=profile)
    return folder / "srgb.png", FLAT


def _linear(folder: Path) -> Shown:
    """A PNG that says its values are linear."""
    Image.fromarray(FLAT).save(folder / "linear.png")
    content = (folder / "linear.png").read_bytes()
    (folder / "linear.png").write_bytes(content[:33] + _chunk(b"gAMA", (100_000).to_bytes(4, "big")) + content[33:])
    return folder / "linear.png", FLAT


def _pages(folder: Path) -> Shown:
    tifffile.imwrite(folder / "pages.tif", np.stack([FLAT, 255 - FLAT]), photometric="rgb")
    return folder / "pages.tif", FLAT


USED = "uses {} of its 16 bits or more a sample, and is read as such"
CASES: dict[str, tuple[Callable[[Path], Shown], str | None]] = {
    **{f"grey {bits}": (partial(_grey, bits=bits), USED.format(bits)) for bits in (8, 10, 12, 14)},
    "grey 16": (lambda folder: _grey(folder, 16), None),
    "grey TIFF 12": (lambda folder: _grey(folder, 12, "tif"), USED.format(12)),
    "grey TIFF 16 white is 0": (lambda folder: _grey(folder, 16, "tif", photometric="miniswhite"), None),
    "grey TIFF 12 white is 0": (lambda folder: _grey(folder, 12, "tif", photometric="miniswhite"), USED.format(12)),
    "grey TIFF, declared": (
        lambda folder: _grey(folder, 12, "tif", extratags=[(281, "H", 1, 4095, True)]), None
    ),
    "grey TIFF, compressed": (lambda folder: _grey(folder, 16, "tif", compression="zlib"), None),
    "colour 16": (lambda folder: _colour(folder, 16), None),
    "colour 12": (lambda folder: _colour(folder, 12), USED.format(12)),
    "colour TIFF 16": (lambda folder: _colour(folder, 16, "tiff"), None),
    "colour TIFF 12": (lambda folder: _colour(folder, 12, "tiff"), USED.format(12)),
    "colour PPM 12": (lambda folder: _colour(folder, 12, "ppm"), USED.format(12)),
    "colour, alpha": (_deep_alpha, None),
    "colour 16, turned": (_deep_turned, None),
    **{
        f"{suffix} turned {number}": (partial(_turned, suffix=suffix, orientation=number), None)
        for suffix in ("png", "tif") for number in (2, 3, 6)
    },
    "palette, transparent": (_transparent_palette, None),
    "grey, alpha": (_grey_alpha, None),
    "one bit": (_one_bit, None),
    "CMYK JPEG": (lambda folder: _cmyk(folder, "jpg"), None),
    "CMYK TIFF": (lambda folder: _cmyk(folder, "tif"), None),
    "float": (_float, USED.format(8)),
    "profile": (_profile, "has a colour profile other than sRGB, which is not applied; viewers show other colours"),
    "sRGB": (_srgb, None),
    "linear": (_linear, "states a gamma of 1, which is not applied; viewers that do show other shades"),
    "pages": (_pages, "holds 2 frames; the first is used"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_read__right_value(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, note = CASES[name]
    path, right = make(tmp_path)
    pixels, notes = read_noted_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape == right.shape
    assert np.abs(pixels.astype(int) - right).max() <= (2 if path.suffix == ".jpg" else 0.5 + 1e-6)
    assert notes == ((note,) if note else ())
    assert not capfd.readouterr().err  # file descriptor 2, where libraries write


def _fractions(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", DEEP[..., 0].astype(np.float32) / 65535)
    return folder / "a.tif"


def _zero_or_one(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", (DEEP[..., 0] > 9999).astype(np.float32))
    return folder / "a.tif"


def _signed(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", DEEP[..., 0].astype(np.int16))
    return folder / "a.tif"


def _not_a_number(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", np.full((8, 8), np.nan, np.float32))
    return folder / "a.tif"


def _planes(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    return folder / "a.tif"


def _cut_deep(folder: Path) -> Path:
    path, _ = _colour(folder, 16)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def _cut(folder: Path, suffix: str, **options: Any) -> Path:  # noqa: ANN401 (of Pillow)
    path = folder / f"cut.{suffix}"
    Image.fromarray(FLAT).save(path, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def _lab(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", FLAT, photometric="cielab")
    return folder / "a.tif"


def _channels(folder: Path, **options: Any) -> Path:  # noqa: ANN401 (of tifffile)
    tifffile.imwrite(folder / "a.tif", FLAT.transpose(2, 0, 1), photometric="minisblack", **options)
    return folder / "a.tif"


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "fractions": (_fractions, "which no rule brings to 8 bits"),
    "zero or one": (_zero_or_one, "holds values from '0' to '1', which no rule brings to 8 bits"),
    "signed": (_signed, "which no rule brings to 8 bits"),
    "not a number": (_not_a_number, "which no rule brings to 8 bits"),
    "CIELab": (_lab, "is stored as CIELab"),
    "channels of OME": (
        lambda folder: _channels(folder, metadata={"axes": "CYX"}, ome=True),
        "holds 3 channels as pages of their own",
    ),
    "channels of ImageJ": (
        lambda folder: _channels(folder, metadata={"axes": "CYX"}, imagej=True),
        "holds 3 channels as pages",
    ),
    "planes": (_planes, "stores colours of '16' bits in planes"),
    "cut, 16 bits": (_cut_deep, "cannot be decoded: it is damaged"),
    "cut TIFF": (lambda folder: _cut(folder, "tif"), "cannot be decoded"),
    "cut TIFF, LZW": (lambda folder: _cut(folder, "tif", compression="tiff_lzw"), "cannot be decoded"),
    "cut PPM": (lambda folder: _cut(folder, "ppm"), "cannot be decoded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_read__refused(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        read_noted_image(make(tmp_path))
    assert len(caught.value.problems) == 1
    assert not capfd.readouterr().err


def test_upload__notes_are_sentences_and_a_suffix_that_lies_is_one(tmp_path: Path) -> None:
    path, right = _grey(tmp_path, 12)
    lying = path.rename(tmp_path / "grey.jpg")
    with UntrustedImages() as images:
        pixels, notes = images.read(lying)
    np.testing.assert_array_equal(pixels, right)
    assert notes == ("The file holds PNG, not what its suffix says.", f"The file {USED.format(12)}.")


def test_read__a_photograph_with_a_preview_has_no_note(tmp_path: Path) -> None:
    content = io.BytesIO()
    frames = [Image.fromarray(FLAT), Image.fromarray(FLAT[:4, :4])]
    frames[0].save(content, "MPO", save_all=True, append_images=frames[1:])
    (tmp_path / "a.jpg").write_bytes(content.getvalue())
    assert read_noted_image(tmp_path / "a.jpg")[1] == ()
