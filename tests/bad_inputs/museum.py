"""The museum of bad inputs: code that makes each of them, one function per row of the catalogue in the specification.

The functions need only the package's synthetic data, so that other projects can take them over.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.vision_core.detection.datasets.published import make_cityscapes
from tests.vision_core.detection.synthetic import make_coco, make_picture, make_voc

Index = dict[str, Any]


def two_images(folder: Path) -> Path:
    """A new folder with two sound images, ``0.png`` and ``1.png``, and the one they are copies of."""
    folder.mkdir()
    for number in range(2):
        shutil.copy(b09_palette(folder), folder / f"{number}.png")
    return folder


def a09_other_files_only(folder: Path) -> Path:
    """A folder with notes and a subfolder, but no image."""
    (folder / "below").mkdir(parents=True)
    for number in range(14):
        (folder / f"{number}.txt").write_text("note")
    return folder


def a11_links(folder: Path) -> Path:
    """A folder with one image, a link out of it, a link in a circle and a link to nothing."""
    outside = folder.parent / "outside.png"
    inside = folder / "inside.png"
    folder.mkdir(parents=True)
    for path in (outside, inside):
        _picture().save(path)
    (folder / "out.png").symlink_to(outside)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "nothing.png").symlink_to(folder / "absent.png")
    return folder


def folder_of_a_phone(folder: Path) -> Path:
    """A folder with an image, HEIC files, one of them named JPEG, a TIFF named PNG, a pipe and a subfolder."""
    (folder / "below").mkdir(parents=True)
    _picture().save(folder / "fine.png")
    _picture().save(folder / "scan.png", format="TIFF")
    for name in ("a.heic", "b.HEIC", "c.jpg"):
        _write(folder / name, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    os.mkfifo(folder / "pipe.png")
    return folder


def b01_zero_bytes(folder: Path) -> Path:
    """An image file of no bytes."""
    return _write(folder / "zero.jpg", b"")


def b02_truncated_jpeg(folder: Path) -> Path:
    """The first half of a JPEG: header and ``verify`` are fine, the pixels are not."""
    path = folder / "half.jpg"
    _picture().save(path, quality=95)
    return _write(path, path.read_bytes()[: path.stat().st_size // 2])


def b03_html_as_jpg(folder: Path) -> Path:
    """A login page that a download saved under an image's name."""
    return _write(folder / "page.jpg", b"\n<!DOCTYPE html><html><body>Please log in</body></html>")


