"""Base and novel classes by name; means of scores (P13)."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.ovd.data.lvis import lvis_split
from pipelines.ovd.data.vocabulary_split import Split, base_dataset, check_no_leak, group_means, split_classes
from vision_core.detection.datasets.records import ClassList, DetectionDataset, LabelledBox
from vision_core.errors import ConfigError, DataError

CLASSES = ("person", "cat", "car", "dog")
SPLIT = Split(classes=CLASSES, novel=("cat", "dog"))


def test_split__by_name_in_the_order_of_the_classes() -> None:
    split = split_classes(CLASSES, ("dog", "cat"))
    assert split == SPLIT
    assert split.base == ("person", "car")
    assert split.is_novel == (False, True, False, True)


@pytest.mark.parametrize(
    ("novel", "told"),
    [
        (("cats",), "'cats', which is none of the classes"),
        ((), "leaves no novel class"),
        (CLASSES, "leaves no base class"),
    ],
)
def test_split__refused(novel: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        split_classes(CLASSES, novel)


def test_split__a_novel_class_in_another_spelling_among_the_base_classes() -> None:
    with pytest.raises(ConfigError, match="'Hair_drier', and 'hair drier' is a base class"):
        split_classes(("person", "hair drier", "Hair_drier"), ("Hair_drier",))
    with pytest.raises(ConfigError, match="'T shirt', and 't-shirt' is a base class"):
        split_classes(("person", "t-shirt", "T shirt"), ("T shirt",))


def test_split__what_stands_in_brackets_tells_classes_apart() -> None:
    """As LVIS has them, where the one is rare and the other is not."""
    classes = ("bow_(decorative_ribbons)", "salmon_(fish)", "bow_(weapon)", "salmon_(food)", "fish", "fish_(food)")
    assert split_classes(classes, ("bow_(weapon)", "salmon_(food)")).base == (*classes[:2], *classes[4:])
    with pytest.raises(ConfigError, match=r"and 'bow_\(weapon\)' is a base class"):
        split_classes((*classes, "Bow (weapon)"), ("Bow (weapon)",))


def test_split__of_the_published_index_of_lvis() -> None:
    from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES

    split = lvis_split(LVIS_CATEGORIES)
    assert (len(split.base), len(split.novel)) == (866, 337)


def _dataset(classes: tuple[str, ...], *names: str) -> DetectionDataset:
    objects = [LabelledBox(name=name, box=(0.0, 0, 9, 9)) for name in names]
    record = ClassList(names=classes).record("1", Path("one.png"), objects, (20, 20))
    return DetectionDataset(name="list", classes=classes, records=(record,), has_labels=True)


def test_base__labels_are_numbered_by_all_classes() -> None:
    found = base_dataset(_dataset(("car", "person"), "car", "person", "car"), SPLIT)
    assert found.classes == CLASSES
    assert found.records[0].labels.tolist() == [2, 0, 2]
    check_no_leak(found, SPLIT)


def test_base__read_with_a_novel_class_is_a_leak() -> None:
    with pytest.raises(DataError, match="novel class 'cat': a leak"):
        base_dataset(_dataset(("car", "cat"), "car"), SPLIT)
    with pytest.raises(DataError, match="one\\.png' has a box of the novel class 'dog'"):
        check_no_leak(_dataset(CLASSES, "car", "dog"), SPLIT)


@pytest.mark.parametrize(
    ("base", "novel", "expected"),
    [(56.4, 38.9, 51.823077), (56.739, 38.598, 51.994431), (54.0, 32.3, 48.324615), (56.6, 38.9, 51.970769)],
)
def test_means__of_the_sixty_five_classes(base: float, novel: float, expected: float) -> None:
    names = [f"class {number}" for number in range(65)]
    split = Split(classes=tuple(names), novel=tuple(names[::4]))
    assert len(split.novel) == 17
    spread = np.random.default_rng(0).normal(0, 1, 65)
    for group, mean in ((split.novel, novel), (split.base, base)):
        rows = [names.index(name) for name in group]
        spread[rows] += mean - spread[rows].mean()
    means, notes = group_means(dict(zip(names, spread.tolist(), strict=True)), split)
    assert means["novel"] == pytest.approx(novel)
    assert means["base"] == pytest.approx(base)
    assert means["all"] == pytest.approx(expected, abs=1e-5)
    assert notes == ()


def test_means__a_class_without_an_object_is_left_out_and_told() -> None:
    means, [note] = group_means({"person": 0.5, "cat": None, "car": 0.7, "dog": 0.2}, SPLIT)
    assert means == {"novel": pytest.approx(0.2), "base": pytest.approx(0.6), "all": pytest.approx(1.4 / 3)}
    assert note == "warning: 1 classes have no labelled object and take no part in the means: cat."
    assert group_means({}, SPLIT)[0] == {"novel": None, "base": None, "all": None}
