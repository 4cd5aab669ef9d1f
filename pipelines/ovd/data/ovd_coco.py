"""OVD-COCO: the 65 classes of COCO that are kept, 17 of them novel.

The division is the one of Bansal et al., "Zero-Shot Object Detection" (ECCV 2018), as open-vocabulary detection uses
it. ``configs/ovd`` names the classes in the order of COCO's own ids.
"""

from pipelines.ovd.data.vocabulary_split import Split
from vision_core.detection.datasets.records import DetectionDataset

NOVEL = (
    *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup"),
    *("knife", "cake", "couch", "keyboard", "sink", "scissors"),
)
BASE = (
    *("person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear"),
    *("zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork"),
    *("spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair"),
    *("bed", "toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book"),
    *("clock", "vase", "toothbrush"),
)
TRAINING_IMAGES, VALIDATION_IMAGES = 107_761, 4_836  # with base boxes; as papers count them


def published_notes(training: DetectionDataset, scored: DetectionDataset | None, split: Split) -> tuple[str, ...]:
    """Tell how many images have boxes, beside what papers count; empty for other classes than OVD-COCO's."""
    if (set(split.base), set(split.novel)) != (set(BASE), set(NOVEL)):
        return ()
    counted = [(training, TRAINING_IMAGES, "training images with base boxes")]
    counted += [(scored, VALIDATION_IMAGES, "validation images with boxes")] if scored else []
    return tuple(
        note
        for dataset, expected, what in counted
        for note in count_notes(sum(not each.crowd.all() for each in dataset.records), expected, what)
    )


def count_notes(images: int, expected: int, what: str) -> tuple[str, ...]:
    """Tell how many images there are, and how many papers count."""
    difference = "" if images == expected else f"; warning: papers count {expected}"
    return (f"{what}: {images} images{difference}.",)