def b03_pointer_as_png(folder: Path) -> Path:
    """A Git LFS pointer instead of the image."""
    return _write(folder / "pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def b05_bomb(folder: Path) -> Path:
    """A PNG of some hundred bytes whose header promises 30 000 x 30 000 pixels."""
    return _write(folder / "bomb.png", _png_header(30_000, 30_000))


def b05_large(folder: Path) -> Path:
    """A PNG header of 121 megapixels: below Pillow's limit, above ours."""
    return _write(folder / "large.png", _png_header(11_000, 11_000))


def b06_animated_gif(folder: Path) -> Path:
    """A GIF of three frames, red first."""
    return _frames(folder / "frames.gif")


def b06_multipage_tiff(folder: Path) -> Path:
    """A TIFF of three pages, red first."""
    return _frames(folder / "pages.tif")


def b08_sixteen_bit(folder: Path) -> Path:
    """A 16-bit PNG with a ramp from 0 to 65535 in one row."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = folder / "ramp.png"
    Image.fromarray(ramp).save(path)
    return path


def b08_float(folder: Path) -> Path:
    """A TIFF of floating-point values that no rule brings to 8 bits."""
    path = folder / "heights.tif"
    Image.fromarray(np.linspace(-3, 1e6, 64, dtype=np.float32).reshape(8, 8)).save(path)
    return path


def b09_cmyk(folder: Path) -> Path:
    """A red JPEG in CMYK."""
    return _save(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), folder / "cmyk.jpg")


def b09_palette(folder: Path) -> Path:
    """A red PNG with a palette."""
    return _save(Image.new("RGB", (16, 16), (255, 0, 0)).convert("P"), folder / "palette.png")


def b09_alpha(folder: Path) -> Path:
    """A PNG that is transparent black everywhere."""
    return _save(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), folder / "alpha.png")


def b09_one_bit(folder: Path) -> Path:
    """A white 1-bit PNG."""
    return _save(Image.new("1", (16, 16), 1), folder / "bit.png")


def b10_truncated_index(folder: Path) -> Path:
    """A COCO index cut off in the middle."""
    path = make_coco(folder) / "train.json"
    _write(path, path.read_bytes()[: path.stat().st_size // 2])
    return folder


def b11_oversized_index(folder: Path) -> Path:
    """A COCO index of a terabyte, none of it on disk."""
    with (make_coco(folder) / "train.json").open("r+b") as file:
        file.truncate(10**12)
    return folder


def b12_no_images(folder: Path) -> Path:
    """A COCO index without its list of images."""
    return _edited(folder, lambda index: index.pop("images"))


def b12_no_categories(folder: Path) -> Path:
    """A COCO index without its list of categories."""
    return _edited(folder, lambda index: index.pop("categories"))


def b13_orphan_annotation(folder: Path) -> Path:
    """An annotation of an image that is not listed."""
    return _edited(folder, lambda index: index["annotations"][0].update(image_id=999))


def b14_missing_image(folder: Path) -> Path:
    """A listed image whose file is gone."""
    (make_coco(folder) / "train" / "001.png").unlink()
    return folder


def b15_unlisted_image(folder: Path) -> Path:
    """An image on disk that the index does not know."""
    _picture().save(make_coco(folder) / "train" / "stranger.png")
    return folder


def b16_repeated_image_id(folder: Path) -> Path:
    """Two images with one id."""
    return _edited(folder, lambda index: index["images"][1].update(id=0))


def b16_repeated_annotation_id(folder: Path) -> Path:
    """Two annotations with one id."""
    return _edited(folder, lambda index: index["annotations"][1].update(id=0))


def b17_flat_box(folder: Path) -> Path:
    """A box without width."""
    return _edited(folder, lambda index: index["annotations"][0].update(bbox=[5, 5, 0, 10]))


def b18_box_one_pixel_out(folder: Path) -> Path:
    """A box that leaves the image by a pixel."""
    return _edited(folder, lambda index: index["annotations"][0].update(bbox=[-1, 5, 20, 20]))


def b18_box_far_out(folder: Path) -> Path:
    """A box that leaves the image by thirty pixels."""
    return _edited(folder, lambda index: index["annotations"][0].update(bbox=[-30, 5, 50, 20]))


def b18_box_not_a_number(folder: Path) -> Path:
    """A box with a corner that is not a number."""
    return _edited(folder, lambda index: index["annotations"][0].update(bbox=[float("nan"), 5, 50, 20]))


def b20_unknown_category(folder: Path) -> Path:
    """An annotation of a category that is not listed."""
    return _edited(folder, lambda index: index["annotations"][0].update(category_id=2))


def b22_crowd(folder: Path) -> Path:
    """One annotation marked as a crowd, one to be ignored."""

    def mark(index: Index) -> None:
        index["annotations"][0]["iscrowd"] = 1
        index["annotations"][1]["ignore"] = 1

    return _edited(folder, mark)


def b23_malformed_xml(folder: Path) -> Path:
    """A VOC annotation cut off in the middle."""
    path = _annotation(folder)
    _write(path, path.read_bytes()[:60])
    return folder


def b23_entity_bomb(folder: Path) -> Path:
    """A VOC annotation whose entities multiply."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    _write(
        _annotation(folder),
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><annotation>&l8;</annotation>'.encode(),
    )
    return folder


def b23_external_dtd(folder: Path) -> Path:
    """A VOC annotation that wants a file read into it."""
    _write(
        _annotation(folder),
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>',
    )
    return folder


def b24_reversed_corners(folder: Path) -> Path:
    """A VOC box with ``xmin`` beyond ``xmax``."""
    return _with_box(folder, ("50", "5", "10", "30"))


