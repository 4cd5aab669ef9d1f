"""The museum of bad sets of labelled images: code that makes each of them, one function per row of the catalogue."""

import csv
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bad_inputs.dicom_values import windows

CLASSES = ("CT__abd__normal", "MR__knee__tear", "US__thyroid")
PARTS = ("train", "val", "test")


def folders(root: Path, counts: Mapping[str, Mapping[str, int]] | None = None) -> Path:
    """Write ``<part>/<class>/<number>.png``; two images of three classes in each part unless told otherwise."""
    counts = counts or {part: dict.fromkeys(CLASSES, 2) for part in PARTS}
    for part, classes in counts.items():
        for label, count in classes.items():
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                picture(root / part / label / f"{number}.png", (part, label, number))
    return root


def radimagenet(root: Path) -> Path:
    """Write RadImageNet as it is handed out: two images a class and list, in folders of modality and anatomy."""
    inner = ("CT/abd/normal", "MR/knee/tear", "US/thyroid")
    for part in PARTS:
        names = [f"{folder}/{part}{number}.png" for folder in inner for number in range(2)]
        for name in names:
            picture(root / name, (name,))
        rows([{"filename": f"radiology_ai/{name}"} for name in names], root / f"RadiologyAI_{part}.csv")
    return root


def table(root: Path) -> Path:
    """Write ``labels.csv`` with the columns split, patient and modality, and its images."""
    lines = [
        {"filename": f"scans/{part}{number}.png", "label": label, "split": part, "patient": f"{part}-{number}"}
        for part in PARTS
        for number, label in enumerate(("lung", "liver", "lung"))
    ]
    lines = [{**line, "modality": "CT"} for line in lines]
    for line in lines:
        picture(root / line["filename"], (line["filename"],))
    rows(lines, root / "labels.csv")
    return root


def medmnist(path: Path, *, compressed: bool = True, colours: bool = False, labels: int = 1) -> Path:
    """Write an ``.npz`` file of the layout of MedMNIST, with three classes, or so many labels an image."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, count in zip(PARTS, (9, 4, 3), strict=True):
        draw = np.random.default_rng(len(part))
        arrays[f"{part}_images"] = draw.integers(0, 256, (count, 28, 28, 3) if colours else (count, 28, 28), np.uint8)
        several = draw.integers(0, 2, (count, labels)) | (np.arange(count)[:, None] == 0)
        arrays[f"{part}_labels"] = (several if labels > 1 else np.arange(count)[:, None] % 3).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    return path


def g01_empty_class(root: Path) -> Path:
    """A class folder without an image."""
    folders(root)
    for path in (root / "train" / CLASSES[1]).iterdir():
        path.rename(path.with_suffix(".txt"))
    return root


def g01_nested(root: Path) -> Path:
    """Folders of modality and anatomy where the folders of the classes should be."""
    for name in ("CT/abd/normal", "CT/lung/nodule", "US/thyroid/x"):
        picture(root / "train" / name / "0.png", (name,))
    return root


def g01_nested_once_more(root: Path) -> Path:
    """A class folder that holds images and another folder of images."""
    folders(root)
    picture(root / "train" / CLASSES[0] / "more" / "0.png", ("more",))
    return root


def g01_class_missing_in_train(root: Path) -> Path:
    """164 of 165 classes: one that the other lists have is not in train."""
    names = [f"CT__abd__{number:03d}" for number in range(165)]
    return folders(root, {"train": dict.fromkeys(names[:-1], 1), "val": dict.fromkeys(names, 1)})


def g01_class_missing_in_val(root: Path) -> Path:
    """A class of train that is not in val."""
    return folders(root, {"train": dict.fromkeys(CLASSES, 1), "val": dict.fromkeys(CLASSES[:2], 1)})


def g02_windows_paths(root: Path) -> Path:
    """A list with backslashes, a drive and folders of somebody else's machine."""
    table(root)
    _rewrite(root / "labels.csv", lambda name: "D:\\data\\study\\" + name.replace("/", "\\"))
    return root


def g02_absolute_paths(root: Path) -> Path:
    """A list with absolute paths of this machine."""
    table(root)
    _rewrite(root / "labels.csv", lambda name: str((root / name).absolute()))
    return root


def g02_missing(root: Path) -> Path:
    """A list that names two files that are not there."""
    table(root)
    for number in (0, 1):
        (root / "scans" / f"train{number}.png").unlink()
    return root


