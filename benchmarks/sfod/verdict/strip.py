"""The strip of the source image under the corruptions of the meta-set: three of the demo's, and two more."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.sfod.runs import demo_data
from benchmarks.sfod.verdict.tables import STUDY
from pipelines.sfod.demo.demo_data import Scene
from pipelines.sfod.demo.shifts import TUNING, Picture, Shift
from pipelines.sfod.demo.tiles import halves, overlapping
from vision_core.assets import tree_crowns
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_image

PROTOCOL = STUDY.protocol()
_TILE_PX = 256


def jpeg(image: Picture, seed: int) -> Picture:
    """Compress until blocks show; the seed is not used."""
    del seed
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=PROTOCOL["jpeg_quality"])
    return np.asarray(Image.open(file))


def grey(image: Picture, seed: int) -> Picture:
    """Take the colours out; the seed is not used."""
    del seed
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


MORE: dict[str, Shift] = {"jpeg": jpeg, "grey": grey}


def strip_data(folder: Path) -> Path:
    """The demo's data below ``folder``, with both halves of the strip under every corruption; made once."""
    data = demo_data(folder)
    for name in [each for each in PROTOCOL["corruptions"] if each not in TUNING]:
        listed = data / "ImageSets" / "Main" / f"strip_{name}_b.txt"
        if not listed.exists():
            _corrupt(data, name, listed)
    return data


def _corrupt(data: Path, name: str, listed: Path) -> None:
    """Write tiles of half a without labels, and those of half b with the labels of the clean ones."""
    top, bottom = PROTOCOL["strip_rows"]
    image = read_image(tree_crowns()["yell_large"].image_path)
    scene = Scene(image=image, boxes=np.zeros((0, 4))).rows(top, bottom).under(MORE[name], name)
    windows = overlapping(halves(scene.area)[0], _TILE_PX)
    for number, window in enumerate(windows):
        write_png(data / "JPEGImages" / f"strip_{name}_a_adapt_{number:03d}.png", window.crop(scene.image))
    ids = [f"strip_{name}_a_adapt_{number:03d}\n" for number in range(len(windows))]
    write_atomic(listed.with_name(f"strip_{name}_a_adapt.txt"), "".join(ids))
    clean = listed.with_name("strip_clean_b.txt").read_text(encoding="utf-8").split()
    for each in clean:
        shifted = each.replace("strip_clean", f"strip_{name}")
        picture = read_image(data / "JPEGImages" / f"{each}.png")
        write_png(data / "JPEGImages" / f"{shifted}.png", MORE[name](picture, 0))
        annotation = (data / "Annotations" / f"{each}.xml").read_text(encoding="utf-8")
        write_atomic(data / "Annotations" / f"{shifted}.xml", annotation.replace(each, shifted))
    write_atomic(listed, "".join(f"{each.replace('strip_clean', f'strip_{name}')}\n" for each in clean))
