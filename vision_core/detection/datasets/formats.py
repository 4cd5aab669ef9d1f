"""What a folder of each format looks like: settings find theirs with it, before any data are read."""

from pathlib import Path

from vision_core.environment import datasets_root
from vision_core.images.reading import is_image_name

YOLO_INDEX = "data.yaml"
ROBOFLOW_INDEX = "_annotations.coco.json"
CITYSCAPES, FOGGY_CITYSCAPES = "leftImg8bit", "leftImg8bit_foggy"
KITTI_IMAGES = "image_2"
MARKS = {  # what a folder of a format holds
    "yolo": YOLO_INDEX,
    "voc": "ImageSets/Main",
    "cityscapes": CITYSCAPES,
    "foggy_cityscapes": FOGGY_CITYSCAPES,
    "kitti": f"training/{KITTI_IMAGES}",
}


def detect_format(root: Path) -> str:
    """Say what a folder looks like, a relative one also among the published data sets; ``auto`` if it is none.

    A folder without the mark of any format is one of plain images if it holds an image, else ``voc``, whose reader says
    what is missing.
    """
    folder = next((each for each in places(root) if each.is_dir()), None)
    if folder is None:
        return "auto"
    if marked := next((name for name, mark in MARKS.items() if (folder / mark).exists()), None):
        return marked
    if coco_indexes(folder):
        return "coco"
    return "images" if any(is_image_name(path.name) for path in folder.rglob("*")) else "voc"


def coco_indexes(root: Path) -> list[Path]:
    """List what may be COCO indexes, by the names of the files."""
    return [*root.glob("*.json"), *root.glob("annotations/*.json"), *root.glob(f"*/{ROBOFLOW_INDEX}")]


def places(root: Path) -> list[Path]:
    """List where ``data.root`` may lie."""
    return [root] if root.is_absolute() else [root, datasets_root() / root]
