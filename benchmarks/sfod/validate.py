"""Speed of ``validate`` on a generated detection data set: images decoded and compared with their labels in a second.

    make bench-sfod-validate                   1 000 JPEG files of 640 x 640 px, two workers
    make bench-sfod-validate ARGS=--check      exit 1 below 200 images a second

The pictures are synthetic: smoothed noise of JPEG quality 90, 130 KB each. Best of three rounds; the processor time is
that of the children, their start with it, and is what another load on the machine changes least.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.datasets.validation import check_dataset
from vision_core.detection.datasets.voc import VocAnnotation, annotation_xml
from vision_core.detection.settings import DetectionData
from vision_core.randomness import key

_TARGET = 200.0
_EDGE = 640
_ROUNDS = 3


def main(argv: list[str] | None = None) -> int:
    """Make the data, validate it, and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        dataset = _make(Path(folder), arguments.images)
        rates, seconds = zip(*(_validate(dataset, arguments.workers) for _ in range(_ROUNDS)), strict=True)
    rate, spread = max(rates), f"{min(rates):.0f} to {max(rates):.0f}"
    print(f"processor time of an image: {1000 * min(seconds) / arguments.images:.2f} ms")
    told = f"validate, {arguments.workers} workers, {_EDGE} px JPEG: {rate:.0f} images/s ({spread})"
    print(f"{told} (target >= {_TARGET:.0f})")
    return int(arguments.check and rate < _TARGET)


def _make(root: Path, count: int) -> DetectionDataset:
    """Write a VOC folder of pictures without objects."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        generator = np.random.default_rng(key("validate", number))
        grains = generator.integers(0, 256, (_EDGE // 8, _EDGE // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(grains).resize((_EDGE, _EDGE), Image.Resampling.BICUBIC)
        picture.save(root / "JPEGImages" / f"{number:05d}.jpg", quality=90)
        text = annotation_xml(VocAnnotation(size=(_EDGE, _EDGE), objects=()), f"{number:05d}.jpg")
        (root / "Annotations" / f"{number:05d}.xml").write_text(text)
    (root / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{number:05d}\n" for number in range(count)))
    return read_dataset(DetectionData(root=root, classes=("square",)), "train", with_labels=True)


def _validate(dataset: DetectionDataset, workers: int) -> tuple[float, float]:
    """Return images a second, and processor seconds of the children."""
    check_dataset(dataset, sample=workers, workers=workers)  # files and programs are in the memory of the machine
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    found = check_dataset(dataset, workers=workers)
    seconds = time.perf_counter() - begun
    if found.faults:
        raise SystemExit(found.faults[0])
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return len(dataset) / seconds, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
