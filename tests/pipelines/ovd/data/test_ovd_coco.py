"""The classes of OVD-COCO in their order (P17)."""

from pathlib import Path

from pipelines.ovd.data.ovd_coco import BASE, NOVEL, count_notes, published_notes
from pipelines.ovd.data.vocabulary_split import Split, split_classes
from vision_core.detection.datasets.records import ClassList, DetectionDataset, LabelledBox

# COCO's own names by id; the gaps are ids that it never used.
_NAMES = """1 person,2 bicycle,3 car,4 motorcycle,5 airplane,6 bus,7 train,8 truck,9 boat,10 traffic light,
11 fire hydrant,13 stop sign,14 parking meter,15 bench,16 bird,17 cat,18 dog,19 horse,20 sheep,21 cow,22 elephant,
23 bear,24 zebra,25 giraffe,27 backpack,28 umbrella,31 handbag,32 tie,33 suitcase,34 frisbee,35 skis,36 snowboard,
37 sports ball,38 kite,39 baseball bat,40 baseball glove,41 skateboard,42 surfboard,43 tennis racket,44 bottle,
46 wine glass,47 cup,48 fork,49 knife,50 spoon,51 bowl,52 banana,53 apple,54 sandwich,55 orange,56 broccoli,57 carrot,
58 hot dog,59 pizza,60 donut,61 cake,62 chair,63 couch,64 potted plant,65 bed,67 dining table,70 toilet,72 tv,73 laptop,
74 mouse,75 remote,76 keyboard,77 cell phone,78 microwave,79 oven,80 toaster,81 sink,82 refrigerator,84 book,85 clock,
86 vase,87 scissors,88 teddy bear,89 hair drier,90 toothbrush"""
CATEGORIES = {
    int(number): name for number, _, name in (each.strip().partition(" ") for each in _NAMES.split(",") if each.strip())
}
_NOVEL_INDEX = [4, 5, 11, 12, 15, 16, 21, 23, 27, 29, 32, 34, 45, 47, 54, 58, 63]
_NOVEL_ID = [5, 6, 17, 18, 21, 22, 28, 32, 36, 41, 47, 49, 61, 63, 76, 81, 87]


def published() -> Split:
    """The division in the order of COCO's own ids."""
    return split_classes([name for _, name in sorted(CATEGORIES.items()) if name in (*BASE, *NOVEL)], NOVEL)


def test_split__forty_eight_and_seventeen_in_the_order_of_the_ids() -> None:
    assert len(CATEGORIES) == 80
    split = published()
    assert (len(split.classes), len(split.base), len(split.novel)) == (65, len(BASE), len(NOVEL)) == (65, 48, 17)
    assert [split.classes.index(name) for name in split.novel] == _NOVEL_INDEX
    ids = {name: number for number, name in CATEGORIES.items()}
    assert [ids[name] for name in split.novel] == _NOVEL_ID
    assert [ids[name] for name in split.classes] == sorted(ids[name] for name in split.classes)


def test_counts__differences_are_told() -> None:
    assert count_notes(4836, 4836, "validation") == ("validation: 4836 images.",)
    assert count_notes(12, 4836, "validation") == ("validation: 12 images; warning: papers count 4836.",)


def test_counts__of_the_images_are_told_for_these_classes_alone() -> None:
    split = published()
    kinds, box = ClassList(names=split.base), LabelledBox(name="person", box=(0.0, 0, 9, 9))
    records = tuple(kinds.record(str(count), Path("a.png"), [box] * count, (20, 20)) for count in range(3))
    listed = DetectionDataset(name="list", classes=split.base, records=records, has_labels=True)
    assert published_notes(listed, listed, split) == (
        "training images with base boxes: 2 images; warning: papers count 107761.",
        "validation images with boxes: 2 images; warning: papers count 4836.",
    )
    assert len(published_notes(listed, None, split)) == 1
    assert published_notes(listed, listed, Split(classes=split.classes, novel=split.novel[1:])) == ()
