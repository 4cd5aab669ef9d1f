"""LVIS: rare classes are novel; what is not labelled in an image is neither right nor wrong."""

from collections.abc import Sequence
from typing import Any

import pytest

from pipelines.ovd.data.lvis import MOST_DETECTIONS, lvis_scores, lvis_split
from vision_core.errors import DataError

CATEGORIES: list[dict[str, Any]] = [
    {"id": 3, "name": "bolt", "frequency": "r"},
    {"id": 1, "name": "cat", "frequency": "f"},
    {"id": 2, "name": "mug", "frequency": "c"},
]
BOX = [10.0, 10.0, 30.0, 30.0]
ELSEWHERE = [60.0, 60.0, 20.0, 20.0]


def _image(number: int, negative: Sequence[int] = (), partial: Sequence[int] = ()) -> dict[str, Any]:
    return {
        "id": number,
        "width": 100,
        "height": 100,
        "neg_category_ids": list(negative),
        "not_exhaustive_category_ids": list(partial),
    }


def _truth(number: int, image: int, category: int) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": BOX, "area": 900.0, "iscrowd": 0}


def _found(image: int, category: int, score: float, box: Sequence[float] = BOX) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "score": score, "bbox": list(box)}


def _index(*images: dict[str, Any]) -> dict[str, Any]:
    """Cats in images 1 and 2, a mug in image 1, a bolt in image 2."""
    annotations = [_truth(1, 1, 1), _truth(2, 2, 1), _truth(3, 1, 2), _truth(4, 2, 3)]
    return {"images": list(images), "annotations": annotations, "categories": CATEGORIES}


PERFECT = [_found(1, 1, 0.9), _found(2, 1, 0.9), _found(1, 2, 0.9), _found(2, 3, 0.9)]


def test_split__rare_classes_are_novel_in_the_order_of_the_ids() -> None:
    split = lvis_split(CATEGORIES)
    assert split.classes == ("cat", "mug", "bolt")
    assert split.novel == ("bolt",)
    text = [{**each, "id": str(each["id"] + 8), "name": f"{each['name']} "} for each in CATEGORIES]
    assert lvis_split([*text, {"id": "b", "name": "cup", "frequency": "r"}]).classes == (*split.classes, "cup")
    with pytest.raises(DataError, match="'cat' has no frequency"):
        lvis_split([{"id": 1, "name": "cat"}])


def test_scores__by_frequency() -> None:
    index = _index(_image(1), _image(2))
    whole = lvis_scores(index, PERFECT)
    assert (whole.mean, whole.rare, whole.common, whole.frequent) == pytest.approx((1, 1, 1, 1))
    missed = lvis_scores(index, PERFECT[1:])
    assert missed.frequent == pytest.approx(51 / 101)  # recall reaches one half
    assert missed.mean == pytest.approx((51 / 101 + 2) / 3)
    assert lvis_scores(index, PERFECT[:3]).rare == 0


@pytest.mark.parametrize(
    ("negative", "partial", "common"),
    [
        ((), (), 1.0),  # nobody looked for mugs in image 2
        ((2,), (), 0.5),  # there is none
        ((), (2,), 1.0),  # some may be unlabelled
    ],
)
def test_scores__a_sure_mug_in_an_image_without_a_labelled_one(
    negative: Sequence[int], partial: Sequence[int], common: float
) -> None:
    index = _index(_image(1), _image(2, negative, partial))
    found = lvis_scores(index, [*PERFECT, _found(2, 2, 0.99, ELSEWHERE)])
    assert found.common == pytest.approx(common)
    assert found.frequent == pytest.approx(1)


def test_scores__an_unmatched_cat_counts_only_where_cats_are_labelled_exhaustively() -> None:
    extra = [*PERFECT, _found(1, 1, 0.99, ELSEWHERE)]
    assert lvis_scores(_index(_image(1), _image(2)), extra).frequent == pytest.approx(2 / 3, abs=0.01)
    assert lvis_scores(_index(_image(1, (), (1,)), _image(2)), extra).frequent == pytest.approx(1)


def test_scores__three_hundred_detections_an_image() -> None:
    assert MOST_DETECTIONS == 300
    crowd = [_found(2, 1, 0.95, ELSEWHERE) for _ in range(300)]
    index = _index(_image(1), _image(2))
    assert lvis_scores(index, [*PERFECT, *crowd]).rare == 0
    assert lvis_scores(index, [*PERFECT, *crowd[2:]]).rare == pytest.approx(1)


def test_scores__another_index_is_refused() -> None:
    index = _index({"id": 1, "width": 9, "height": 9})
    with pytest.raises(DataError, match="image '1' lacks neg_category_ids or not_exhaustive"):
        lvis_scores(index, [])
    empty = _index({**_image(1), "neg_category_ids": None})
    with pytest.raises(DataError, match="image '1' lacks neg_category_ids"):
        lvis_scores(empty, [])


def test_scores__nothing_found_is_zero_and_not_an_error() -> None:
    scores = lvis_scores(_index(_image(1), _image(2)), [])
    assert (scores.mean, scores.rare, scores.common, scores.frequent) == (0.0, 0.0, 0.0, 0.0)