def g03_mixed(root: Path) -> Path:
    """One class with a grey, a 16-bit, an RGB, an RGBA, a palette and a DICOM image, all of one mean grey."""
    from tests.bad_inputs.dicoms import still

    folder = root / "train" / "all"
    folder.mkdir(parents=True)
    grey = np.full((16, 16), 100, np.uint8)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(grey).convert("RGB").save(folder / "rgb.png")
    Image.fromarray(grey).convert("RGBA").save(folder / "rgba.png")
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    still(folder / "still.dcm", grey)
    return root


def g12_imbalance(path: Path) -> Path:
    """One class with 100 000 images, one with a single one."""
    labels = np.zeros(100_001, np.uint8)
    labels[7] = 1
    np.savez(path, train_images=np.zeros((100_001, 2, 2), np.uint8), train_labels=labels[:, None])
    return path


def g13_corrupt(root: Path) -> Path:
    """One image of no bytes, one that breaks off in the middle."""
    folders(root)
    (root / "train" / CLASSES[0] / "0.png").write_bytes(b"")
    broken = root / "train" / CLASSES[1] / "1.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    return root


def g14_equal_and_empty(root: Path) -> Path:
    """An image that is there twice in a class, in two classes and in two lists; and a black one."""
    folders(root)
    original = (root / "train" / CLASSES[0] / "0.png").read_bytes()
    for name in (f"train/{CLASSES[0]}/copy.png", f"train/{CLASSES[1]}/copy.png", f"val/{CLASSES[0]}/copy.png"):
        (root / name).write_bytes(original)
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(root / "train" / CLASSES[2] / "black.png")
    return root


def g15_links(root: Path) -> Path:
    """A link out of the data set, and one in a circle."""
    folders(root)
    outside = root.parent / "outside.png"
    picture(outside, ("outside",))
    (root / "train" / CLASSES[0] / "out.png").symlink_to(outside)
    (root / "train" / CLASSES[0] / "circle.png").symlink_to("circle.png")
    return root


def g16_pickled(path: Path) -> Path:
    """An ``.npz`` file whose labels are pickled objects."""
    arrays = {"train_images": np.zeros((2, 28, 28), np.uint8), "train_labels": np.array([{1: 2}, None], object)}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def g16_truncated(path: Path) -> Path:
    """An ``.npz`` file cut off in the middle."""
    content = medmnist(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def g16_lying_header(path: Path) -> Path:
    """An ``.npz`` file whose images claim a shape of terabytes."""
    medmnist(path, compressed=False)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["train_images.npy"] = members["train_images.npy"].replace(b"(9, 28, 28), }    ", b"(999999999, 28, 28), }")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def g16_lying_labels(path: Path) -> Path:
    """An ``.npz`` file whose labels claim a shape of terabytes."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 1)}
    medmnist(path)
    content = BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, kept in members.items():
            archive.writestr(name, content.getvalue() if name == "train_labels.npy" else kept)
    return path


def picture(path: Path, seed: tuple[object, ...]) -> None:
    """A small grey PNG of noise that is the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(repr(seed).encode()))
    Image.fromarray(draw.integers(0, 256, (20, 24), np.uint8)).save(path)


def rows(lines: Sequence[Mapping[str, str]], path: Path) -> None:
    """Write a CSV with the columns of its first line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _rewrite(path: Path, spell: Callable[[str], str]) -> None:
    rows([{**line, "filename": spell(line["filename"])} for line in read_rows(path)], path)


def notable(root: Path) -> Path:
    """Sound images on each of which a reader decides something, a DICOM file too, and what is no file."""
    folders(root)
    deep, windowed = CLASSES[:2]
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(root / "train" / deep / "deep.png")
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(root / "train" / deep / "lying.png", "TIFF")
    windows(root / "train" / windowed)
    os.mkfifo(root / "train" / deep / "pipe.png")
    (root / "train" / deep / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    return root


def cut(root: Path) -> Path:
    """A TIFF and a PPM that break off behind a sound header."""
    folders(root)
    for suffix in ("tif", "ppm"):
        path = root / "train" / CLASSES[0] / f"cut.{suffix}"
        Image.effect_noise((80, 60), 90).convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return root


def equal(root: Path) -> Path:
    """The same bytes in two classes, and the same pixels in another format in another list."""
    folders(root)
    first = root / "train" / CLASSES[0] / "0.png"
    (root / "train" / CLASSES[1] / "copy.png").write_bytes(first.read_bytes())
    Image.open(first).save(root / "val" / CLASSES[0] / "again.bmp")
    return root
