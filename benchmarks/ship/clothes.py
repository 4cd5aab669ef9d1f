"""Make the sheet of clothing that the demo of ``pipelines.ovd`` is composed of: 20 pieces of each of ten classes.

``make bench-ship-clothes`` writes ``pipelines/ovd/demo/clothes.png`` anew from Debian's dataset-fashion-mnist (MIT).
The pieces are of the part that detectors of the study "ovd-scenes" train on, the first of each class by key.
"""

import sys

import numpy as np
from PIL import Image

from benchmarks.ovd.scenes.data import world_parts
from benchmarks.ovd.scenes.tables import STUDY
from benchmarks.studies import ROOT
from vision_core.assets import clothing
from vision_core.detection.cut_outs import CLOTHES, CLOTHES_PX, read_idx
from vision_core.files import atomic_path

SHEET = ROOT / "pipelines" / "ovd" / "demo" / "clothes.png"
PER_CLASS = 20


def make_sheet() -> Image.Image:
    """Lay the pieces out, a row for each class."""
    part = world_parts("clothes", STUDY.protocol())["detector"]
    pixels = read_idx(clothing()[0])
    rows = [
        [pixels[int(each.name.removeprefix("clothes-"))] for each in part.of_label(label)[:PER_CLASS]]
        for label in range(len(CLOTHES))
    ]
    tiles = np.array(rows)  # (classes, pieces, 28, 28)
    return Image.fromarray(tiles.swapaxes(1, 2).reshape(len(CLOTHES) * CLOTHES_PX, PER_CLASS * CLOTHES_PX))


def main() -> int:
    """Write the sheet."""
    with atomic_path(SHEET) as partial:
        make_sheet().save(partial, format="PNG", optimize=True)
    print(f"{SHEET.relative_to(ROOT)}: {SHEET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