def b24_counted_from_zero(folder: Path) -> Path:
    """A VOC box with ``xmin`` 0, as files that count from zero have."""
    return _with_box(folder, ("0", "5", "10", "30"))


def b24_fractions(folder: Path) -> Path:
    """A VOC box with fractions of pixels."""
    return _with_box(folder, ("5.5", "5.25", "10", "30.5"))


def b27_pixels(folder: Path) -> Path:
    """A YOLO label in pixels instead of shares."""
    return _yolo_label(folder, "0 40 20 30 25\n")


def b27_class_beyond(folder: Path) -> Path:
    """A YOLO label of a class that data.yaml does not name."""
    return _yolo_label(folder, "0 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.1 0.1\n")


def b27_six_columns(folder: Path) -> Path:
    """A YOLO file of detections, with a score behind each box."""
    return _yolo_label(folder, "0 0.5 0.5 0.2 0.2 0.87\n")


def b27_commas(folder: Path) -> Path:
    """A YOLO label with commas."""
    return _yolo_label(folder, "0, 0.5, 0.5, 0.2, 0.2\n")


def b27_carriage_returns(folder: Path) -> Path:
    """Sound YOLO labels as Windows writes lines."""
    return _yolo_label(folder, "0 0.5 0.5 0.2 0.2\r\n1 0.4 0.4 0.1 0.1\r\n")


def b28_no_label_file(folder: Path) -> Path:
    """A YOLO folder with one image without a label file, and one with an empty one."""
    (_yolo_label(folder, "") / "labels" / "train" / "002.txt").unlink()
    return folder


def b29_labels_of_test(folder: Path) -> Path:
    """Cityscapes' test split, whose polygons are published without objects."""
    for path in make_cityscapes(folder).glob("gtFine/train/*/*.json"):
        _write(path, json.dumps({"imgHeight": 32, "imgWidth": 64, "objects": []}).encode())
    return folder


def b29_groups_alone(folder: Path) -> Path:
    """Cityscapes' polygons of groups alone."""
    group = {"label": "cargroup", "polygon": [[2, 2], [30, 2], [30, 20]]}
    for path in make_cityscapes(folder).glob("gtFine/train/*/*.json"):
        _write(path, json.dumps({"imgHeight": 32, "imgWidth": 64, "objects": [group]}).encode())
    return folder


def _yolo_label(folder: Path, text: str) -> Path:
    """Write a YOLO folder whose second image has this label file."""
    (folder / "labels" / "train").mkdir(parents=True)
    shutil.move(make_coco(folder / "coco") / "train", folder / "images" / "train")
    shutil.rmtree(folder / "coco")
    for number in range(4):
        label = text if number == 1 else "0 0.5 0.5 0.2 0.2\n"
        _write(folder / "labels" / "train" / f"{number:03d}.txt", label.encode())
    _write(folder / "data.yaml", b"names: [disc, square]\ntrain: images/train\n")
    return folder


def b31_no_boxes(folder: Path) -> Path:
    """A VOC folder whose annotations hold no object at all."""
    for path in (make_voc(folder) / "Annotations").glob("*.xml"):
        path.write_text("<annotation/>")
    return folder


def truncate(path: Path) -> None:
    """Keep the first half of a file."""
    _write(path, path.read_bytes()[: path.stat().st_size // 2])


def _picture() -> Image.Image:
    return Image.fromarray(make_picture((64, 96), ("disc",), 0)[0])


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def _frames(path: Path) -> Path:
    first, *rest = (Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    first.save(path, save_all=True, append_images=rest)
    return path


def _png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"\0" * 64)
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, pixels)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _edited(folder: Path, edit: Callable[[Index], object]) -> Path:
    path = make_coco(folder) / "train.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))
    return folder


def _annotation(folder: Path) -> Path:
    return make_voc(folder) / "Annotations" / "train_001.xml"


def _with_box(folder: Path, corners: tuple[str, str, str, str]) -> Path:
    names = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, corners, strict=True))
    _write(
        _annotation(folder),
        f"<annotation><object><name>disc</name><bndbox>{box}</bndbox></object></annotation>".encode(),
    )
    return folder
