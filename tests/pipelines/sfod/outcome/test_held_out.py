"""Images kept out of adaptation: how many, which, and that every process draws the same."""

from pathlib import Path

import pytest

from pipelines.sfod.outcome.held_out import hold_out
from vision_core.detection.datasets.records import DetectionDataset, unlabelled


def listed(count: int) -> DetectionDataset:
    names = [f"{place:03d}.png" for place in range(count)]
    records = tuple(unlabelled(name, Path(name)) for name in names)
    return DetectionDataset(name="mine", classes=("disc",), records=records, has_labels=False)


@pytest.mark.parametrize(("count", "spared"), [(40, 8), (41, 8), (60, 12), (300, 60)])
def test_hold_out__a_fifth_of_forty_or_more(count: int, spared: int) -> None:
    dataset = listed(count)
    split = hold_out(dataset, is_asked=True)
    adapted = [record.path for record in split.adapted.records]
    assert len(split.compared) == spared
    assert sorted([*adapted, *split.compared]) == [record.path for record in dataset.records]
    assert adapted == sorted(adapted)
    assert split.is_kept_out
    assert split == hold_out(dataset, is_asked=True)
    assert f"{spared} of {count} images are kept out" in split.notes[0]


def test_hold_out__few_images_are_for_both_and_that_is_said() -> None:
    split = hold_out(listed(39), is_asked=True)
    assert len(split.adapted.records) == len(split.compared) == 39
    assert not split.is_kept_out
    assert "flatters" in split.notes[0]


@pytest.mark.parametrize("is_asked", [None, False])
def test_hold_out__nothing_unless_asked(is_asked: bool | None) -> None:
    split = hold_out(listed(60), is_asked=is_asked)
    assert len(split.adapted.records) == len(split.compared) == 60
    assert not split.is_kept_out
    assert split.notes == ()
