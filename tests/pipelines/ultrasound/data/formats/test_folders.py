from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.ultrasound.data.formats.folders import FolderFrames, read_grey
from vision_core.errors import DataError, InputError

IMAGE = np.arange(30, dtype=np.uint8).reshape(5, 6)
MASK = (IMAGE > 12).astype(np.uint8) * 255


def write(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_read__folders_of_subjects_in_numeric_order(tmp_path: Path) -> None:
    for subject, frame in (("p10", "f1"), ("p2", "f10"), ("p2", "f9")):
        write(tmp_path / subject / f"{frame}.png", IMAGE)
        write(tmp_path / subject / f"{frame}_obs01.png", 255 - MASK)
        write(tmp_path / subject / f"{frame}_obs00.png", MASK)
    frames = FolderFrames(tmp_path)
    assert [(name.subject, Path(name.text).stem) for name in frames.names] == [
        ("p2", "f9"),
        ("p2", "f10"),
        ("p10", "f1"),
    ]
    first = frames.read(0)
    assert np.array_equal(first.image, IMAGE)
    assert first.observers == (0, 1)
    assert np.array_equal(first.masks, [MASK > 0, MASK == 0])


def test_read__flat_folder_with_subjects(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path / f"{name}.png", IMAGE)
        write(tmp_path / f"{name}_obs00.png", MASK)
    assert [name.subject for name in FolderFrames(tmp_path).names] == [None, None]
    (tmp_path / "subjects.csv").write_text("image,subject\na.png,s2\nb.png,s1\n")
    assert [(name.subject, name.text) for name in FolderFrames(tmp_path).names] == [("s1", "b.png"), ("s2", "a.png")]
    (tmp_path / "subjects.csv").write_text("image,subject\na.png,s2\n")
    with pytest.raises(DataError, match=r"names no subject for 'b.png'"):
        FolderFrames(tmp_path)


def test_read__masks_of_16_bits_that_hold_1_are_not_lost(tmp_path: Path) -> None:
    write(tmp_path / "a.png", IMAGE.astype(np.uint16) * 2000)
    write(tmp_path / "a_obs00.png", (MASK // 255).astype(np.uint16))
    frame = FolderFrames(tmp_path).read(0)
    assert np.array_equal(frame.masks[0], MASK > 0)
    assert (frame.image.max(), frame.white) == (58000, 65535)


def test_read_grey__sixteen_bits_in_pgm_are_kept(tmp_path: Path) -> None:
    pixels = IMAGE.astype(np.uint16) * 2000
    (tmp_path / "a.pgm").write_bytes(b"P5 6 5 65535\n" + pixels.astype(">u2").tobytes())
    assert np.array_equal(read_grey(tmp_path / "a.pgm"), pixels)
    Image.fromarray(IMAGE.astype(np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match="holds 32 bits a pixel"):
        read_grey(tmp_path / "b.tif")


def test_read_grey__sixteen_bits_of_a_tiff_that_calls_small_values_white(tmp_path: Path) -> None:
    """Pillow inverts 8 bits of such a file by itself, and not 16."""
    pixels = (IMAGE.astype(np.uint16) * 2000) | 1
    pixels[0, 0] = 65535
    for photometric, expected in ((1, pixels), (0, 65535 - pixels)):
        Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={262: photometric})
        assert np.array_equal(read_grey(tmp_path / "a.tif"), expected)


def test_read__a_mask_with_transparent_pixels_is_refused(tmp_path: Path) -> None:
    """Over white, as images are read, it would be the organ everywhere."""
    write(tmp_path / "a.png", IMAGE)
    write(tmp_path / "a_obs00.png", np.dstack([MASK] * 4))
    with pytest.raises(InputError, match=r"a_obs00\.png' is a mask with transparent pixels"):
        FolderFrames(tmp_path).read(0)
    write(tmp_path / "a_obs00.png", np.dstack([MASK] * 3 + [np.full_like(MASK, 255)]))
    assert np.array_equal(FolderFrames(tmp_path).read(0).masks[0], MASK > 0)


def test_read_grey__colour_becomes_its_luminance(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.full((4, 4, 3), (200, 100, 50), np.uint8))
    assert read_grey(tmp_path / "a.png")[0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.png": IMAGE}, "'.*a.png' has no mask. Add 'a_obs00.png'"),
        ({"a.png": IMAGE, "a_obs00.png": MASK, "b_obs00.png": MASK}, "is the mask of no image: there is no 'b'"),
        ({"a.png": IMAGE, "a_obs0.png": MASK, "a_obs00.png": MASK}, "have the same name"),
        ({"a.png": IMAGE, "a.bmp": IMAGE, "a_obs0.png": MASK}, "have the same name"),
        ({"a.png": IMAGE, "s/b.png": IMAGE}, "holds images and folders of images"),
        ({}, "holds '0' frames"),
    ],
)
def test_open__files_that_do_not_fit_are_refused(tmp_path: Path, files: dict[str, Any], told: str) -> None:
    for name, pixels in files.items():
        write(tmp_path / name, pixels)
    with pytest.raises(DataError, match=told):
        FolderFrames(tmp_path)


@pytest.mark.parametrize(
    ("mask", "told"), [(MASK[:4], "its image"), (IMAGE, "holds the values"), (MASK // 255 * 2, "'0, 2'")]
)
def test_read__masks_that_do_not_fit_are_refused(tmp_path: Path, mask: NDArray[Any], told: str) -> None:
    write(tmp_path / "a.png", IMAGE)
    write(tmp_path / "a_obs00.png", mask)
    with pytest.raises(InputError, match=told):
        FolderFrames(tmp_path).read(0)


def test_read__a_damaged_image_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a_obs00.png", MASK)
    (tmp_path / "a.png").write_bytes((tmp_path / "a_obs00.png").read_bytes()[:50])
    with pytest.raises(InputError, match="cannot be decoded"):
        FolderFrames(tmp_path).read(0)
